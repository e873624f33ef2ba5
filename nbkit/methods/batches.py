"""Which videos form which batch, and passes over a whole data set.

Batches are functions of (seed, epoch) only, so that a resumed run sees the same ones.  Passes give
features, predictions, normalisation statistics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nbkit.errors import NbkitError
from nbkit.evaluate.accuracy import top1
from nbkit.models.norm import estimating_statistics

if TYPE_CHECKING:
    from nbkit.methods.base import Batch, Method

EVAL_BATCH = 64
# threads that assemble batches, and batches that wait assembled
AHEAD = 2


# --- which videos --------------------------------------------------------------------------------
def epoch_batches(n: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """A random order of n videos cut into ceil(n / batch) batches of 0..n-1, int64.

    Batch sizes differ by at most one and never exceed `batch`: a small rest batch would upset batch
    statistics.
    """
    if n < 1 or batch < 1:
        raise NbkitError(
            f"cannot draw batches of {batch} from {n} videos: both must be at least 1."
        )
    order = np.random.default_rng((seed, epoch, 0)).permutation(n)
    return np.array_split(order, -(-n // batch))


def class_aware_batches(
    labels_source: ArrayLike,
    labels_target: ArrayLike,
    classes: int,
    per_class: int,
    n_batches: int,
    seed: int,
    epoch: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches in which source and target show the same classes (Kang et al., CAN, CVPR 2019).

    Classes are dealt in turn, so that over a few batches all are seen equally often. Raises
    NbkitError where no class occurs in both domains.

    Args:
        labels_source: (N_s,) class numbers.
        labels_target: (N_t,) pseudo-labels; -1 is rejected and never drawn.
        classes: classes per batch, fewer where fewer occur in both domains.
        per_class: videos per class and domain.

    Returns:
        n_batches pairs (source indices, target indices), int64, ordered by class alike.
    """
    source, target = np.asarray(labels_source), np.asarray(labels_target)
    shared = np.intersect1d(source[source >= 0], target[target >= 0])
    if len(shared) == 0:
        raise NbkitError(
            "no class has both source videos and (pseudo-labelled) target videos: "
            "no batch can be drawn."
        )
    rng = np.random.default_rng((seed, epoch, 1))
    deck: list[int] = []
    batches = []
    for _ in range(n_batches):
        chosen = _deal(deck, shared, min(classes, len(shared)), rng)
        first = [_take(np.flatnonzero(source == c), per_class, rng) for c in chosen]
        second = [_take(np.flatnonzero(target == c), per_class, rng) for c in chosen]
        batches.append((np.concatenate(first), np.concatenate(second)))
    return batches


def _deal(deck: list[int], shared: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Take `count` different classes from the deck, which is refilled where it has none left."""
    chosen: list[int] = []
    while len(chosen) < count:
        fresh = [c for c in deck if c not in chosen]
        if fresh:
            chosen.append(fresh[0])
            deck.remove(fresh[0])
        else:
            deck += rng.permutation(shared).tolist()
    return chosen


def _take(members: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the members: no repetition where there are enough, else equally often (+-1)."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate(rounds)[:count]


# --- passes --------------------------------------------------------------------------------------
class Features(NamedTuple):
    """Outputs of a data set, in its order."""

    v: dict[str, Tensor]  # by stream (N, K, D)
    V: dict[str, Tensor]  # by stream (N, D)
    probs: dict[str, Tensor]  # by stream and 'fused' (N, C)
    labels: Tensor  # (N,), -1 where withheld

    def predicted(self) -> dict[str, np.ndarray]:
        """The most probable class by stream and 'fused' (N,)."""
        return {name: p.argmax(-1).cpu().numpy() for name, p in self.probs.items()}

    def accuracies(self) -> dict[str, float]:
        """Accuracy in percent by stream and 'fused'."""
        labels = self.labels.cpu().numpy()
        return {name: top1(numbers, labels) for name, numbers in self.predicted().items()}


def ahead(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work(item)` of every item in order; threads do the next ones while the caller is busy."""
    pool, waiting = ThreadPoolExecutor(AHEAD), deque[Future]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def assembled(device: torch.device, dataset: Any, chosen: np.ndarray, **views: bool) -> Batch:
    """A batch in bytes, in memory that a GPU can fetch by itself where `device` is one."""
    batch = dataset.raw(chosen, **views)
    if device.type != "cuda":
        return batch
    return {name: x.pin_memory() for name, x in batch.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    return {name: x.to(device, non_blocking=True) for name, x in batch.items()}


def require_finite(found: Batch, videos: list[str], what: str) -> None:
    """NbkitError that names the videos of whose tensors (N, ...) one is not finite.

    `found["index"]` says which of `videos` the N are; without it they are all.
    """
    index = found.get("index", torch.arange(len(videos))).tolist()
    bad = torch.zeros(len(index), dtype=torch.bool)
    for x in found.values():
        bad |= ~x.reshape(len(index), -1).isfinite().all(1).cpu()
    names = [videos[i] for i, is_bad in zip(index, bad.tolist()) if is_bad]
    if names:
        raise NbkitError(
            f"{what} of {len(names)} videos are not finite numbers ({', '.join(names[:5])}): a run "
            "would count them as some class. Their cached files are damaged (delete those), or "
            "training diverged (lower LR)"
        )


def in_batches(
    dataset: Any, device: torch.device, seed: int | None = None, **views: Any
) -> Iterator[Batch]:
    """All videos of `dataset` once.  `views` are arguments of `dataset.raw`.

    Without a `seed` they come in the order of the files, so of the classes: only for evaluation
    mode, because batch statistics would know the labels.  With one the order is random, and the
    sizes of the batches differ by one at most.
    """
    every = np.arange(len(dataset))
    parts = np.split(every, every[EVAL_BATCH::EVAL_BATCH])
    if seed is not None:
        parts = epoch_batches(len(dataset), EVAL_BATCH, seed + 5171, 0)
    for batch in ahead(partial(assembled, device, dataset, **views), parts):
        yield to_device(batch, device)


@torch.no_grad()
def extract(method: Method, dataset: Any, domain: str, device: torch.device) -> Features:
    """Features and predictions in evaluation mode with `domain`'s statistics."""
    was_training = method.training
    method.eval()
    parts: dict[str, list] = {"v": [], "V": [], "probs": []}
    labels = []
    for batch in in_batches(dataset, device):
        out = method.outputs(batch, domain)
        parts["v"].append({m: stream.v for m, stream in out.items()})
        parts["V"].append({m: stream.V for m, stream in out.items()})
        parts["probs"].append(method.model.probabilities(out))
        labels.append(batch["label"])
    method.train(was_training)
    found = {}
    for name, each in parts.items():
        found[name] = {m: torch.cat([part[m] for part in each]) for m in each[0]}
    for name in ("V", "probs"):
        require_finite(found[name], dataset.videos, "features or probabilities")
    return Features(**found, labels=torch.cat(labels))


@torch.no_grad()
def estimate_statistics(method: Method, dataset: Any, domain: str, device: torch.device) -> None:
    """Fill `domain`'s normalisation statistics from one pass over `dataset` (AdaBN, no labels)."""
    with estimating_statistics(method.model, domain):
        for batch in in_batches(dataset, device, method.cfg.seed):
            require_finite(batch, dataset.videos, "clips")
            outputs = method.outputs(batch, domain)
            features = {m: out.V for m, out in outputs.items()}
            require_finite({**features, "index": batch["index"]}, dataset.videos, "features")
