"""MM-SADA: modality correspondence and one adversary per modality (Munro and Damen, CVPR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nbkit.losses.domain import adversary, correspondence_loss
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step, Terms
from nbkit.models.clip_heads import DomainClassifier

# In the second stage of the public code the cross-entropy weighs 0.2 and the rest 1; in the first
# the correspondence weighs 5, the default that the code's call leaves in force.
WEIGHT = 5.0


class MMSADA(Adapting):
    r"""Do RGB and flow belong together? Asked in both domains; and one adversary per modality.

    $$\text{stage 2: } \mathcal{L}_{CE} + 5 \lambda\,\mathcal{L}_c, \qquad \text{stage 3: }
    \mathcal{L}_{CE} + 5 \lambda \left(\mathcal{L}_c + \mathcal{L}_d^{rgb} +
    \mathcal{L}_d^{flow}\right)$$

    Exact: the terms, their ratios in both stages (1 : 5 and 0.2 : 1 : 1 in the public code), head
    and classifier shapes (100 hidden units), reversal up to 0.2 along DANN's ramp. Approximated:
    pairs that do not match are made from the batch's features (a clip's RGB with the flow of the
    next video), so that every clip is in a pair of each kind, where the code gives half of the
    batch foreign flow; one cross-entropy per stream, where the paper sums the streams' logits.
    Hyper-parameters: trade_off (lambda) = 1, grl_max = 0.2. With one stream there is no
    correspondence, and only the adversary is left.
    """

    first_stage = 2

    def make_heads(self) -> dict[str, nn.Module]:
        dim, streams = self.cfg.model.feature_dim, len(self.cfg.streams)
        heads = {"domain": self.per_stream(lambda: DomainClassifier(dim))}
        if streams == 2:
            heads["correspondence"] = DomainClassifier(streams * dim)
        return heads

    def active(self, stage: int) -> bool:
        return super().active(stage) and (stage == 3 or len(self.cfg.streams) == 2)

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t, reversal = self.outputs(target, "target"), self.reversal(step)
        terms: Terms = {}
        if "correspondence" in self.heads:
            both = self.correspondence(out_s) + self.correspondence(out_t)
            terms["correspondence"] = both / 2
        if step.stage == 2:
            return WEIGHT * terms["correspondence"], terms
        classify = self.heads["domain"]
        terms["domain"] = sum(
            adversary(classify[m], out_s[m].v, out_t[m].v, reversal) for m in self.cfg.streams
        )
        return WEIGHT * sum(terms.values()), terms

    def correspondence(self, out: Outputs) -> Tensor:
        """L_c of one domain's clips: with their own flow, and with that of the next video."""
        classify = self.heads["correspondence"]
        rgb, flow = out["rgb"].v, out["flow"].v  # (B, K, D) each
        foreign = flow.roll(1, dims=0)
        same = classify(torch.cat([rgb, flow], -1))  # (B, K) logits
        other = classify(torch.cat([rgb, foreign], -1))
        return correspondence_loss(same, other)
