"""TA3N: temporal attentive adversarial adaptation (Chen et al., ICCV 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nbkit.losses.adversarial import gradient_reversal
from nbkit.losses.domain import adversary, attentive_entropy, domain_attention, domain_loss
from nbkit.methods.adapting import Adapting
from nbkit.methods.base import Batch, Loss, Outputs, Step
from nbkit.models.clip_heads import DomainClassifier
from nbkit.models.norm import use_domain
from nbkit.models.two_stream import Attention, StreamOutput

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig

# Reversal coefficients of relations, videos and clips, and the weight of the attentive entropy. The
# published command lines differ by direction: UCF to HMDB (0.75, 0.75, 0.5) and 0.003, HMDB to UCF
# (1, 0.75, 0.5) and 0.3. One set serves all pairs here: the coefficients of the first, the entropy
# weight of the second.
RELATION, VIDEO, CLIP, GAMMA = 0.75, 0.75, 0.5, 0.3


class RelationClassifiers(nn.Module):
    """One domain classifier per relation.  Called, they give attention weights."""

    def __init__(self, dim: int, relations: int):
        super().__init__()
        self.each = nn.ModuleList(DomainClassifier(dim, dim) for _ in range(relations))

    def logits(self, R: Tensor) -> Tensor:
        """Relations R (B, r, D) -> domain logits (B, r)."""
        R = gradient_reversal(R, RELATION)
        return torch.stack([classify(R[:, i]) for i, classify in enumerate(self.each)], dim=1)

    def forward(self, R: Tensor) -> Tensor:
        return domain_attention(self.logits(R))


class TA3N(Adapting):
    r"""Adversaries on clips, relations, videos; relations that show their domain weigh more.

    $$\mathcal{L} = \mathcal{L}_{CE} + \lambda \left(\mathcal{L}_d^{clip} + \mathcal{L}_d^{relation}
    + \mathcal{L}_d^{video} + \gamma\,\mathcal{L}_{ae}\right), \qquad V = \sum_r (1 + w_r) R_r$$

    Exact: TRN-M in place of the configured aggregation (`AGGREGATION = "trn"` gives it to any other
    row), the three levels, attention and attentive entropy with their gradients as in the public
    code, its constant reversals. Approximated: K clips for its 5 frames, trained encoders for
    frozen frame features, no adaptive normalisation of its own (`bn_mode` does that); stage 2
    trains TRN on the source, and stage 3 adapts. Hyper-parameters: trade_off (lambda) = 1; beta =
    (0.75, 0.75, 0.5) for relations, videos, clips; gamma = 0.3. trade_off = 0 is *source only* with
    AGGREGATION = "trn".  Needs two clips or more.
    """

    def network(self) -> RunConfig:
        return self.cfg.replace(aggregation="trn")

    def make_heads(self) -> dict[str, nn.Module]:
        dim, relations = self.cfg.model.feature_dim, self.cfg.data.clips - 1
        return {
            "clip": self.per_stream(lambda: DomainClassifier(dim, dim)),
            "relation": self.per_stream(lambda: RelationClassifiers(dim, relations)),
            "video": self.per_stream(lambda: DomainClassifier(dim, dim)),
        }

    def attention(self) -> dict[str, Attention]:
        """The relation classifiers, once stage 3 trains them."""
        if self.uses_target and self.cfg.optim.epochs[2] > 0:
            return dict(self.heads["relation"].items())
        return {}

    def forward(self, source: Batch, target: Batch | None, step: Step) -> Loss:
        if self.active(step.stage):
            return super().forward(source, target, step)
        with use_domain(self.model, "source"):  # without attention: no classifier is trained yet
            ce = self.supervised(self.model(source), source["label"])
        return self.reduced(ce), {"ce": ce}

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        domain = self.mean_over_streams(lambda m: self.adversaries(m, out_s[m], out_t[m]))
        entropy = self.mean_over_streams(lambda m: self.entropy(m, out_s[m], out_t[m]))
        return domain + GAMMA * entropy, {"domain": domain, "entropy": entropy}

    def adversaries(self, m: str, s: StreamOutput, t: StreamOutput) -> Tensor:
        """The domain losses of the three levels, added up."""
        relations = self.model.streams[m].aggregate.relations
        classify = self.heads["relation"][m].logits
        of_clips = adversary(self.heads["clip"][m], s.v, t.v, CLIP)
        of_videos = adversary(self.heads["video"][m], s.V, t.V, VIDEO)
        of_relations = domain_loss(classify(relations(s.v)), classify(relations(t.v)))
        return of_clips + of_videos + of_relations

    def entropy(self, m: str, s: StreamOutput, t: StreamOutput) -> Tensor:
        """Attentive entropy of the videos of both domains."""
        V, logits = torch.cat([s.V, t.V]), torch.cat([s.video_logits, t.video_logits])
        return attentive_entropy(logits, self.heads["video"][m](gradient_reversal(V, VIDEO)))
