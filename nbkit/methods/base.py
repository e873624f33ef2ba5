"""What a method is: extra modules, the losses of a step, and what it does at the start of an epoch.

A table row is one file beside this one.  The training loop (nbkit/train/loop.py) knows nothing else
about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.losses.objective import cross_entropy
from nbkit.methods.samplers import epoch_batches
from nbkit.models.norm import use_domain
from nbkit.models.two_stream import StreamOutput, TwoStream
from nbkit.train.domains import Domains

Batch = dict[str, torch.Tensor]
Outputs = dict[str, StreamOutput]
STAGES = (1, 2, 3)


class Step(NamedTuple):
    """Where training stands.  `progress` runs from 0 to 1 over the stage; `generator` is seeded per
    step.
    """

    stage: int
    epoch: int
    progress: float
    generator: torch.Generator


class Method(nn.Module):
    """Base of all rows: the network, cross-entropy on labelled videos, random batches.

    Class attributes a subclass may change:
        labelled: whose training labels it may see, ('source',) in adaptation, ('target',) in
            the upper bound.
        statistics: whose normalisation statistics read the target's test videos.
        uses_target: whether training looks at the (unlabelled) target clips at all.
        version: raise it when a change of the class alters its numbers; runs and stages of
            older versions no longer count.
    """

    labelled: tuple[str, ...] = ("source",)
    statistics = "target"
    uses_target = True
    version = 1

    def __init__(self, cfg: RunConfig, domains: Domains):
        super().__init__()
        self.cfg, self.domains = cfg, domains
        self.model = TwoStream(cfg, len(domains.classes))

    # --- what a row defines
    # ------------------------------------------------------------------------------------
    def signature(self, stage: int) -> dict[str, Any]:
        """The fields, beyond the shared ones, that determine this stage.  Equal signatures share
        one training.

        Two classes share none unless they say so: where a stage is that of *source only*,
            return `plain_signature()`.
        """
        return self.plain_signature() | self.own_signature()

    def plain_signature(self) -> dict[str, Any]:
        """Of a stage that trains with cross-entropy alone."""
        return {"labelled": self.labelled}

    def own_signature(self) -> dict[str, Any]:
        """The class by name, and its version where it was raised."""
        return {"method": type(self).__name__} | (
            {"version": self.version} if self.version > 1 else {}
        )

    def skips(self, stage: int) -> bool:
        """Whether the stage trains nothing for this method (stage 1 is contrastive only)."""
        return stage == 1

    def trainable(self, stage: int) -> Iterator[nn.Parameter]:
        """What the stage's optimizer holds.  Rows that share a stage must agree on it, or neither
        could resume the other's.
        """
        return self.parameters()

    def keeps(self, stage: int, name: str) -> bool:
        """Whether the stage's checkpoint holds the entry `name` of the method's own state (all but
        the network).

        What a stage does not train stays out: a row that shares the stage must not get another
            row's modules.
        """
        return True

    def start_stage(self, stage: int) -> None:
        """Called once before the first epoch of a stage."""

    def start_epoch(self, stage: int, epoch: int) -> dict[str, float]:
        """Called before each epoch; what it returns is written into the history."""
        return {}

    def batches(self, stage: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of (labelled-domain indices, target indices), one an optimisation step.

        The number of steps an epoch is set by the source, for every row; shorter lists are
        repeated, longer ones cut.
        """
        half, seed, turn = self.cfg.optim.batch // 2, self.cfg.seed, 3 * epoch + stage
        sizes = {d: len(videos) for d, videos in self.domains.train.items()}
        steps = len(epoch_batches(sizes["source"], half, seed, turn))
        own = sizes[self.labelled[0]]
        labelled = epoch_batches(own, half, seed, turn) + self._cycle(own, half, steps, turn)
        return list(zip(labelled[:steps], self._cycle(sizes["target"], half, steps, turn)))

    def forward(self, source: Batch, target: Batch | None, step: Step) -> dict[str, torch.Tensor]:
        """The weighted terms of the objective for one step; the loop minimises their sum."""
        return {"ce": self.supervised(self.outputs(source, self.labelled[0]), source["label"])}

    # --- shared pieces
    # -----------------------------------------------------------------------------------------
    def outputs(self, batch: Batch, domain: str) -> Outputs:
        """Forward pass with `domain`'s normalisation statistics."""
        with use_domain(self.model, domain):
            return self.model(batch)

    def supervised(self, outputs: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Eq. (9), averaged over what `cls_on` reads and over the streams."""
        terms = [
            cross_entropy(z, labels) for out in outputs.values() for z in self.model.logits(out)
        ]
        return torch.stack(terms).mean()

    def _cycle(self, n: int, batch: int, steps: int, epoch: int) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        turn = 0
        while len(found) < steps:  # a different shuffle each time round
            found += epoch_batches(n, batch, self.cfg.seed + 7919, 1000 * epoch + turn)
            turn += 1
        return found[:steps]
