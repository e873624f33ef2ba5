"""Rows that adapt nothing: source only (the lower bound), AdaBN, and two upper bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbkit.errors import NbkitError
from nbkit.methods.base import Batch, Loss, Method, Step, TrainingData, mean

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig


class SourceOnly(Method):
    """Cross-entropy on the source; the target is only ever tested."""

    statistics = "source"
    uses_target = False

    def plain(self, stage: int) -> bool:
        return True


class AdaBN(SourceOnly):
    """Source only, then the target's own normalisation statistics (Li et al., 2018).

    No weight changes: one pass over the unlabelled target training clips re-estimates mean and
    variance.  A gain that this row also has is not the gain of a loss.
    """

    statistics = "target"

    def __init__(self, cfg: RunConfig, data: TrainingData):
        if cfg.model.bn_mode in ("group", "frozen"):
            raise NbkitError(
                "METHOD='adabn' re-estimates batch statistics, and "
                f'BN_MODE={cfg.model.bn_mode!r} has none: set BN_MODE = "per_domain"'
            )
        super().__init__(cfg, data)

    def estimates_target(self) -> bool:
        return True


class TargetOnly(SourceOnly):
    """Cross-entropy on the target's training labels: the upper bound.

    Same batch, steps, epochs and schedule as the others, whatever the size of its own labelled set.
    """

    labelled = ("target",)
    statistics = "target"


class SourceTarget(Method):
    """Cross-entropy on both domains' labels: the ceiling where the target has few."""

    labelled = ("source", "target")

    def sections(self, stage: int) -> tuple[str, ...]:
        return ()

    def forward(self, source: Batch, target: Batch, step: Step) -> Loss:
        of_source = self.supervised(self.outputs(source, "source"), source["label"])
        of_target = self.supervised(self.outputs(target, "target"), target["label"])
        ce = self.reduced(mean([of_source, of_target]))
        return ce, {"ce": ce}
