"""Looking at clips: film strips with boxes, flow as colours, and where the clips of a video are
cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.patches import Rectangle

from nbkit.errors import NbkitError
from nbkit.figures.notebook import someone_is_watching, stepper
from nbkit.figures.style import GREY, PAGE, bare, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def strip(
    ax: Axes,
    frames: np.ndarray,
    count: int = 8,
    boxes: np.ndarray | None = None,
    colour: str = "#56FF56",
    label: str = "",
) -> None:
    """`count` moments of a video side by side, evenly spaced, with a box on each.

    frames (N, H, W, 3) uint8 or float in [0, 1]; boxes (N, 4) pixels x0, y0, x1, y1, NaN where
    there is none.
    """
    moments = np.linspace(0, len(frames) - 1, count).round().astype(int)
    wide = frames.shape[2]
    ax.imshow(np.concatenate(list(frames[moments]), 1))
    for place, t in enumerate(moments):
        if boxes is not None and not np.isnan(boxes[t]).any():
            x0, y0, x1, y1 = boxes[t]
            ax.add_patch(
                Rectangle(
                    (place * wide + x0 - 0.5, y0 - 0.5),
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    ec=colour,
                    lw=1,
                )
            )
    bare(ax)
    ax.set_ylabel(label, rotation=0, ha="right", va="center")


def flow_colours(flow: np.ndarray, top: float) -> np.ndarray:
    """Flow (..., 2) in pixels -> RGB (..., 3) in [0, 1]: the hue is the direction, the saturation
    the speed.

    No motion is white; `top` pixels and more are fully saturated. Raises NbkitError for top <= 0.
    """
    if top <= 0:
        raise NbkitError(f"top={top}: the speed of full colour must be above 0 pixels")
    angle = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1.0
    speed = np.clip(np.hypot(flow[..., 0], flow[..., 1]) / top, 0, 1)
    return hsv_to_rgb(np.stack([angle, speed, np.ones_like(angle)], -1))


def colour_wheel(ax: Axes, top: float, side: int = 121) -> None:
    """The key of `flow_colours`: where each colour points, up to `top` pixels."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    wheel = flow_colours(np.stack([x, y], -1) * top, top)
    wheel[np.hypot(x, y) > 1] = 1.0
    ax.imshow(wheel, extent=(-top, top, top, -top))
    ax.set(title="colour key", xlabel="u (pixels, right)", ylabel="v (pixels, down)")


def clip_rows(
    ax: Axes,
    starts: list[np.ndarray],
    n_frames: int,
    frames: int,
    stride: int,
    colours: list[str],
    labels: list[str],
) -> None:
    """One row a cut: where its K clips lie on a video of `n_frames` frames. starts: per row (K,)
    first frames.
    """
    clips = len(starts[0])
    for k in range(1, clips):
        ax.axvline(k * n_frames / clips, color=GREY, lw=0.8, ls=":")
    for row, first in enumerate(starts):
        ax.plot([0, n_frames], [row, row], color="#DDDDDD", lw=1, zorder=0)
        for k, start in enumerate(first):
            span = (frames - 1) * stride + 1
            ax.add_patch(
                Rectangle((start, row - 0.32), span, 0.64, fc=colours[k], ec="white", lw=0.8)
            )
            ax.text(start + span / 2, row, f"{k + 1}", ha="center", va="center", color="white")
    ax.set(xlim=(0, n_frames), ylim=(len(starts) - 0.4, -0.6), xlabel="frame of the video")
    ax.set_yticks(range(len(starts)), labels)


def viewer_frame(
    frames: np.ndarray, flow: np.ndarray, t: int, boxes: np.ndarray | None = None, top: float = 4.0
) -> Figure:
    """Frame t with its box beside the flow to the next frame. Arrays as in `clip_viewer`."""
    fig, axes = page(1, 2, 2.6, PAGE * 0.8)
    box = None if boxes is None else boxes[t : t + 1]
    strip(axes[0], frames[t : t + 1], 1, box)
    strip(axes[1], flow_colours(flow[t : t + 1], top), 1, box, colour="black")
    axes[0].set_title(f"frame {t} of {len(frames)}")
    axes[1].set_title(f"flow to frame {t + 1}" if t + 1 < len(frames) else "flow (last frame)")
    return fig


def viewer_strip(
    frames: np.ndarray,
    flow: np.ndarray,
    boxes: np.ndarray | None = None,
    top: float = 4.0,
    count: int = 8,
) -> Figure:
    """`count` moments of the same: pictures above, flow below, boxes on both."""
    fig, axes = page(2, 1, 0.95)
    strip(axes[0], frames, count, boxes, label="rgb")
    strip(axes[1], flow_colours(flow, top), count, boxes, colour="black", label="flow")
    return fig


def clip_viewer(
    frames: np.ndarray, flow: np.ndarray, boxes: np.ndarray | None = None, top: float = 4.0
) -> None:
    """Scrub through a video: picture, flow and box under one slider; a static strip where nobody
    can click.

    frames (N, H, W, 3) uint8 or float in [0, 1]; flow (N, H, W, 2) pixels, full colour at `top`
    pixels; boxes (N, 4) pixels x0, y0, x1, y1, NaN where there is none. Raises NbkitError when the
    lengths differ.
    """
    if len(frames) != len(flow) or (boxes is not None and len(boxes) != len(frames)):
        raise NbkitError(
            f"clip_viewer: {len(frames)} frames, {len(flow)} flows, "
            f"{'no' if boxes is None else len(boxes)} boxes; one flow and one box belong to each frame"
        )
    if someone_is_watching():
        stepper(
            lambda t: viewer_frame(frames, flow, t, boxes, top),
            list(range(len(frames))),
            "frame",
            live=True,
        )
        return
    viewer_strip(frames, flow, boxes, top)
    plt.show()
