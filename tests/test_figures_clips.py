"""Film strips, flow colours and clip diagrams."""
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest

from nbkit.errors import NbkitError
from nbkit.figures.clips import clip_rows, colour_wheel, flow_colours, strip


def test_flow_colours():
    flow = np.array([[0, 0], [3, 0], [0, 3], [-3, 0], [30, 0], [1.5, 0]], float)
    rgb = flow_colours(flow, top=3.0)
    assert np.allclose(rgb[0], 1) and np.allclose(rgb[1], (1, 0, 0))  # still is white, right is red
    assert np.allclose(rgb[3], (0, 1, 1)) and np.allclose(rgb[4], rgb[1])  # left is its complement; speed saturates
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
    clip_rows(axes[2], [np.array([0, 5]), np.array([2, 6])], 12, 3, 1, ["k", "r"], ["a", "b"])
    assert len(axes[2].patches) == 4
    fig.canvas.draw()
    plt.close(fig)
