"""Overlap of tubes in space and time, and non-maximum suppression of whole tubes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbkit.evaluate.detections import Tube, iou


class TubeStack:
    """n tubes of one video on a common time axis: `boxes` (n, F, 4) and `there` (n, F) bool."""

    def __init__(self, tubes: Sequence[Tube]):
        self.first = min(int(tube.frames[0]) for tube in tubes)
        last = max(int(tube.frames[-1]) for tube in tubes)
        shape = len(tubes), last + 1 - self.first
        self.boxes = np.zeros((*shape, 4))
        self.there = np.zeros(shape, dtype=bool)
        for i, tube in enumerate(tubes):
            self.boxes[i, tube.frames - self.first] = tube.boxes
            self.there[i, tube.frames - self.first] = True
        self.length = self.there.sum(1)  # (n,) frames of each tube

    def overlap(self, tube: Tube, rows: np.ndarray) -> np.ndarray:
        """3D IoU of `tube` with the stacked tubes at `rows`: (len(rows),). See `tube_iou`."""
        at = tube.frames - self.first
        inside = (at >= 0) & (at < self.there.shape[1])
        at, boxes = at[inside], tube.boxes[inside]
        there = self.there[rows][:, at]  # (r, f)
        each = np.where(there, iou(self.boxes[rows][:, at], boxes[None]), 0.0)
        union = self.length[rows] + len(tube) - there.sum(1)
        # The mean over the common frames times common / union of the frames is sum / union.
        return each.sum(1) / union


def tube_iou(a: Tube, b: Tube) -> float:
    """3D IoU in [0, 1]: mean box IoU over the common frames, times the IoU of the frame sets."""
    return float(TubeStack([a]).overlap(b, [0])[0])


def tube_iou_matrix(a: Sequence[Tube], b: Sequence[Tube]) -> np.ndarray:
    """(len(a), len(b)) 3D IoU of tubes of one video; pass the longer list as `a`."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    stack, rows = TubeStack(a), np.arange(len(a))
    return np.stack([stack.overlap(tube, rows) for tube in b], axis=1)


def tube_nms(tubes: Sequence[Tube], threshold: float = 0.3) -> list[int]:
    """Indices of the tubes (one video, one class) that stay, best score first.

    A tube goes when its 3D IoU with a better kept one exceeds `threshold` (strictly).
    """
    if not tubes:
        return []
    stack, kept = TubeStack(tubes), []
    left = np.argsort([-tube.score for tube in tubes], kind="stable")
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[stack.overlap(tubes[best], left) <= threshold]
    return kept
