"""Precision, recall and their area: greedy matching of ranked detections, two rules for the area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nbkit.errors import NbkitError

RULES = ("raw", "voc")


def ranks_within(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N,) position of each item inside its own group when that is sorted by falling score (0 =
    best).
    """
    order = np.lexsort((-score, group))
    sorted_group = group[order]
    start = (
        np.flatnonzero(np.r_[True, sorted_group[1:] != sorted_group[:-1]]) if len(order) else order
    )
    first = np.repeat(start, np.diff(np.r_[start, len(order)]))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - first
    return rank


def greedy_match(
    overlap: np.ndarray, group: np.ndarray, score: np.ndarray, threshold: float
) -> np.ndarray:
    """Which detections are true positives when each, best first, takes its best free ground truth.

    Detections compete only inside their group (a frame, or a video), so the r-th best of *every*
    group is served at once: the Python loop runs over ranks, not over detections.

    Args:
        overlap: (N, G) IoU of detection n with the g-th ground truth of its own group; -1 where
            there is none.
        group: (N,) int in 0..n_groups-1. score: (N,). threshold: a match needs IoU >= threshold.
    Returns:
        (N,) bool. A second detection of a taken ground truth is a false positive.
    """
    hit = np.zeros(len(score), dtype=bool)
    if overlap.size == 0:
        return hit
    free = np.ones((int(group.max()) + 1, overlap.shape[1]), dtype=bool)
    rank = ranks_within(group, score)
    by_rank = np.argsort(rank, kind="stable")
    for rows in np.split(by_rank, np.cumsum(np.bincount(rank))[:-1]):
        available = np.where(free[group[rows]], overlap[rows], -1.0)  # (n, G)
        best = available.argmax(1)
        good = available[np.arange(len(rows)), best] >= threshold
        hit[rows] = good
        free[group[rows[good]], best[good]] = False
    return hit


def precision_recall(
    score: np.ndarray, hit: np.ndarray, n_truth: int
) -> tuple[np.ndarray, np.ndarray]:
    """The curve after 0, 1, ..., N detections: precision (N+1,), recall (N+1,); it starts at (1,
    0).
    """
    true = np.cumsum(hit[np.argsort(-score, kind="stable")])
    precision = np.r_[1.0, true / np.arange(1, len(true) + 1)]
    return precision, np.r_[0.0, true / n_truth]


def average_precision(score, hit, n_truth: int, rule: str = "raw") -> float:
    """Area under the precision-recall curve, in [0, 1].

    Args:
        score, hit: (N,) the ranking and whether each detection is a true positive.
        n_truth: number of ground truths. With none the AP is undefined: NaN.
        rule: 'raw' = trapezoids under the curve as it is (the rule of the ACT tubelet evaluator
            and of those that
            descend from it); 'voc' = precision first made monotone from the right, then rectangles
            (PASCAL VOC since 2010). 'voc' is never below 'raw'.
    """
    if rule not in RULES:
        raise NbkitError(f"average precision: unknown rule {rule!r}, choose one of {RULES}")
    if n_truth == 0:
        return float("nan")
    precision, recall = precision_recall(np.asarray(score, float), np.asarray(hit, bool), n_truth)
    if rule == "raw":
        return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1])) / 2)
    envelope = np.maximum.accumulate(precision[:0:-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


@dataclass(frozen=True)
class MeanAP:
    """AP per class in percent, NaN where the test set has no instance of the class; `mean` leaves
    those out.
    """

    classes: tuple[str, ...]
    ap: tuple[float, ...]
    n_truth: tuple[int, ...]
    n_detections: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Percent; NaN when no class has any ground truth."""
        known = [a for a in self.ap if not np.isnan(a)]
        return float(np.mean(known)) if known else float("nan")

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without ground truth."""
        return tuple(c for c, n in zip(self.classes, self.n_truth) if n == 0)

    def as_dict(self) -> dict[str, float]:
        """`{class: AP, ..., 'mean': mAP}` in percent."""
        return {**dict(zip(self.classes, self.ap)), "mean": self.mean}


def class_names(classes: Sequence[str] | int) -> tuple[str, ...]:
    """Names of the classes; a number C stands for '0'..'C-1'."""
    return tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)


def check_labels(labels: np.ndarray, classes: Sequence[str], what: str) -> None:
    """Refuse class ids that the class list does not have: they would vanish from the result unseen."""
    if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
        raise NbkitError(
            f"{what}: class ids span {labels.min()}..{labels.max()}, but there are "
            f"{len(classes)} classes; map the labels to 0..{len(classes) - 1} first"
        )
