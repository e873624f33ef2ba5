"""Figures of action localization: boxes, tubes over time, domain maps, losses, parts of a gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nbkit.evaluate.detections import Detections, Tube
from nbkit.figures.style import (
    DOMAIN_COLOURS,
    GREY,
    PAGE,
    bare,
    class_colour,
    outline,
    page,
    scatter_domain,
)

LEAST_SCORE, MOST_TUBES = 0.3, 3
# ground truth is a dashed white box in every picture
TRUTH = "#FFFFFF"
LOSS_LABELS = {
    "rpn_cls": "RPN, actor or not",
    "rpn_reg": "RPN, box",
    "roi_cls": "RoI, class",
    "roi_reg": "RoI, box",
    "s_img": "$\\mathcal{L}_{D_S}$",
    "t_img": "$\\mathcal{L}_{D_{Timg}}$",
    "t_ins": "$\\mathcal{L}_{D_{Tinst}}$",
}
GAIN_LABELS = {
    "frame_map": "frame-mAP",
    "video_map_0.5": "video-mAP",
    "proposal_recall": "recall of\nproposals",
    "box_iou": "IoU of\nboxes",
    "class_given_box": "class,\nbox given",
}


def draw_box(ax: Axes, box: np.ndarray, colour: str, text: str = "", width: float = 1.6, **more):
    """Draw a box (4,) in pixels, with a word above it, or inside where there is no room above."""
    outline(ax, box, colour, width, **more)
    if not text:
        return
    x0, y0, x1, _ = box
    x, side = x0, "left"
    if x0 + x1 > sum(ax.get_xlim()):
        x, side = x1, "right"
    y, edge = y0 - 1.5, "bottom"
    if y0 < 7:
        y, edge = y0 + 1, "top"
    card = {"fc": colour, "ec": "none", "pad": 0.8, "alpha": 0.9}
    ax.text(x, y, text, fontsize=7, ha=side, va=edge, bbox=card, zorder=5, in_layout=False)


def show_frame(ax: Axes, frame: np.ndarray, title: str = "") -> None:
    """Show a frame (H, W, 3) without axes."""
    height, width = frame.shape[:2]
    ax.imshow(frame)
    ax.set_title(title, fontsize=9)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    bare(ax)


def at(found: Detections, video: int, frame: int, least: float) -> Detections:
    """The detections of one frame with a score of at least `least`, best first."""
    here = found.select((found.video == video) & (found.frame == frame) & (found.score >= least))
    return here.select(np.argsort(-here.score, kind="stable"))


def detections_figure(
    frames: np.ndarray,
    moments: Sequence[int],
    video: int,
    models: Mapping[str, Detections],
    truth: Sequence[Tube],
    classes: Sequence[str],
    stride: int = 1,
) -> Figure:
    """One row per model, one column per moment: detections over the ground truth (dashed white).

    Args:
        frames: (N, H, W, 3) of the video.
        moments: frame numbers, multiples of `stride`.
        models: name -> detections, whose frames are numbered in steps of `stride`.
        truth: tubes on the video's own frames.
    """
    fig, axes = page(len(models), len(moments), PAGE / len(moments) + 0.12, squeeze=False)
    for row, (name, found) in zip(axes, models.items()):
        for ax, t in zip(row, moments):
            show_frame(ax, frames[t])
            for tube in truth:
                if tube.video == video and t in tube.frames:
                    box = tube.boxes[list(tube.frames).index(t)]
                    draw_box(ax, box, TRUTH, ls=(0, (2, 1.5)))
            here = at(found, video, t // stride, LEAST_SCORE)
            for i, (box, label) in enumerate(zip(here.box, here.label)):
                word, width = "", 0.9
                if i == 0:
                    word, width = f"{classes[label].replace('_', ' ')} {here.score[0]:.2f}", 1.8
                draw_box(ax, box, class_colour(label), word, width)
        row[0].set_ylabel(name, labelpad=4)
    for ax, t in zip(axes[0], moments):
        ax.set_title(f"frame {t}", fontsize=9)
    return fig


def tubes_figure(
    models: Mapping[str, Sequence[Tube]],
    truth: Sequence[Tube],
    video: int,
    n_frames: int,
    classes: Sequence[str],
    stride: int = 1,
) -> Figure:
    """Time runs right: ground-truth tubes, then the three best per model; colour = class.

    Detected tubes are on frame numbers in steps of `stride`, ground truth on the video's own;
    scores stand behind the bars.
    """
    groups = [("ground truth", [t for t in truth if t.video == video], 1, "{}")]
    for name, tubes in models.items():
        here = [t for t in tubes if t.video == video]
        best = sorted(here, key=lambda t: -t.score)[:MOST_TUBES]
        groups.append((name, best, stride, "{} {:.2f}"))
    rows = [max(len(tubes), 1) for _, tubes, _, _ in groups]
    ends = np.cumsum(rows)
    fig, ax = page(1, 1, 0.55 + 0.34 * ends[-1])
    for (_, tubes, step, form), first_row in zip(groups, ends - rows):
        for y, tube in enumerate(tubes, first_row):
            first, last = tube.frames[0] * step, (tube.frames[-1] + 1) * step
            ax.barh(y, last - first, left=first, height=0.7, color=class_colour(tube.label))
            word = form.format(classes[tube.label].replace("_", " "), tube.score)
            ax.text(min(last, n_frames) + 0.6, y, word, va="center", fontsize=8)
        if not tubes:
            ax.text(0, first_row, "no tube", va="center", color=GREY, fontsize=8)
    for y in ends - 0.5:
        ax.axhline(y, color="#DDDDDD", lw=0.8)
    ax.axvline(n_frames, color=GREY, lw=0.8, ls=":")
    ax.set(xlim=(0, n_frames * 1.22), ylim=(ends[-1] - 0.5, -0.5), xlabel="frame of the video")
    ax.set_yticks(ends - (np.array(rows) + 1) / 2, [name for name, *_ in groups])
    ax.tick_params(axis="y", length=0)
    return fig


def domain_map_figure(
    frames: Sequence[np.ndarray], maps: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]
) -> Figure:
    """Frames on top; below, a row per model: the probability "target" at every place of a map.

    frames: n of (H, W, 3) in [0, 1]; maps: name -> n of (h, w) in [0, 1].
    """
    fig, axes = page(1 + len(maps), len(frames), PAGE / len(frames) * 0.9, squeeze=False)
    for ax, frame, title in zip(axes[0], frames, titles):
        show_frame(ax, frame, title)
    heat = {"cmap": "RdBu_r", "vmin": 0, "vmax": 1, "alpha": 0.62, "interpolation": "bilinear"}
    for row, (name, some) in zip(axes[1:], maps.items()):
        for ax, frame, q in zip(row, frames, some):
            height, width = frame.shape[:2]
            show_frame(ax, np.repeat(frame.mean(-1, keepdims=True), 3, -1))
            image = ax.imshow(q, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **heat)
        row[0].set_ylabel(name)
    fig.colorbar(image, ax=list(axes[1:].flat), label="P(target)", fraction=0.03, pad=0.01)
    return fig


def reversal_figure(
    points: Mapping[str, np.ndarray], steps: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Features of two domains in the plane, one panel per entry of `steps`, an arrow per point.

    points: 'source' and 'target' -> (n, 2); steps: title -> the same keys -> (n, 2) descent steps.
    """
    fig, axes = page(1, len(steps), 2.7, sharex=True, sharey=True, squeeze=False)
    in_data = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006}
    for ax, (title, arrows) in zip(axes[0], steps.items()):
        for domain, colour in DOMAIN_COLOURS.items():
            ax.quiver(*points[domain].T, *arrows[domain].T, color=colour, **in_data)
            scatter_domain(ax, points[domain], domain, size=14, linewidths=0, label=domain)
        ax.set(title=title, xlabel="feature 1", aspect="equal")
    axes[0][0].set_ylabel("feature 2")
    axes[0][0].legend(loc="upper left")
    return fig


