"""What a method is: its network and modules, the loss of a step, its batches.

A table row is one class in a file beside this one.  The training loop knows nothing else about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nbkit.losses.objective import cross_entropy
from nbkit.methods import METHODS
from nbkit.methods.batches import epoch_batches
from nbkit.models.norm import use_domain
from nbkit.models.two_stream import Attention, StreamOutput, TwoStream

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig

Batch = dict[str, Tensor]
Outputs = dict[str, StreamOutput]
Terms = dict[str, Tensor]
Loss = tuple[Tensor, Terms]  # what is minimised, and its terms, unweighted, for the history
STAGES = (1, 2, 3)


class TrainingData(NamedTuple):
    """What a method may see, by domain ('source', 'target'): no test video is in it.

    Labels are -1 in a domain whose labels are withheld.  A data set has `labels`, `videos`,
    `len()` and `batch(indices, second_view="none", negatives=False)`.
    """

    classes: list[str]
    train: dict[str, Any]  # augmented clips
    plain: dict[str, Any]  # the same videos, centred clips


class Step(NamedTuple):
    """Where training stands."""

    stage: int
    epoch: int
    progress: float  # from 0 to 1 over the stage
    generator: torch.Generator  # seeded per step


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Initialise modules from `seed` within the block; the network's numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def mean(terms: list[Tensor]) -> Tensor:
    """Mean of scalars; over the streams, so that a weight means the same with one or two."""
    return torch.stack(terms).mean()


class Method(nn.Module):
    """Base of all rows: the network, cross-entropy on labelled videos, random batches.

    Class attributes that a subclass may change:
        labelled: whose training labels it may see, ('source',) in adaptation, ('target',) in
            the upper bound.
        statistics: whose normalisation statistics read the target's test videos.
        uses_target: whether training looks at the (unlabelled) target clips at all.
        weights_from: whose weights the network has, for a reader.
    """

    labelled: tuple[str, ...] = ("source",)
    statistics = "target"
    uses_target = True
    weights_from = "untrained"

    def __init__(self, cfg: RunConfig, data: TrainingData):
        super().__init__()
        self.cfg, self.data = cfg, data
        self.model = TwoStream(self.network(), len(data.classes))

    # --- what a row defines ----------------------------------------------------------------------
    def network(self) -> RunConfig:
        """The configuration whose network the row trains."""
        return self.cfg

    def plain(self, stage: int) -> bool:
        """Whether the stage trains with cross-entropy alone.  All rows share such a stage."""
        return False

    def sections(self, stage: int) -> tuple[str, ...]:
        """Sections of the configuration that a stage beyond plain ones reads, next to the usual."""
        return ("stcl", "vca", "comparison")

    def determined_by(self, stage: int) -> dict[str, Any]:
        """All that determines what the stage does; rows that share it return equal values."""
        own = () if self.plain(stage) else self.sections(stage)
        found = self.network().part("data", "model", "optim", *own)
        for name in ("lr", "epochs"):  # three values, of which the stage reads its own
            found["optim"][name] = found["optim"][name][stage - 1]
        found["labelled"] = list(self.labelled)
        if not self.plain(stage):
            found["method"] = [self.cfg.method, METHODS[self.cfg.method].version]
        return found

    def views(self, stage: int) -> dict[str, Any]:
        """Keyword arguments for a training data set's `batch`."""
        return {}

    def skips(self, stage: int) -> bool:
        """Whether the stage trains nothing for this method (stage 1 is contrastive only)."""
        return stage == 1

    def stages(self, last: int = STAGES[-1]) -> list[int]:
        """The stages up to `last` that train something."""
        return [stage for stage in STAGES[:last] if not self.skips(stage)]

    def active(self, stage: int) -> bool:
        """Whether the stage trains the row's modules beside the network.

        Where it does not, they are neither in its optimizer nor in its checkpoint: rows that share
        a stage must agree on both, or neither could resume the other's.
        """
        return True

    def trainable(self, stage: int) -> Iterator[nn.Parameter]:
        """What the stage's optimizer holds."""
        if self.active(stage):
            return self.parameters()
        return self.model.parameters()

    def estimates_target(self) -> bool:
        """Whether a pass over target training videos fills the statistics of its test."""
        return self.statistics == "target" and self.cfg.model.bn_mode == "per_domain"

    def start_stage(self, stage: int) -> None:
        """Prepare a stage; called once before its first epoch."""

    def start_epoch(self, stage: int, epoch: int) -> dict[str, float]:
        """Prepare an epoch; what it returns is written into the history."""
        return {}

    def forward(self, source: Batch, target: Batch | None, step: Step) -> Loss:
        """Loss of one step, and its terms, unweighted, for the history.

        Args:
            source: a batch of the first domain of `labelled`.
            target: a batch of the target; None where `uses_target` is False.
        """
        out = self.outputs(source, self.labelled[0])
        ce = self.reduced(self.supervised(out, source["label"]))
        return ce, {"ce": ce}

    # --- shared pieces ---------------------------------------------------------------------------
    def attention(self) -> dict[str, Attention]:
        """By stream, what weighs the relations between clips; only TA3N has any."""
        return {}

    def outputs(self, batch: Batch, domain: str) -> Outputs:
        """Forward pass with `domain`'s normalisation statistics, in training and in tests."""
        with use_domain(self.model, domain):
            return self.model(batch, self.attention())

    def supervised(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """Eq. (9), averaged over what `cls_on` reads and over the streams."""
        logits = [read for out in outputs.values() for read in self.model.logits(out)]
        return mean([cross_entropy(read, labels) for read in logits])

    def reduced(self, mean: Tensor) -> Tensor:
        """A loss that is a mean over the streams, or their sum, as `ce_reduction` says."""
        if self.cfg.model.ce_reduction == "sum":
            return mean * len(self.cfg.streams)
        return mean

    def batches(self, stage: int, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of (labelled-domain indices, target indices), one per optimisation step.

        The source sets the number of steps, for every row; shorter lists are repeated, longer
        ones cut.
        """
        half, seed, turn = self.cfg.optim.batch // 2, self.cfg.seed, 3 * epoch + stage
        steps = len(epoch_batches(len(self.data.train["source"]), half, seed, turn))
        own = len(self.data.train[self.labelled[0]])
        labelled = epoch_batches(own, half, seed, turn) + self._cycle(own, steps, turn)
        target = self._cycle(len(self.data.train["target"]), steps, turn)
        return list(zip(labelled[:steps], target))

    def _cycle(self, videos: int, steps: int, turn: int) -> list[np.ndarray]:
        half, seed = self.cfg.optim.batch // 2, self.cfg.seed + 7919
        found: list[np.ndarray] = []
        shuffle = 1000 * turn
        while len(found) < steps:  # a different shuffle each time round
            found += epoch_batches(videos, half, seed, shuffle)
            shuffle += 1
        return found[:steps]


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

    def per_stream(self, make: Callable[[], nn.Module]) -> nn.ModuleDict:
        """A module of its own for every stream."""
        return nn.ModuleDict({m: make() for m in self.cfg.streams})
