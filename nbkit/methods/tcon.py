"""After TCoN: temporal co-attention (Pan et al., AAAI 2020).  An approximation: no public code."""

from __future__ import annotations

from torch import Tensor, nn

from nbkit.losses.domain import adversary
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step
from nbkit.models.clip_heads import ClipAttention, DomainClassifier, co_attention


class TCoN(Adapting):
    r"""Adversaries on source clips and on target clips brought into the source's time.

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

    def make_heads(self) -> dict[str, nn.Module]:
        dim = self.cfg.model.feature_dim
        return {
            "attention": self.per_stream(lambda: ClipAttention(dim)),
            "clip": self.per_stream(lambda: DomainClassifier(dim)),
            "video": self.per_stream(lambda: DomainClassifier(dim)),
        }

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t, reversal = self.outputs(target, "target"), self.reversal(step)
        domain = self.mean_over_streams(lambda m: self.aligned(m, out_s[m].v, out_t[m].v, reversal))
        return domain, {"domain": domain}

    def aligned(self, m: str, v_s: Tensor, v_t: Tensor, reversal: float) -> Tensor:
        """Both adversaries of stream `m` on clips v_s, v_t (B, K, D), paired in order."""
        pairs = min(len(v_s), len(v_t))  # the domains' batches differ by one video at most
        v_s, v_t = v_s[:pairs], v_t[:pairs]
        weigh, aggregate = self.heads["attention"][m], self.model.streams[m].aggregate
        clips = v_s.shape[1]
        moved = co_attention(v_s, v_t, clips * weigh(v_s), clips * weigh(v_t)) @ v_t  # (B, K, D)
        of_clips = adversary(self.heads["clip"][m], v_s, moved, reversal)
        return of_clips + adversary(
            self.heads["video"][m], aggregate(v_s), aggregate(moved), reversal
        )
