"""Bars of tubes lie on the video's own frames, and boxes on the pixels that they name."""

import numpy as np
from matplotlib import pyplot as plt

from nbkit.evaluate.detections import Detections, Tube
from nbkit.figures.localization import at, detections_figure, tubes_figure

BOX = np.array([2.0, 3, 8, 9])


def tube(frames, score=1.0):
    return Tube(0, 0, frames, np.tile(BOX, (len(frames), 1)), score)


def test_tubes_lie_on_the_truth_and_say_how_well_they_fit():
    right, wrong = tube([2, 3, 4], 0.5), Tube(0, 1, [0, 1], np.tile(BOX, (2, 1)), 0.4)
    fig = tubes_figure(
        {"model": [wrong, right], "silent": []}, [tube([2, 3, 4, 5])], 0, 40, ["walk", "run"], 4
    )
    ax = fig.axes[0]
    bars = [(p.get_x(), p.get_width()) for p in ax.patches]
    assert bars == [(8, 16), (8, 12), (0, 8), (8, 16)]  # truth, both tubes, truth again
    words = [t.get_text() for t in ax.texts]
    assert words == ["walk 0.50, IoU 0.75", "run 0.40, IoU 0.00", "no tube"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["model", "silent"]
    plt.close(fig)


def test_detections_of_a_frame_come_best_first_and_are_drawn_where_they_are():
    found = Detections(
        [0, 0, 0, 1],
        [1, 1, 2, 1],
        [0, 0, 0, 0],
        [0.4, 0.9, 0.8, 0.9],
        np.stack([BOX, BOX + 1, BOX, BOX]),
    )
    assert at(found, 0, 1, 0.3).score.tolist() == [0.9, 0.4] and len(at(found, 0, 1, 0.95)) == 0
    fig = detections_figure(
        np.zeros((8, 12, 12, 3), np.uint8), [4], 0, {"m": found}, [tube([4])], ["walk"], stride=4
    )
    corners = sorted(
        (p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in fig.axes[0].patches
    )
    # the truth and the weaker one, then the better one
    assert corners == [(1.5, 2.5, 6, 6), (1.5, 2.5, 6, 6), (2.5, 3.5, 6, 6)]
    plt.close(fig)
