"""What the comparison rows share: when they adapt, their weight, their own random numbers, the
adversary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.losses.adversarial import gradient_reversal, ramp
from nbkit.losses.domain import domain_loss
from nbkit.methods.base import Batch, Method, Outputs, Step
from nbkit.train.domains import Domains


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Within the block, modules are initialised from `seed`; the numbers that the network draws
    stay as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def adversary(
    classifier: nn.Module, source: torch.Tensor, target: torch.Tensor, reversal: float
) -> torch.Tensor:
    """Domain loss of features (..., D) behind gradient reversal: the classifier learns it, the
    features unlearn it.
    """
    return domain_loss(
        classifier(gradient_reversal(source, reversal)),
        classifier(gradient_reversal(target, reversal)),
    )


class Adapting(Method):
    """Cross-entropy on the source plus `trade_off` times a row's own terms.

    Stage 2 is that of *source only*, trained once for all rows; the own terms enter in
    `first_stage`, by default stage 3, where STCDA's alignment enters too.  trade_off = 0 is *source
    only* itself, bit for bit: no extra module, no target clip, the same stages.

    Class attributes a row sets:
        fields: the configuration fields it reads.
        first_stage: the first stage with own terms.
    """

    fields: tuple[str, ...] = ("trade_off",)
    first_stage = 3

    def __init__(self, cfg: RunConfig, domains: Domains):
        super().__init__(cfg, domains)
        self.uses_target = cfg.comparison.trade_off > 0
        self.statistics = "target" if self.uses_target else "source"
        with own_random_numbers(cfg.seed + 401):
            self.heads = nn.ModuleDict(self.make_heads() if self.uses_target else {})

    # --- what a row defines
    # ------------------------------------------------------------------------------------
    def make_heads(self) -> dict[str, nn.Module]:
        """Extra modules, by name."""
        return {}

    def own_terms(
        self, source: Batch, out_s: Outputs, target: Batch, step: Step
    ) -> dict[str, torch.Tensor]:
        """The terms that `trade_off` weighs, each a scalar."""
        raise NotImplementedError(
            f"{type(self).__name__} has to define own_terms(): the terms that trade_off weighs"
        )

    # --- the same for all rows
    # ---------------------------------------------------------------------------------
    def active(self, stage: int) -> bool:
        """Whether the own terms are part of the stage's objective."""
        return self.uses_target and stage >= self.first_stage

    def signature(self, stage: int) -> dict[str, Any]:
        own = self.own_signature() | {k: getattr(self.cfg, k) for k in self.fields}
        return self.plain_signature() | (own if self.active(stage) else {})

    def forward(self, source: Batch, target: Batch | None, step: Step) -> dict[str, torch.Tensor]:
        out_s = self.outputs(source, "source")
        terms = {"ce": self.supervised(out_s, source["label"])}
        if self.active(step.stage):
            own = self.own_terms(source, out_s, target, step)
            terms |= {name: self.cfg.comparison.trade_off * term for name, term in own.items()}
        return terms

    def trainable(self, stage: int) -> Iterator[nn.Parameter]:
        return (self if self.active(stage) else self.model).parameters()

    def keeps(self, stage: int, name: str) -> bool:
        return self.active(stage)

    def per_stream(self, make) -> nn.ModuleDict:
        """A module of its own for every stream."""
        return nn.ModuleDict({m: make() for m in self.cfg.streams})

    def mean_over_streams(self, term) -> torch.Tensor:
        """Mean of `term(m)` over the streams m, as the cross-entropy is: the weight means the same
        with one or two.
        """
        return torch.stack([term(m) for m in self.cfg.streams]).mean()

    def reversal(self, step: Step) -> float:
        """DANN's ramp, from 0 to `grl_max` over the stage: a classifier that knows nothing yet
        moves no feature.
        """
        return self.cfg.comparison.grl_max * ramp(step.progress)
