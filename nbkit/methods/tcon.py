"""After TCoN: temporal co-attention (Pan et al., AAAI 2020).  An approximation: no code is public."""

from __future__ import annotations

import torch
from torch import nn

from nbkit.methods.adapting import Adapting, adversary
from nbkit.methods.base import Batch, Outputs, Step
from nbkit.models.clip_heads import ClipAttention, DomainClassifier, co_attention


class TCoN(Adapting):
    r"""Adversaries on source clips and on target clips brought into the source's time by
    co-attention.

    $$\tilde v^t = A(v^s, v^t)\, v^t, \qquad
    \mathcal{L} = \mathcal{L}_{CE} + \lambda \left(\mathcal{L}_d(v^s, \tilde v^t) +
    \mathcal{L}_d(V^s, \tilde V^t)\right)$$

    Kept from the paper: cross-domain co-attention between a source and a target video, adversarial
    matching of what it aligned, clip (segment) and video level. Approximated, our reading: the form
    of A (`co_attention`; self-attention scaled to mean 1, before the reversal: the reversed domain
    loss is all that it learns from); videos are paired as the batch has them; the classifier reads
    clips and videos without attention, at test time too; DANN's ramp. Hyper-parameters (the paper's
    are not known): trade_off (lambda) = 1, grl_max.
    """

    fields = ("trade_off", "grl_max")

    def make_heads(self) -> dict[str, nn.Module]:
        dim = self.cfg.model.feature_dim
        return {
            "attention": self.per_stream(lambda: ClipAttention(dim)),
            "clip": self.per_stream(lambda: DomainClassifier(dim)),
            "video": self.per_stream(lambda: DomainClassifier(dim)),
        }

    def own_terms(
        self, source: Batch, out_s: Outputs, target: Batch, step: Step
    ) -> dict[str, torch.Tensor]:
        out_t, reversal = self.outputs(target, "target"), self.reversal(step)
        return {
            "domain": self.mean_over_streams(
                lambda m: self.aligned(m, out_s[m].v, out_t[m].v, reversal)
            )
        }

    def aligned(
        self, m: str, v_s: torch.Tensor, v_t: torch.Tensor, reversal: float
    ) -> torch.Tensor:
        """Both adversaries of stream `m` on clips v_s, v_t (B, K, D), paired in order."""
        pairs = min(len(v_s), len(v_t))  # the domains' batches differ by one video at most
        v_s, v_t = v_s[:pairs], v_t[:pairs]
        weigh, aggregate = self.heads["attention"][m], self.model.streams[m].aggregate
        clips = v_s.shape[1]
        moved = co_attention(v_s, v_t, clips * weigh(v_s), clips * weigh(v_t)) @ v_t  # (B, K, D)
        return adversary(self.heads["clip"][m], v_s, moved, reversal) + adversary(
            self.heads["video"][m], aggregate(v_s), aggregate(moved), reversal
        )
