"""Clips as film strips in which single frames can be marked: for looking at negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle

from nbkit.figures.clips import flow_colours
from nbkit.figures.style import NEGATIVE, bare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def pictures(clip: np.ndarray, top: float = 0.5) -> np.ndarray:
    """A clip (C, T, H, W), RGB in [0, 1] (C = 3) or flow (C = 2), as frames (T, H, W, 3); flow
    `top` is saturated.
    """
    frames = np.moveaxis(np.asarray(clip), 0, -1)  # (T, H, W, C)
    return np.clip(frames, 0, 1) if frames.shape[-1] == 3 else flow_colours(frames, top)


def filmstrip(
    ax: Axes,
    frames: np.ndarray,
    title: str = "",
    marked: Sequence[int] = (),
    colour: str = NEGATIVE,
    gap: int = 3,
) -> None:
    """Frames (T, H, W, 3) in a row, `gap` pixels apart; the frame numbers in `marked` get a border
    in `colour`.
    """
    t, h, w = frames.shape[:3]
    strip = np.ones((h, t * (w + gap) - gap, 3))
    for i, frame in enumerate(frames):
        strip[:, i * (w + gap) : i * (w + gap) + w] = frame
    ax.imshow(strip)
    for i in marked:
        ax.add_patch(
            Rectangle(
                (i * (w + gap) - 0.5, -0.5), w, h, fill=False, lw=2.2, ec=colour, clip_on=False
            )
        )
    ax.set_title(title)
    bare(ax)
