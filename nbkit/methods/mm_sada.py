"""MM-SADA: modality correspondence and an adversary a modality (Munro and Damen, CVPR 2020)."""

from __future__ import annotations

import torch
from torch import nn

from nbkit.losses.domain import correspondence_loss
from nbkit.methods.adapting import Adapting, adversary
from nbkit.methods.base import Batch, Outputs, Step
from nbkit.models.clip_heads import DomainClassifier

# in its second stage the cross-entropy weighs 0.2; this is the same ratio with the cross-entropy at
# 1
ADAPTATION = 5.0


class MMSADA(Adapting):
    r"""Do RGB and flow belong together? Asked in both domains; and one adversary a modality.

    $$\text{stage 2: } \mathcal{L}_{CE} + \lambda\,\mathcal{L}_c, \qquad \text{stage 3: }
    \mathcal{L}_{CE} + 5 \lambda \left(\mathcal{L}_c + \mathcal{L}_d^{rgb} +
    \mathcal{L}_d^{flow}\right)$$

    Exact: the terms, their ratios in both stages (0.2 : 1 : 1 in the public code's second), head
    and classifier shapes (100 hidden units), reversal up to 0.2 along DANN's ramp. Approximated:
    pairs that do not match are made from the batch's features (a clip's RGB with the flow of the
    next video), so that every clip is in a pair of each kind, where the code gives half of the
    batch foreign flow; one cross-entropy a stream, where the paper sums the streams' logits.
    Hyper-parameters: trade_off (lambda) = 1 (the published script; the code's default is 5),
    grl_max = 0.2. With one stream there is no correspondence, and only the adversary is left.
    """

    fields = ("trade_off", "grl_max")
    first_stage = 2

    def make_heads(self) -> dict[str, nn.Module]:
        dim, streams = self.cfg.model.feature_dim, len(self.cfg.streams)
        heads = {"domain": self.per_stream(lambda: DomainClassifier(dim))}
        return heads | ({"correspondence": DomainClassifier(streams * dim)} if streams == 2 else {})

    def active(self, stage: int) -> bool:
        return super().active(stage) and (stage == 3 or len(self.cfg.streams) == 2)

    def own_terms(
        self, source: Batch, out_s: Outputs, target: Batch, step: Step
    ) -> dict[str, torch.Tensor]:
        out_t, reversal, terms = self.outputs(target, "target"), self.reversal(step), {}
        weight = ADAPTATION if step.stage == 3 else 1.0
        if "correspondence" in self.heads:
            terms["correspondence"] = (
                weight * (self.correspondence(out_s) + self.correspondence(out_t)) / 2
            )
        if step.stage == 3:
            terms["domain"] = weight * sum(
                adversary(self.heads["domain"][m], out_s[m].v, out_t[m].v, reversal)
                for m in self.cfg.streams
            )
        return terms

    def correspondence(self, out: Outputs) -> torch.Tensor:
        """L_c of one domain's clips, with the flow of the same video and with that of the next one
        in the batch.
        """
        rgb, flow = out["rgb"].v, out["flow"].v  # (B, K, D) each
        same, other = (
            self.heads["correspondence"](torch.cat([rgb, f], -1))
            for f in (flow, flow.roll(1, dims=0))
        )
        return correspondence_loss(same, other)  # logits (B, K)
