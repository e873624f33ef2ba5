"""TA3N: temporal attentive adversarial adaptation (Chen et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.losses.adversarial import gradient_reversal
from nbkit.losses.domain import attentive_entropy, domain_attention, domain_loss
from nbkit.methods.adapting import Adapting, adversary
from nbkit.methods.base import Batch, Outputs, Step
from nbkit.models.clip_heads import DomainClassifier
from nbkit.train.domains import Domains

# Reversal coefficients of relations, videos and clips, and the weight of the attentive entropy. The
# published command lines differ by direction: UCF to HMDB (0.75, 0.75, 0.5) and 0.003, HMDB to UCF
# (1, 0.75, 0.5) and 0.3. One set serves all pairs here: the coefficients of the first, the entropy
# weight of the second.
RELATION, VIDEO, CLIP, GAMMA = 0.75, 0.75, 0.5, 0.3


class RelationClassifiers(nn.Module):
    """One domain classifier a relation: relations R (B, r, D) -> logits (B, r).  Called, it gives
    attention weights.
    """

    def __init__(self, dim: int, relations: int):
        super().__init__()
        self.each = nn.ModuleList(DomainClassifier(dim, dim) for _ in range(relations))

    def logits(self, R: torch.Tensor) -> torch.Tensor:
        R = gradient_reversal(R, RELATION)
        return torch.stack([classify(R[:, i]) for i, classify in enumerate(self.each)], dim=1)

    def forward(self, R: torch.Tensor) -> torch.Tensor:
        return domain_attention(self.logits(R))


class TA3N(Adapting):
    r"""Adversaries on clips, relations and videos; relations that show their domain weigh more;
    attentive entropy.

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

    def __init__(self, cfg: RunConfig, domains: Domains):
        super().__init__(cfg.model_copy(update={"aggregation": "trn"}), domains)
        self.cfg = cfg
        self.attach(self.uses_target and cfg.optim.epochs[2] > 0)

    def signature(self, stage: int) -> dict[str, Any]:
        return super().signature(stage) | (
            {} if self.cfg.model.aggregation == "trn" else {"aggregation": "trn"}
        )

    def make_heads(self) -> dict[str, nn.Module]:
        dim, relations = self.cfg.model.feature_dim, self.cfg.data.clips - 1
        return {
            "clip": self.per_stream(lambda: DomainClassifier(dim, dim)),
            "relation": self.per_stream(lambda: RelationClassifiers(dim, relations)),
            "video": self.per_stream(lambda: DomainClassifier(dim, dim)),
        }

    # --- attention
    # ---------------------------------------------------------------------------------------------
    def attach(self, on: bool) -> None:
        """Let the aggregation weigh its relations by the relation classifiers, or not."""
        for m, stream in self.model.streams.items():
            # around nn.Module.__setattr__: a reference, not a second registration of the
            # classifiers' parameters
            stream.aggregate.__dict__["attention"] = self.heads["relation"][m] if on else None

    @contextmanager
    def without_attention(self) -> Iterator[None]:
        """For stage 2, in which no domain classifier is trained."""
        before = next(iter(self.model.streams.values())).aggregate.attention is not None
        self.attach(False)
        try:
            yield
        finally:
            self.attach(before)

    # --- objective
    # ---------------------------------------------------------------------------------------------
    def forward(self, source: Batch, target: Batch | None, step: Step) -> dict[str, torch.Tensor]:
        if self.active(step.stage):
            return super().forward(source, target, step)
        with self.without_attention():
            return super().forward(source, target, step)

    def own_terms(
        self, source: Batch, out_s: Outputs, target: Batch, step: Step
    ) -> dict[str, torch.Tensor]:
        out_t = self.outputs(target, "target")
        return {
            "domain": self.mean_over_streams(lambda m: self.adversaries(m, out_s[m], out_t[m])),
            "entropy": GAMMA
            * self.mean_over_streams(lambda m: self.entropy(m, out_s[m], out_t[m])),
        }

    def adversaries(self, m: str, s, t) -> torch.Tensor:
        """The domain losses of the three levels, added up."""
        relations, classify = (
            self.model.streams[m].aggregate.relations,
            self.heads["relation"][m].logits,
        )
        return (
            adversary(self.heads["clip"][m], s.v, t.v, CLIP)
            + adversary(self.heads["video"][m], s.V, t.V, VIDEO)
            + domain_loss(classify(relations(s.v)), classify(relations(t.v)))
        )

    def entropy(self, m: str, s, t) -> torch.Tensor:
        """Attentive entropy of the videos of both domains."""
        V, logits = torch.cat([s.V, t.V]), torch.cat([s.video_logits, t.video_logits])
        return attentive_entropy(logits, self.heads["video"][m](gradient_reversal(V, VIDEO)))
