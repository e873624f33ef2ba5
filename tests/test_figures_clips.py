"""Film strips, flow colours and clip diagrams."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from nbkit.errors import NbkitError
from nbkit.figures import notebook
from nbkit.figures.clips import (
    clip_rows,
    clip_viewer,
    colour_wheel,
    flow_colours,
    strip,
    viewer_frame,
)


def test_flow_colours():
    flow = np.array([[0, 0], [3, 0], [0, 3], [-3, 0], [30, 0], [1.5, 0]], float)
    rgb = flow_colours(flow, top=3.0)
    assert np.allclose(rgb[0], 1) and np.allclose(rgb[1], (1, 0, 0))  # still is white, right is red
    # left is its complement; speed saturates
    assert np.allclose(rgb[3], (0, 1, 1)) and np.allclose(rgb[4], rgb[1])
    assert np.allclose(rgb[5], (1, 0.5, 0.5))
    turned = flow_colours(np.array([[0, 3.0]]), 3.0)
    assert np.allclose(turned[0], rgb[2]) and not np.allclose(rgb[2], rgb[1])
    with pytest.raises(NbkitError):
        flow_colours(flow, 0)


def test_figures_draw():
    fig, axes = plt.subplots(1, 3)
    frames = np.zeros((10, 8, 8, 3), np.uint8)
    boxes = np.full((10, 4), np.nan)
    boxes[0] = (1, 2, 5, 6)
    strip(axes[0], frames, 4, boxes, label="walk")
    assert len(axes[0].patches) == 1 and axes[0].images[0].get_array().shape == (8, 32, 3)
    colour_wheel(axes[1], 2.0)
    clip_rows(axes[2], [np.array([0, 5]), np.array([2, 6])], 12, 3, ["a", "b"])
    assert len(axes[2].patches) == 4
    fig.canvas.draw()
    plt.close(fig)


def small_video():
    """Five frames with a box on the first three, everything moving two pixels to the right."""
    frames = np.full((5, 8, 8, 3), 20, np.uint8)
    frames *= np.arange(5, dtype=np.uint8)[:, None, None, None]
    motion = np.zeros((5, 8, 8, 2), np.float32)
    motion[..., 0] = 2.0
    boxes = np.full((5, 4), np.nan)
    boxes[:3] = (1, 2, 5, 6)
    return frames, motion, boxes


def test_the_viewer_is_a_strip_where_nobody_can_click(monkeypatch):
    monkeypatch.setenv("NBKIT_WIDGETS", "0")
    plt.close("all")
    with plt.rc_context():
        clip_viewer(*small_video(), top=2.0)
    rgb, flow = plt.gcf().axes
    assert rgb.images[0].get_array().shape == (8, 8 * 8, 3)  # eight moments side by side
    assert np.allclose(flow.images[0].get_array(), (1, 0, 0))  # to the right, full colour
    assert len(rgb.patches) == len(flow.patches) > 0
    plt.close("all")


def test_the_viewer_scrubs_through_frames_flow_and_boxes(monkeypatch):
    monkeypatch.setenv("NBKIT_WIDGETS", "1")
    shown = []
    monkeypatch.setattr(notebook, "display", shown.append)
    frames, motion, boxes = small_video()
    clip_viewer(frames, motion, boxes)
    slider = shown[-1].children[0]
    assert slider.continuous_update and [v for _, v in slider.options] == [0, 1, 2, 3, 4]
    slider.value = 4
    pictures = [f.axes[0].images[0].get_array() for f in shown if isinstance(f, plt.Figure)]
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 80]  # the picture changed with the slider
    plt.close("all")


def test_a_frame_of_the_viewer_has_its_own_box_only():
    frames, motion, boxes = small_video()
    with_box, without = (viewer_frame(frames, motion, t, boxes) for t in (0, 4))
    assert [len(ax.patches) for ax in with_box.axes] == [1, 1]
    assert [len(ax.patches) for ax in without.axes] == [0, 0]
    plt.close("all")
    with pytest.raises(NbkitError, match="5 frames, 4 flows"):
        clip_viewer(frames, motion[:4], boxes)
