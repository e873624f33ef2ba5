"""Overlap of tubes in space and time, and non-maximum suppression of whole tubes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbkit.evaluate.boxes import iou
from nbkit.evaluate.detections import Tube


class TubeStack:
    """n tubes of one video on a common time axis: `boxes` (n, F, 4) and `there` (n, F) bool."""

    def __init__(self, tubes: Sequence[Tube]):
        self.first = min(int(t.frames[0]) for t in tubes)
        length = max(int(t.frames[-1]) for t in tubes) + 1 - self.first
        self.boxes = np.zeros((len(tubes), length, 4))
        self.there = np.zeros((len(tubes), length), dtype=bool)
        for i, tube in enumerate(tubes):
            self.boxes[i, tube.frames - self.first] = tube.boxes
            self.there[i, tube.frames - self.first] = True
        self.length = self.there.sum(1)  # (n,) frames of each tube

    def overlap(self, tube: Tube, rows, plus_one: bool = True) -> np.ndarray:
        """3D IoU of `tube` with the stacked tubes at `rows`: (len(rows),). See `tube_iou`."""
        at = tube.frames - self.first
        inside = (at >= 0) & (at < self.there.shape[1])
        at, boxes = at[inside], tube.boxes[inside]
        there = self.there[rows][:, at]  # (r, f)
        common = there.sum(1)
        spatial = np.where(there, iou(self.boxes[rows][:, at], boxes[None], plus_one), 0.0).sum(1)
        # mean over the common frames x common / union of the frames = sum / union
        return spatial / (self.length[rows] + len(tube) - common)


def tube_iou(a: Tube, b: Tube, plus_one: bool = True) -> float:
    """3D IoU in [0, 1]: (mean IoU of the boxes over the frames in common) x (temporal IoU of the
    frame sets).
    """
    return float(TubeStack([a]).overlap(b, [0], plus_one)[0])


def tube_iou_matrix(a: Sequence[Tube], b: Sequence[Tube], plus_one: bool = True) -> np.ndarray:
    """(len(a), len(b)) 3D IoU of tubes of one video; pass the longer list as `a`."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    stack, rows = TubeStack(a), np.arange(len(a))
    return np.stack([stack.overlap(tube, rows, plus_one) for tube in b], axis=1)


def tube_nms(tubes: Sequence[Tube], threshold: float = 0.3, plus_one: bool = True) -> list[int]:
    """Indices of the tubes (one video, one class) that stay, best score first.

    A tube goes when its 3D IoU with a better kept one exceeds `threshold` (strictly).
    """
    if not tubes:
        return []
    stack, kept = TubeStack(tubes), []
    left = np.argsort([-t.score for t in tubes], kind="stable")
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][stack.overlap(tubes[left[0]], left[1:], plus_one) <= threshold]
    return kept