def loss_figure(
    histories: Mapping[str, pd.DataFrame | None], guessing: Mapping[str, float]
) -> Figure:
    """The four terms of Eq. (1), and those of Eq. (6) that were trained, over the steps of runs.

    None stands for a run without training of its own (AdaBN): not drawn, but it keeps its colour.
    guessing: term -> its loss for a discriminator that always answers one half; a dotted line.
    """
    trained = {name: h for name, h in histories.items() if h is not None}
    colours = {name: class_colour(i) for i, name in enumerate(histories)}
    terms = [term for term in LOSS_LABELS if any(term in h for h in trained.values())]
    fig, axes = page(math.ceil(len(terms) / 4), 4, 1.75, squeeze=False, sharex=True)
    for ax in axes.flat[len(terms) :]:
        ax.axis("off")
    for ax, term in zip(axes.flat, terms):
        for name, history in trained.items():
            if term in history:
                smooth = history[term].rolling(5, min_periods=1, center=True).mean()
                look = {"label": name, "color": colours[name], "lw": 1.3, "legend": False}
                sns.lineplot(x=history["step"], y=smooth, ax=ax, **look)
        if term in guessing:
            ax.axhline(guessing[term], color=GREY, lw=1, ls=":")
        ax.set_title(LOSS_LABELS[term], fontsize=9)
        ax.set(ylim=(0, 1.08 * ax.get_ylim()[1]), xlabel="", ylabel="")
    for ax in axes[-1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("loss (nats)")
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def sources_of_gain(metrics: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars in percent, a group per measure: both mAPs, and what a right detection needs."""
    lines = []
    for name, values in metrics.items():
        for measure, label in GAIN_LABELS.items():
            lines.append({"model": name, "measure": label, "percent": values[measure]})
    fig, ax = page(1, 1, 2.5)
    colours = [class_colour(i) for i in range(len(metrics))]
    bars = {"hue": "model", "palette": colours, "saturation": 1}
    sns.barplot(pd.DataFrame(lines), x="measure", y="percent", ax=ax, **bars)
    for group in ax.containers:
        ax.bar_label(group, fmt="%.0f", fontsize=7, padding=1)
    ax.set(xlabel="", ylabel="%", ylim=(0, 112))
    ax.legend(ncols=len(metrics), loc="lower left", bbox_to_anchor=(0, 1.0))
    return fig
