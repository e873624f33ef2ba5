"""After SAVA: shuffle and attend (Choi et al., ECCV 2020).  An approximation: no code is public."""

from __future__ import annotations

from torch import Tensor, nn

from nbkit.losses.domain import adversary, order_loss
from nbkit.losses.objective import cross_entropy
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step
from nbkit.models.clip_heads import ClipAttention, ClipOrder, DomainClassifier, attend


class SAVA(Adapting):
    r"""An adversary on videos whose discriminative clips weigh more, and clip-order prediction.

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

    def make_heads(self) -> dict[str, nn.Module]:
        dim, clips = self.cfg.model.feature_dim, self.cfg.data.clips
        return {
            "attention": self.per_stream(lambda: ClipAttention(dim)),
            "order": self.per_stream(lambda: ClipOrder(dim, clips)),
            "domain": self.per_stream(lambda: DomainClassifier(dim)),
        }

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t, reversal = self.outputs(target, "target"), self.reversal(step)
        V_s, V_t = self.attended(out_s), self.attended(out_t)  # (B, D) per stream
        classify = self.heads["domain"]
        terms = {
            "domain": self.mean_over_streams(
                lambda m: adversary(classify[m], V_s[m], V_t[m], reversal)
            ),
            "order": self.mean_over_streams(lambda m: self.order(m, out_s[m].v, out_t[m].v, step)),
            "attention": self.mean_over_streams(
                lambda m: self.classified(m, V_s[m], source["label"])
            ),
        }
        return sum(terms.values()), terms

    def attended(self, outputs: Outputs) -> dict[str, Tensor]:
        """The attended video feature (B, D) of every stream."""
        weigh = self.heads["attention"]
        return {m: attend(out.v, weigh[m](out.v)) for m, out in outputs.items()}

    def order(self, m: str, v_s: Tensor, v_t: Tensor, step: Step) -> Tensor:
        """Clip-order prediction, both domains weighing the same."""
        predict = self.heads["order"][m]
        of_source = order_loss(*predict(v_s, step.generator))
        return (of_source + order_loss(*predict(v_t, step.generator))) / 2

    def classified(self, m: str, V: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of attended source videos, by the stream's own classifier."""
        stream = self.model.streams[m]
        return cross_entropy(stream.classifier(stream.dropout(V)), labels)
