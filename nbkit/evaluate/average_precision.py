"""Average precision: greedy matching of ranked detections, area under precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nbkit.errors import NbkitError


def ranks_within(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N,) rank of each item inside its own group, by falling score (0 = best)."""
    order = np.lexsort((-score, group))
    _, first, size = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(first, size)
    return rank


def greedy_choice(
    worth: np.ndarray, group: np.ndarray, score: np.ndarray, least: float
) -> np.ndarray:
    """Which of the G things of its group each of N takers gets: (N,), -1 for none.

    The takers of a group choose by falling score, each the free thing of the highest worth, if that
    is `least` or more.  The r-th best taker of *every* group chooses at once: the Python loop runs
    over ranks, not over takers.

    Args:
        worth: (N, G) of the things of a taker's own group to it.
        group: (N,) int in 0..n_groups-1.
        score: (N,).
    """
    chosen = np.full(len(score), -1)
    if worth.size == 0:
        return chosen
    free = np.ones((int(group.max()) + 1, worth.shape[1]), dtype=bool)
    rank = ranks_within(group, score)
    by_rank = np.argsort(rank, kind="stable")
    ends = np.cumsum(np.bincount(rank))[:-1]
    for rows in np.split(by_rank, ends):
        available = np.where(free[group[rows]], worth[rows], -np.inf)  # (n, G)
        best = available.argmax(1)
        good = available.max(1) >= least
        chosen[rows[good]] = best[good]
        free[group[rows[good]], best[good]] = False
    return chosen


def greedy_match(
    overlap: np.ndarray, group: np.ndarray, score: np.ndarray, threshold: float
) -> np.ndarray:
    """Which detections are true positives when each, best first, takes its best free ground truth.

    Args:
        overlap: (N, G) IoU of detection n with the g-th ground truth of its own group (a frame, or
            a video); -1 where there is none.
        group, score: as in `greedy_choice`.
        threshold: a match needs IoU >= threshold.

    Returns:
        (N,) bool. A second detection of a taken ground truth is a false positive.
    """
    return greedy_choice(overlap, group, score, threshold) >= 0


def average_precision(score: np.ndarray, hit: np.ndarray, n_truth: int) -> float:
    """Area under the precision-recall curve as it is, by trapezoids from (1, 0), in [0, 1].

    This is the rule of the ACT tubelet evaluator and of those that descend from it.

    Args:
        score, hit: (N,) the ranking and whether each detection is a true positive.
        n_truth: number of ground truths. With none the AP is undefined: NaN.
    """
    if n_truth == 0:
        return float("nan")
    order = np.argsort(-np.asarray(score, float), kind="stable")
    true = np.cumsum(np.asarray(hit, bool)[order])
    precision = np.r_[1.0, true / np.arange(1, len(true) + 1)]  # (N + 1,)
    recall = np.r_[0.0, true / n_truth]
    return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1])) / 2)


@dataclass(frozen=True)
class MeanAP:
    """AP per class in percent, NaN where the test set has no instance of the class."""

    classes: tuple[str, ...]
    ap: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Percent, over the classes with ground truth; NaN when there is none."""
        known = [value for value in self.ap if not np.isnan(value)]
        if not known:
            return float("nan")
        return float(np.mean(known))


def class_names(classes: Sequence[str] | int) -> tuple[str, ...]:
    """Names of the classes; a number C stands for '0'..'C-1'."""
    if isinstance(classes, int):
        return tuple(str(c) for c in range(classes))
    return tuple(classes)


def check_labels(labels: np.ndarray, classes: Sequence[str], what: str) -> None:
    """Refuse class ids that the class list lacks: they would vanish from the result unseen."""
    if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
        raise NbkitError(
            f"{what}: class ids span {labels.min()}..{labels.max()}, but there are "
            f"{len(classes)} classes; map the labels to 0..{len(classes) - 1} first"
        )
