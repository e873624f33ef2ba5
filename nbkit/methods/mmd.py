"""MMD on video features: DAN (Long et al., ICML 2015), as the video papers compare with it."""

from __future__ import annotations

from nbkit.losses.discrepancy import mk_mmd
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step


class MMD(Adapting):
    r"""$\mathcal{L} = \mathcal{L}_{CE} + \lambda\,\mathrm{MMD}^2(V^s, V^t)$, mean over streams.

    Exact: the multi-kernel estimate of TA3N's public code (five Gaussians, data-driven bandwidths).
    Approximated: one layer, the video feature V (DAN also aligns the classifier's output); equal
    kernel weights. Hyper-parameters: trade_off (lambda), 1 in the reference image code; 0.2 : 0.2
    with cross-entropy in MM-SADA's.
    """

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        mmd = self.mean_over_streams(lambda m: mk_mmd(out_s[m].V, out_t[m].V))
        return mmd, {"mmd": mmd}
