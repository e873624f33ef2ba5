"""Rows that lower a discrepancy of the domains.

MMD on video features: DAN (Long et al., ICML 2015), as the video papers compare with it.  MCD:
maximum classifier discrepancy (Saito et al., CVPR 2018).
"""

from __future__ import annotations

from torch import Tensor, nn

from nbkit.losses.adversarial import gradient_reversal
from nbkit.losses.discrepancy import classifier_discrepancy, mk_mmd
from nbkit.methods.base import Adapting, Batch, Loss, Outputs, Step, mean
from nbkit.models.two_stream import StreamOutput


class MMD(Adapting):
    r"""$\mathcal{L} = \mathcal{L}_{CE} + \lambda\,\mathrm{MMD}^2(V^s, V^t)$, mean over streams.

    Exact: the multi-kernel estimate of TA3N's public code (five Gaussians, data-driven bandwidths).
    Approximated: one layer, the video feature V (DAN also aligns the classifier's output); equal
    kernel weights. Hyper-parameters: trade_off (lambda), 1 in the reference image code; 0.2 : 0.2
    with cross-entropy in MM-SADA's.
    """

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        mmd = mean([mk_mmd(out_s[m].V, out_t[m].V) for m in self.cfg.streams])
        return mmd, {"mmd": mmd}


class MCD(Adapting):
    r"""Two classifiers disagree on the target; the features learn to make them agree.

    $$\min_{F_1, F_2} \mathcal{L}_{CE}(F_1) + \lambda\,\mathcal{L}_{CE}(F_2) - \lambda\,d(p_1^t,
    p_2^t), \qquad
    \min_{\text{features}} \dots + \lambda\,d(p_1^t, p_2^t)$$

    Approximated: the paper's three alternating steps (its step C four times per batch) are one step
    here: target features reach both classifiers through gradient reversal (coefficient 1) and -d is
    minimised, so that the classifiers raise d while the features lower it.  The public video codes
    (TA3N, MM-SADA) do the same. Stage 2 trains both classifiers on the source (step A), stage 3
    adds the discrepancy.  F_1 is the network's own classifier and gives the prediction; F_2 starts
    from other random weights. Hyper-parameters: trade_off (lambda), 1 in the reference image code;
    0.2 : 0.2 with cross-entropy in MM-SADA's.
    """

    first_stage = 2

    def make_heads(self) -> dict[str, nn.Module]:
        dim, classes = self.cfg.model.feature_dim, len(self.data.classes)
        return {"second": self.per_stream(lambda: nn.Linear(dim, classes))}

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        second = {m: self.second(m, out) for m, out in out_s.items()}
        ce_2 = self.supervised(second, source["label"])
        if step.stage == 2:
            return ce_2, {"ce_2": ce_2}
        out_t = self.outputs(target, "target")
        apart = mean([self.discrepancy(m, out_t[m]) for m in self.cfg.streams])
        return ce_2 - apart, {"ce_2": ce_2, "discrepancy": apart}

    def second(self, m: str, out: StreamOutput) -> StreamOutput:
        """What F_2 says of stream `m`."""
        classify, drop = self.heads["second"][m], self.model.streams[m].dropout
        clip_logits = classify(drop(out.v))  # (B, K, C)
        return StreamOutput(out.v, out.V, clip_logits, classify(drop(out.V)))

    def discrepancy(self, m: str, out: StreamOutput) -> Tensor:
        """d(p_1, p_2) of target videos behind gradient reversal, mean over what `cls_on` reads.

        Both classifiers see the same dropped features: other masks would make them disagree.
        """
        stream = self.model.streams[m]
        v = stream.dropout(gradient_reversal(out.v))  # (B, K, D)
        V = stream.dropout(gradient_reversal(out.V))  # (B, D)
        read = []
        for classify in (stream.classifier, self.heads["second"][m]):
            read.append(self.model.logits(StreamOutput(v, V, classify(v), classify(V))))
        return mean([classifier_discrepancy(z1, z2) for z1, z2 in zip(*read)])
