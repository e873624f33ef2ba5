"""Drawings of notebook 05: the two-branch detector, and the steps from anchors to a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import nms

from nbkit.figures.localization import show_frame
from nbkit.figures.style import GREY, NEGATIVE, SOURCE, TARGET, bare, outline, page
from nbkit.models.localizer import Localizer

WHERE, WHAT = SOURCE, "#009E73"


def _card(ax: Axes, x: float, y: float, text: str, colour: str, fill: str = "white") -> Text:
    card = {"boxstyle": "round,pad=0.45", "fc": fill, "ec": colour, "lw": 1.5}
    return ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=card, linespacing=1.35)


def _arrow(start: Text, end: Text, colour: str, dashes: str = "-") -> None:
    """An arrow from border to border of two cards; the figure must have been drawn before."""
    look = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "ls": dashes}
    ends = {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    places = {"xy": end.get_position(), "xytext": start.get_position()}
    start.axes.annotate("", **places, arrowprops={**look, **ends, "shrinkA": 1, "shrinkB": 1})


def two_branches(shapes: Mapping[str, Sequence[int]]) -> Figure:
    """The detector with its three discriminators.

    shapes: of 'keyframe', 'clip', 'spatial', 'temporal', 'vector' for one frame, as tuples.
    """
    words = {name: " × ".join(map(str, shape)) for name, shape in shapes.items()}
    fig, ax = page(1, 1, 3.3)
    bare(ax)
    ax.set(xlim=(-0.75, 10.2), ylim=(-1.65, 3.7))
    pale = {WHERE: "#E5F0F8", WHAT: "#E3F4EE", TARGET: "#FBEADF"}
    where = [
        _card(ax, 0.1, 2, f"key frame K\n{words['keyframe']}", GREY),
        _card(ax, 2.6, 2, f"SF(K)\n{words['spatial']}", WHERE, pale[WHERE]),
        _card(ax, 5.0, 2, "RPN: actor or not,\nand a first box", WHERE),
        _card(ax, 7.3, 2, "proposals", WHERE, pale[WHERE]),
    ]
    what = [
        _card(ax, 0.1, 0, f"clip V around K\n{words['clip']}", GREY),
        _card(ax, 2.6, 0, f"$TF_1(V)$\n{words['temporal']}", WHAT, pale[WHAT]),
        _card(ax, 5.0, 0, "RoIAlign, 7 × 7\nper proposal", WHAT),
        _card(ax, 7.3, 0, f"$TF_2$: one vector\nper proposal, {words['vector']}", WHAT, pale[WHAT]),
        _card(ax, 9.5, 0, "class\nand box", WHAT),
    ]
    judges = [
        _card(ax, 2.6, 3.3, "$D_S$: which domain?", TARGET, pale[TARGET]),
        _card(ax, 2.6, -1.3, "$D_{Timg}$: which domain?", TARGET, pale[TARGET]),
        _card(ax, 7.3, -1.3, "$D_{Tinst}$: which domain?", TARGET, pale[TARGET]),
    ]
    words = "each orange arrow turns\nthe gradient around"
    ax.text(4.95, -1.3, words, fontsize=7.5, color=TARGET, ha="center", va="center")
    ax.text(6.5, 1.0, "no gradient", fontsize=7.5, color="#555555", style="italic")
    ax.text(-0.75, 2.75, "where?", color=WHERE, fontsize=11, weight="bold")
    ax.text(-0.75, 0.75, "what?", color=WHAT, fontsize=11, weight="bold")
    fig.canvas.draw()
    for colour, chain in ((WHERE, where), (WHAT, what)):
        for start, end in pairwise(chain):
            _arrow(start, end, colour)
    _arrow(where[-1], what[2], GREY, "--")
    for seen, judge in zip((where[1], what[1], what[3]), judges):
        _arrow(seen, judge, TARGET)
    return fig


def _boxes(ax: Axes, boxes: Tensor, colour: str, width: float = 0.7, **more) -> None:
    for box in boxes.numpy():
        outline(ax, box, colour, width, **more)


@torch.no_grad()
def from_anchors_to_a_region(detector: Localizer, keyframe: Tensor, top: int = 60) -> Figure:
    """Four pictures: the anchors of one place, the best boxes, those left after NMS, RoIAlign.

    keyframe: (1, 3, H, W) in [0, 1], read with the normalisation statistics in use.
    """
    frame = keyframe[0].permute(1, 2, 0).numpy()
    side, stride = keyframe.shape[-1], detector.keyframe.stride
    spatial = detector.keyframe(keyframe)
    sizes, ratios = detector.settings.anchor_sizes, detector.settings.anchor_ratios
    h, w = spatial.shape[-2:]
    middle = torch.tensor([w // 2, h // 2]).float() * stride
    anchors = []
    for size in sizes:
        for ratio in ratios:
            half = torch.tensor([size / ratio**0.5, size * ratio**0.5]) / 2
            anchors.append(torch.cat([middle - half, middle + half]))
    boxes, scores = _scored(detector, keyframe, spatial, top)
    kept = nms(boxes, scores, 0.7)[:8]
    fig, axes = page(1, 4, 2.1)
    words = (
        f"{len(anchors)} anchors at one of\n{h} × {w} places",
        f"the {len(boxes)} best-scored boxes\nof all {len(anchors) * h * w}",
        f"the {len(kept)} best after NMS:\nno two overlap by 0.7",
        "RoIAlign: 7 × 7 cells,\n4 samples in each",
    )
    for ax, title in zip(axes, words):
        show_frame(ax, frame, title)
        ax.title.set_fontsize(8)
    _boxes(axes[0], torch.stack(anchors), SOURCE)
    axes[0].plot(*middle, "+", color=TARGET, ms=8, mew=2)
    _boxes(axes[1], boxes, SOURCE, 0.5, alpha=0.6)
    _boxes(axes[2], boxes[kept], SOURCE, 1.2)
    best = boxes[kept[0]].numpy()
    outline(axes[3], best, SOURCE, 1.6)
    cells = [np.linspace(best[i], best[i + 2], 8) for i in (0, 1)]
    axes[3].vlines(cells[0] - 0.5, best[1] - 0.5, best[3] - 0.5, color=SOURCE, lw=0.6)
    axes[3].hlines(cells[1] - 0.5, best[0] - 0.5, best[2] - 0.5, color=SOURCE, lw=0.6)
    inner = [np.concatenate([c[:-1] + np.diff(c) * part for part in (0.25, 0.75)]) for c in cells]
    points = np.stack(np.meshgrid(*inner), axis=-1).reshape(-1, 2) - 0.5
    axes[3].scatter(*points.T, s=1.5, color=NEGATIVE, lw=0)
    margin = 0.25 * (best[2:] - best[:2])
    axes[3].set_xlim(max(best[0] - margin[0], -0.5), min(best[2] + margin[0], side - 0.5))
    axes[3].set_ylim(min(best[3] + margin[1], side - 0.5), max(best[1] - margin[1], -0.5))
    return fig


def _scored(detector: Localizer, keyframe: Tensor, spatial: Tensor, top: int) -> tuple:
    """The `top` best-scored boxes (n, 4) of the RPN before suppression, and their scores (n,)."""
    rpn = detector.rpn
    logits, deltas = rpn.head([spatial])
    images = ImageList(keyframe, [tuple(keyframe.shape[-2:])])
    anchors = rpn.anchor_generator(images, [spatial])
    flat_logits, flat_deltas = concat_box_prediction_layers(logits, deltas)
    boxes = rpn.box_coder.decode(flat_deltas, anchors)[:, 0]
    scores, order = flat_logits.flatten().topk(min(top, len(flat_logits)))
    return boxes[order], scores
