"""Which videos form which batch.

Functions of (seed, epoch) only, so that a resumed run sees the same batches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nbkit.errors import NbkitError


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
