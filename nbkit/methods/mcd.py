"""Maximum classifier discrepancy: MCD (Saito et al., CVPR 2018)."""

from __future__ import annotations

import torch
from torch import nn

from nbkit.losses.adversarial import gradient_reversal
from nbkit.losses.discrepancy import classifier_discrepancy
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Outputs, Step
from nbkit.models.two_stream import StreamOutput


class MCD(Adapting):
    r"""Two classifiers agree on the source and disagree on the target; the features learn to make
    them agree.

    $$\min_{F_1, F_2} \mathcal{L}_{CE}(F_1) + \lambda\,\mathcal{L}_{CE}(F_2) - \lambda\,d(p_1^t,
    p_2^t), \qquad
    \min_{\text{features}} \dots + \lambda\,d(p_1^t, p_2^t)$$

    Approximated: the paper's three alternating steps (its step C four times a batch) are one step
    here: target features reach both classifiers through gradient reversal (coefficient 1) and -d is
    minimised, so that the classifiers raise d while the features lower it.  The public video codes
    (TA3N, MM-SADA) do the same. Stage 2 trains both classifiers on the source (step A), stage 3
    adds the discrepancy.  F_1 is the network's own classifier and gives the prediction; F_2 starts
    from other random weights. Hyper-parameters: trade_off (lambda), 1 in the reference image code;
    0.2 : 0.2 with cross-entropy in MM-SADA's.
    """

    first_stage = 2

    def make_heads(self) -> dict[str, nn.Module]:
        classes = len(self.domains.classes)
        return {"second": self.per_stream(lambda: nn.Linear(self.cfg.model.feature_dim, classes))}

    def own_terms(
        self, source: Batch, out_s: Outputs, target: Batch, step: Step
    ) -> dict[str, torch.Tensor]:
        second = {
            m: self.read(m, self.heads["second"][m], out.v, out.V) for m, out in out_s.items()
        }
        terms = {"ce_2": self.supervised(second, source["label"])}
        if step.stage == 3:
            out_t = self.outputs(target, "target")
            terms["discrepancy"] = -self.mean_over_streams(lambda m: self.discrepancy(m, out_t[m]))
        return terms

    def read(self, m: str, classifier: nn.Module, v: torch.Tensor, V: torch.Tensor) -> StreamOutput:
        """Stream `m` with its logits given by `classifier`."""
        drop = self.model.streams[m].dropout
        return StreamOutput(v, V, classifier(drop(v)), classifier(drop(V)))

    def discrepancy(self, m: str, out: StreamOutput) -> torch.Tensor:
        """d(p_1, p_2) of target videos behind gradient reversal, the mean over what `cls_on` reads.

        Both classifiers see the same dropped features: their masks would otherwise disagree for
            them.
        """
        drop = self.model.streams[m].dropout
        v, V = (drop(gradient_reversal(x)) for x in (out.v, out.V))  # (B, K, D), (B, D)
        both = [
            self.model.logits(StreamOutput(v, V, F(v), F(V)))
            for F in (self.model.streams[m].classifier, self.heads["second"][m])
        ]
        return torch.stack([classifier_discrepancy(z1, z2) for z1, z2 in zip(*both)]).mean()
