"""What the localization metrics consume: boxes, scored boxes in columns, and tubes.

A box is (x1, y1, x2, y2) in pixels and ends just outside its last pixel: its width is x2 - x1.
Evaluators that name the last pixel itself count one more; add 1 to x2 and y2 of such boxes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nbkit.errors import NbkitError

COLUMNS = ("video", "frame", "label", "score", "box")


def as_boxes(boxes: np.ndarray, name: str = "boxes") -> np.ndarray:
    """Float64 copy of `boxes`, shape (N, 4).

    Annotation files store corners as uint8, where `x + w` silently wraps at 256: every box that
    enters an evaluation passes through here first.

    Raises:
        NbkitError: the array is not (N, 4), or holds a NaN or an infinity.
    """
    array = np.asarray(boxes)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise NbkitError(
            f"{name}: expected an (N, 4) array of x1, y1, x2, y2, got shape {array.shape}"
        )
    array = array.astype(np.float64)
    finite = np.isfinite(array).all(1)
    if not finite.all():
        raise NbkitError(f"{name}: row {int(np.argmin(finite))} is not finite")
    return array


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of float boxes that broadcast: (..., 4), (..., 4) -> (...).

    Ranges over [0, 1]; 0 where both boxes have no area.
    """
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    overlap = _area(low, high)
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All pairs: (N, 4), (M, 4) -> (N, M). Integer boxes are cast first."""
    return iou(as_boxes(a)[:, None], as_boxes(b)[None])


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Corners (..., 2) -> (...); an inverted box has no area."""
    sides = np.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


@dataclass
class Detections:
    """N scored boxes of many frames and videos, one column per property.

    Attributes:
        video: (N,) int, the video's number in the test list.
        frame: (N,) int, 0-based frame number.
        label: (N,) int, class id 0..C-1 (background is no class here).
        score: (N,) float.
        box: (N, 4) float64, x1 y1 x2 y2 in pixels.
    """

    video: np.ndarray
    frame: np.ndarray
    label: np.ndarray
    score: np.ndarray
    box: np.ndarray

    def __post_init__(self) -> None:
        for name in ("video", "frame", "label"):
            setattr(self, name, np.asarray(getattr(self, name), dtype=np.int64).reshape(-1))
        self.score = np.asarray(self.score, dtype=np.float64).reshape(-1)
        self.box = as_boxes(self.box, "detections")
        lengths = {len(getattr(self, name)) for name in COLUMNS}
        if len(lengths) != 1:
            raise NbkitError(f"detections: the columns have different lengths {sorted(lengths)}")
        if np.isnan(self.score).any():
            raise NbkitError("detections: a score is NaN, so that they cannot be ranked")

    def __len__(self) -> int:
        return len(self.score)

    def select(self, where: np.ndarray) -> Detections:
        """The rows at a boolean mask or an index array."""
        return Detections(*(getattr(self, name)[where] for name in COLUMNS))

    @staticmethod
    def empty() -> Detections:
        """No detection at all."""
        return Detections([], [], [], [], np.zeros((0, 4)))

    @staticmethod
    def concatenate(parts: Iterable[Detections]) -> Detections:
        """One table of all parts, in their order."""
        parts = list(parts) or [Detections.empty()]
        columns = []
        for name in COLUMNS:
            columns.append(np.concatenate([getattr(part, name) for part in parts]))
        return Detections(*columns)


@dataclass
class Tube:
    """One actor doing one action through time: a box at each of n frames of one video.

    Attributes:
        video, label: as in `Detections`.
        frames: (n,) int, strictly increasing. A gap means that the action is not there.
        boxes: (n, 4) float64.
        score: the tube's rank among detections; 1 for ground truth.
    """

    video: int
    label: int
    frames: np.ndarray
    boxes: np.ndarray
    score: float = 1.0

    def __post_init__(self) -> None:
        where = f"tube of video {self.video}, class {self.label}"
        self.frames = np.asarray(self.frames, dtype=np.int64).reshape(-1)
        self.boxes = as_boxes(self.boxes, where)
        if len(self.frames) != len(self.boxes):
            raise NbkitError(f"{where}: {len(self.frames)} frames but {len(self.boxes)} boxes")
        if len(self.frames) == 0:
            raise NbkitError(f"{where}: it has no frame; leave it out instead")
        if (np.diff(self.frames) <= 0).any():
            raise NbkitError(f"{where}: frames must increase, one box per frame")

    def __len__(self) -> int:
        return len(self.frames)


def tube_boxes(tubes: Sequence[Tube]) -> Detections:
    """Every box of every tube as one row (the frame-level view of ground truth)."""
    parts = []
    for tube in tubes:
        n = len(tube)
        columns = (np.full(n, value) for value in (tube.video, tube.label, tube.score))
        video, label, score = columns
        parts.append(Detections(video, tube.frames, label, score, tube.boxes))
    return Detections.concatenate(parts)
