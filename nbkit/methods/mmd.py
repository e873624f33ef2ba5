"""MMD on video features: DAN (Long et al., ICML 2015), as the video papers compare with it."""

from __future__ import annotations

from nbkit.losses.discrepancy import mk_mmd
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step


class MMD(Adapting):
    r"""$\mathcal{L} = \mathcal{L}_{CE} + \lambda\,\mathrm{MMD}^2(V^s, V^t)$, mean over streams.

    docs/METHODS.md: what is approximated.
    """

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        mmd = self.mean_over_streams(lambda m: mk_mmd(out_s[m].V, out_t[m].V))
        return mmd, {"mmd": mmd}
