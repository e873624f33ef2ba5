"""Looking at clips: film strips with boxes, flow as colours, and where clips are cut."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from nbkit.errors import NbkitError
from nbkit.figures.notebook import someone_is_watching, stepper
from nbkit.figures.style import GREY, NEGATIVE, PAGE, bare, outline, page, row_label

CLIP_COLOURS = ("#333333", "#999933", "#44AA99", "#AA4499")


def flow_colours(flow: np.ndarray, top: float) -> np.ndarray:
    """Flow (..., 2) in pixels -> RGB (..., 3) in [0, 1]: hue = direction, saturation = speed.

    No motion is white; `top` pixels and more are fully saturated. Raises NbkitError for top <= 0.
    """
    if top <= 0:
        raise NbkitError(f"top={top}: the speed of full colour must be above 0 pixels")
    u, v = flow[..., 0], flow[..., 1]
    direction = np.arctan2(v, u) / (2 * np.pi) % 1.0
    speed = np.clip(np.hypot(u, v) / top, 0, 1)
    return hsv_to_rgb(np.stack([direction, speed, np.ones_like(speed)], -1))


def pictures(clip: np.ndarray, top: float = 0.5) -> np.ndarray:
    """A clip (C, T, H, W) as frames (T, H, W, 3) in [0, 1]: RGB (C = 3) or flow (C = 2)."""
    frames = np.moveaxis(np.asarray(clip), 0, -1)  # (T, H, W, C)
    if frames.shape[-1] == 2:
        return flow_colours(frames, top)
    return np.clip(frames, 0, 1)


def in_a_row(frames: np.ndarray, gap: int = 0) -> np.ndarray:
    """Frames (T, H, W, ...) as one picture (H, T (W + gap) - gap, ...), white in the gaps."""
    border = [(0, 0)] * frames.ndim
    border[2] = (0, gap)
    wide = np.concatenate(np.pad(frames, border, constant_values=1.0), 1)
    return wide[:, : wide.shape[1] - gap]


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
    width = frames.shape[2]
    ax.imshow(in_a_row(frames[moments]))
    for place, t in enumerate(moments):
        if boxes is not None and not np.isnan(boxes[t]).any():
            outline(ax, boxes[t] + [place * width, 0, place * width, 0], colour)
    bare(ax)
    row_label(ax, label)


def filmstrip(
    ax: Axes, frames: np.ndarray, title: str = "", marked: Sequence[int] = (), gap: int = 3
) -> None:
    """Frames (T, H, W, 3) in a row, `gap` pixels apart; those numbered in `marked` get a border."""
    height, width = frames.shape[1:3]
    ax.imshow(in_a_row(frames, gap))
    for i in marked:
        x = i * (width + gap)
        outline(ax, (x, 0, x + width, height), NEGATIVE, 2.2, clip_on=False)
    ax.set_title(title)
    bare(ax)


def colour_wheel(ax: Axes, top: float) -> None:
    """The key of `flow_colours`: where each colour points, up to `top` pixels."""
    y, x = np.mgrid[-1:1:121j, -1:1:121j]
    wheel = flow_colours(np.stack([x, y], -1) * top, top)
    wheel[np.hypot(x, y) > 1] = 1.0
    ax.imshow(wheel, extent=(-top, top, top, -top))
    ax.set(title="colour key", xlabel="u (pixels, right)", ylabel="v (pixels, down)")


def clip_rows(
    ax: Axes, starts: list[np.ndarray], n_frames: int, span: int, labels: list[str]
) -> None:
    """One row per cut: where its K clips of `span` frames lie on a video of `n_frames` frames.

    starts: the first frames (K,) of each row.
    """
    clips = len(starts[0])
    colours = [CLIP_COLOURS[k % len(CLIP_COLOURS)] for k in range(clips)]
    for border in np.arange(1, clips) * n_frames / clips:
        ax.axvline(border, color=GREY, lw=0.8, ls=":")
    for row, first in enumerate(starts):
        ax.plot([0, n_frames], [row, row], color="#DDDDDD", lw=1, zorder=0)
        ax.barh([row] * clips, span, 0.64, left=first, color=colours, ec="white", lw=0.8)
        for k, start in enumerate(first, 1):
            ax.text(start + span / 2, row, str(k), ha="center", va="center", color="white")
    ax.set(xlim=(0, n_frames), ylim=(len(starts) - 0.4, -0.6), xlabel="frame of the video")
    ax.set_yticks(range(len(starts)), labels)


def viewer_frame(
    frames: np.ndarray, flow: np.ndarray, t: int, boxes: np.ndarray | None = None, top: float = 4.0
) -> Figure:
    """Frame t with its box beside the flow to the next frame. Arrays as in `clip_viewer`."""
    fig, (left, right) = page(1, 2, 2.6, PAGE * 0.8)
    now = slice(t, t + 1)
    box = None if boxes is None else boxes[now]
    strip(left, frames[now], 1, box)
    strip(right, flow_colours(flow[now], top), 1, box, colour="black")
    left.set_title(f"frame {t} of {len(frames)}")
    right.set_title(f"flow to frame {t + 1}" if t + 1 < len(frames) else "flow (last frame)")
    return fig


def clip_viewer(
    frames: np.ndarray, flow: np.ndarray, boxes: np.ndarray | None = None, top: float = 4.0
) -> None:
    """Scrub through a video under a slider; show eight moments where nobody can click.

    frames (N, H, W, 3) uint8 or float in [0, 1]; flow (N, H, W, 2) pixels, full colour at `top`
    pixels; boxes (N, 4) pixels x0, y0, x1, y1, NaN where there is none. Raises NbkitError when the
    lengths differ.
    """
    n_boxes = len(frames) if boxes is None else len(boxes)
    if not len(frames) == len(flow) == n_boxes:
        raise NbkitError(
            f"clip_viewer: {len(frames)} frames, {len(flow)} flows, {n_boxes} boxes; "
            "one flow and one box belong to each frame"
        )
    if someone_is_watching():
        moments = list(range(len(frames)))
        stepper(lambda t: viewer_frame(frames, flow, t, boxes, top), moments, "frame", live=True)
        return
    _, (above, below) = page(2, 1, 0.95)
    strip(above, frames, 8, boxes, label="rgb")
    strip(below, flow_colours(flow, top), 8, boxes, colour="black", label="flow")
    plt.show()
