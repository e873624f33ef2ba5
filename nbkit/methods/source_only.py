"""Rows that adapt nothing: source only (lower bound), AdaBN, target only and source + target labels
(upper bounds).
"""

from __future__ import annotations

from typing import Any

import torch

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.methods.base import Batch, Method, Step
from nbkit.train.domains import Domains


class SourceOnly(Method):
    """Cross-entropy on the source; the target is only ever tested."""

    statistics = "source"
    uses_target = False

    def signature(self, stage: int) -> dict[str, Any]:
        return self.plain_signature()


class AdaBN(SourceOnly):
    """Source only, then the target's own normalisation statistics (Li et al., Pattern Recognition
    2018).

    No weight changes: one pass over the unlabelled target training clips re-estimates mean and
    variance.  A gain that this row also has is not the gain of a loss.
    """

    statistics = "target"

    def __init__(self, cfg: RunConfig, domains: Domains):
        if cfg.model.bn_mode in ("group", "frozen"):
            raise NbkitError(
                f"METHOD='adabn' re-estimates batch statistics, and BN_MODE={cfg.model.bn_mode!r} has none: "
                'set BN_MODE = "per_domain"'
            )
        super().__init__(cfg, domains)


class TargetOnly(Method):
    """Cross-entropy on the target's training labels: the upper bound.

    Same batch, steps, epochs and schedule as the others, whatever the size of its own labelled set.
    """

    labelled = ("target",)
    uses_target = False

    def signature(self, stage: int) -> dict[str, Any]:
        source, target = (len(self.domains.train[d]) for d in ("source", "target"))
        return self.plain_signature() | ({} if source == target else {"steps": "of the source"})


class SourceTarget(Method):
    """Cross-entropy on both domains' labels: the ceiling where the target's training set is small."""

    labelled = ("source", "target")

    def forward(self, source: Batch, target: Batch, step: Step) -> dict[str, torch.Tensor]:
        ce = [
            self.supervised(self.outputs(batch, d), batch["label"])
            for d, batch in (("source", source), ("target", target))
        ]
        return {"ce": torch.stack(ce).mean()}
