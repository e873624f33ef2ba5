"""What the localization metrics consume: scored boxes in columns, and tubes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nbkit.errors import NbkitError
from nbkit.evaluate.boxes import as_boxes


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

    def __post_init__(self):
        self.video, self.frame, self.label = (
            np.asarray(x, dtype=np.int64).reshape(-1) for x in (self.video, self.frame, self.label)
        )
        self.score = np.asarray(self.score, dtype=np.float64).reshape(-1)
        self.box = as_boxes(self.box, "detections")
        lengths = {len(x) for x in (self.video, self.frame, self.label, self.score, self.box)}
        if len(lengths) != 1:
            raise NbkitError(f"detections: the columns have different lengths {sorted(lengths)}")
        if np.isnan(self.score).any():
            raise NbkitError("detections: a score is NaN, so that they cannot be ranked")

    def __len__(self) -> int:
        return len(self.score)

    def select(self, where: np.ndarray) -> "Detections":
        """The rows at a boolean mask or an index array."""
        return Detections(
            self.video[where],
            self.frame[where],
            self.label[where],
            self.score[where],
            self.box[where],
        )

    @staticmethod
    def empty() -> "Detections":
        return Detections([], [], [], [], np.zeros((0, 4)))

    @staticmethod
    def concatenate(parts: Iterable["Detections"]) -> "Detections":
        parts = list(parts) or [Detections.empty()]
        return Detections(
            *(
                np.concatenate([getattr(p, name) for p in parts])
                for name in ("video", "frame", "label", "score", "box")
            )
        )


@dataclass
class Tube:
    """One actor doing one action through time: a box at each of n frames of one video.

    Attributes:
        video, label: as in `Detections`.
        frames: (n,) int, strictly increasing. A gap means that the action is not there.
        boxes: (n, 4) float64.
        score: the tube's rank among detections; 1 for ground truth.
        frame_scores: (n,) float or None.
    """

    video: int
    label: int
    frames: np.ndarray
    boxes: np.ndarray
    score: float = 1.0
    frame_scores: np.ndarray | None = field(default=None)

    def __post_init__(self):
        where = f"tube of video {self.video}, class {self.label}"
        self.frames = np.asarray(self.frames, dtype=np.int64).reshape(-1)
        self.boxes = as_boxes(self.boxes, where)
        if len(self.frames) != len(self.boxes):
            raise NbkitError(f"{where}: {len(self.frames)} frames but {len(self.boxes)} boxes")
        if len(self.frames) == 0:
            raise NbkitError(f"{where}: it has no frame; leave it out instead")
        if (np.diff(self.frames) <= 0).any():
            raise NbkitError(f"{where}: frames must increase, one box a frame")

    def __len__(self) -> int:
        return len(self.frames)


def tube_boxes(tubes: Sequence[Tube]) -> Detections:
    """Every box of every tube as one row (the frame-level view of ground truth)."""
    return Detections.concatenate(
        Detections(
            np.full(len(t), t.video),
            t.frames,
            np.full(len(t), t.label),
            np.full(len(t), t.score) if t.frame_scores is None else t.frame_scores,
            t.boxes,
        )
        for t in tubes
    )
