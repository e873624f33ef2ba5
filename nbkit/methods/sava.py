"""After SAVA: shuffle and attend (Choi et al., ECCV 2020).  An approximation: no code is public."""

from __future__ import annotations

import torch
from torch import nn

from nbkit.losses.domain import order_loss
from nbkit.losses.objective import cross_entropy
from nbkit.methods.adapting import Adapting, adversary
from nbkit.methods.base import Batch, Outputs, Step
from nbkit.models.clip_heads import ClipAttention, ClipOrder, DomainClassifier, attend


class SAVA(Adapting):
    r"""An adversary on videos whose discriminative clips weigh more, and clip-order prediction in
    both domains.

    $$\mathcal{L} = \mathcal{L}_{CE} + \lambda \left(\mathcal{L}_d(\tilde V^s, \tilde V^t) +
    \mathcal{L}_{order} + \mathcal{L}_{CE}(\tilde V^s)\right), \qquad \tilde V = \sum_k w_k v_k$$

    Kept from the paper: the adversary sees the attended video feature only; three shuffled clips,
    six orders, on source and target. Approximated, our reading: w is a softmax over clips of a
    two-layer score, and learns what is discriminative from the classification of attended source
    videos (it lies before the reversal, so the adversary moves it, too); the order head is a
    two-layer perceptron; the weights of the three terms are equal; the prediction at test time uses
    no attention. Hyper-parameters (the paper's weights are not known): trade_off (lambda) = 1,
    grl_max.
    """

    fields = ("trade_off", "grl_max")

    def make_heads(self) -> dict[str, nn.Module]:
        dim, clips = self.cfg.model.feature_dim, self.cfg.data.clips
        return {
            "attention": self.per_stream(lambda: ClipAttention(dim)),
            "order": self.per_stream(lambda: ClipOrder(dim, clips)),
            "domain": self.per_stream(lambda: DomainClassifier(dim)),
        }

    def own_terms(
        self, source: Batch, out_s: Outputs, target: Batch, step: Step
    ) -> dict[str, torch.Tensor]:
        out_t, reversal = self.outputs(target, "target"), self.reversal(step)
        V_s, V_t = (
            {m: attend(out.v, self.heads["attention"][m](out.v)) for m, out in side.items()}
            for side in (out_s, out_t)
        )  # (B, D) a stream
        return {
            "domain": self.mean_over_streams(
                lambda m: adversary(self.heads["domain"][m], V_s[m], V_t[m], reversal)
            ),
            "order": self.mean_over_streams(lambda m: self.order(m, out_s[m].v, out_t[m].v, step)),
            "attention": self.mean_over_streams(
                lambda m: self.classified(m, V_s[m], source["label"])
            ),
        }

    def order(self, m: str, v_s: torch.Tensor, v_t: torch.Tensor, step: Step) -> torch.Tensor:
        """Clip-order prediction, both domains weighing the same."""
        return sum(order_loss(*self.heads["order"][m](v, step.generator)) for v in (v_s, v_t)) / 2

    def classified(self, m: str, V: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of attended source videos, by the stream's own classifier."""
        stream = self.model.streams[m]
        return cross_entropy(stream.classifier(stream.dropout(V)), labels)
