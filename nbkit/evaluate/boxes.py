"""Boxes as arrays: areas, overlaps, hard non-maximum suppression.

A box is (x1, y1, x2, y2) in pixels. Two conventions exist for its size, and the choice moves an IoU
by several points on a small actor:

* `plus_one=True`: corners are pixel indices, both included, so the width is `x2 - x1 + 1`. This is
the rule of
  the evaluators that published action-detection numbers come from, hence the default in this
  folder.
* `plus_one=False`: corners are continuous coordinates, the width is `x2 - x1`. This is
torchvision's rule.
"""

from __future__ import annotations

import numpy as np

from nbkit.errors import NbkitError


def as_boxes(boxes, name: str = "boxes") -> np.ndarray:
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
    if not np.isfinite(array).all():
        raise NbkitError(f"{name}: row {int(np.argmin(np.isfinite(array).all(1)))} is not finite")
    return array


def area(boxes: np.ndarray, plus_one: bool = True) -> np.ndarray:
    """Area in square pixels of boxes (..., 4) -> (...). Inverted boxes have area 0."""
    one = float(plus_one)
    width = np.maximum(boxes[..., 2] - boxes[..., 0] + one, 0.0)
    return width * np.maximum(boxes[..., 3] - boxes[..., 1] + one, 0.0)


def iou(a: np.ndarray, b: np.ndarray, plus_one: bool = True) -> np.ndarray:
    """Intersection over union of float boxes that broadcast against each other: (..., 4), (..., 4)
    -> (...).

    Ranges over [0, 1]; 0 where both boxes have no area.
    """
    one = float(plus_one)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + one
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + one
    overlap = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = area(a, plus_one) + area(b, plus_one) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def iou_matrix(a, b, plus_one: bool = True) -> np.ndarray:
    """All pairs: (N, 4), (M, 4) -> (N, M). Integer boxes are cast first."""
    return iou(as_boxes(a)[:, None], as_boxes(b)[None], plus_one)


def nms(boxes, scores, threshold: float = 0.5, plus_one: bool = True) -> np.ndarray:
    """Hard non-maximum suppression within one frame: indices that stay, best score first.

    A box goes when its IoU with a better kept box exceeds `threshold` (strictly).
    """
    boxes, scores = as_boxes(boxes), np.asarray(scores, float)
    overlap = iou(boxes[:, None], boxes[None], plus_one)
    alive, kept = np.ones(len(boxes), bool), []
    for i in np.argsort(-scores, kind="stable"):
        if alive[i]:
            kept.append(i)
            alive &= overlap[i] <= threshold
    return np.array(kept, dtype=np.int64)
