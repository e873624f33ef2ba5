"""Boxes as arrays, and their overlaps.

A box is (x1, y1, x2, y2) in pixels and ends just outside its last pixel: its width is x2 - x1.
Evaluators that name the last pixel itself count one more; add 1 to x2 and y2 of such boxes first.
"""

from __future__ import annotations

import numpy as np

from nbkit.errors import NbkitError


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
