"""What the comparison rows share: when they adapt, their weight, their modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from nbkit.methods.base import Batch, Loss, Method, Outputs, Step, TrainingData, own_random_numbers

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig


class Adapting(Method):
    """Cross-entropy on the source plus `trade_off` times a row's own loss.

    Stage 2 is that of *source only*, trained once for all rows; the own loss enters in
    `first_stage`, by default stage 3, where STCDA's alignment enters too.  trade_off = 0 is *source
    only* itself, bit for bit: no extra module, no target clip, the same stages.
    """

    first_stage = 3

    def __init__(self, cfg: RunConfig, data: TrainingData):
        super().__init__(cfg, data)
        self.uses_target = cfg.comparison.trade_off > 0
        self.heads = nn.ModuleDict()
        if self.uses_target:
            with own_random_numbers(cfg.seed + 401):
                self.heads.update(self.make_heads())
        else:
            self.statistics = "source"

    # --- what a row defines ----------------------------------------------------------------------
    def make_heads(self) -> dict[str, nn.Module]:
        """Extra modules, by name; they are optimised and saved with the network."""
        return {}

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        """What `trade_off` weighs, a scalar, and its terms, unweighted, for the history."""
        raise NotImplementedError(
            f"{type(self).__name__} has to define own_loss(): what trade_off weighs, and its terms"
        )

    # --- the same for all rows -------------------------------------------------------------------
    def active(self, stage: int) -> bool:
        """Whether the own loss is part of the stage's objective."""
        return self.uses_target and stage >= self.first_stage

    def plain(self, stage: int) -> bool:
        return not self.active(stage)

    def sections(self, stage: int) -> tuple[str, ...]:
        return ("comparison",)

    def forward(self, source: Batch, target: Batch | None, step: Step) -> Loss:
        out_s = self.outputs(source, "source")
        ce = self.supervised(out_s, source["label"])
        if not self.active(step.stage):
            return self.reduced(ce), {"ce": ce}
        own, terms = self.own_loss(source, out_s, target, step)
        loss = ce + self.cfg.comparison.trade_off * own
        return self.reduced(loss), {"ce": ce, **terms}

    def trainable(self, stage: int) -> Iterator[nn.Parameter]:
        if self.active(stage):
            return self.parameters()
        return self.model.parameters()

    def keeps(self, stage: int, name: str) -> bool:
        return self.active(stage)

    def per_stream(self, make: Callable[[], nn.Module]) -> nn.ModuleDict:
        """A module of its own for every stream."""
        return nn.ModuleDict({m: make() for m in self.cfg.streams})
