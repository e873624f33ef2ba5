"""DANN on clips: DAAA (Jamal et al., BMVC 2018)."""

from __future__ import annotations

from torch import nn

from nbkit.losses.domain import adversary
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step
from nbkit.models.clip_heads import DomainClassifier


class DAAA(Adapting):
    r"""$\mathcal{L} = \mathcal{L}_{CE} + \lambda\,\mathcal{L}_d(v^s, v^t)$, gradient reversed.

    Exact: the objective, one domain classifier per stream on clip features, trained end to end, and
    DANN's ramp 2 / (1 + exp(-10 p)) - 1 over stage 3. Approximated: our backbones for its C3D; the
    classifier's shape (D, 100, 1), because no code is public. Hyper-parameters: trade_off (lambda)
    = 1; grl_max, 1 in DANN, 0.2 by default here as in MM-SADA's code.
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
