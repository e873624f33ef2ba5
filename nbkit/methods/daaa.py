"""DANN on clips: DAAA (Jamal et al., BMVC 2018)."""

from __future__ import annotations

from torch import nn

from nbkit.losses.domain import adversary
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step
from nbkit.models.clip_heads import DomainClassifier


class DAAA(Adapting):
    r"""$\mathcal{L} = \mathcal{L}_{CE} + \lambda\,\mathcal{L}_d(v^s, v^t)$, gradient reversed.

    One domain classifier per stream on clip features.  docs/METHODS.md: what is approximated.
    """

    def make_heads(self) -> dict[str, nn.Module]:
        return {"domain": self.per_stream(lambda: DomainClassifier(self.cfg.model.feature_dim))}

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t, reversal = self.outputs(target, "target"), self.reversal(step)
        classify = self.heads["domain"]
        domain = self.mean_over_streams(
            lambda m: adversary(classify[m], out_s[m].v, out_t[m].v, reversal)
        )
        return domain, {"domain": domain}
