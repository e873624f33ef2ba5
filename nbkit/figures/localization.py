"""Figures of action localization: boxes, tubes, domain maps, losses, parts of a gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from nbkit.evaluate.detections import Detections, Tube
from nbkit.evaluate.tubes import tube_iou
from nbkit.figures.style import GREY, PAGE, bare, class_colour, outline, page

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
    ink = "white" if sum(to_rgb(colour)) < 1 else "black"
    place = {"ha": side, "va": edge, "zorder": 5, "in_layout": False}
    ax.text(x, y, text, fontsize=7, color=ink, bbox=card, **place)


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


def _bar(ax: Axes, y: float, tube: Tube, stride: int, height: float, **look) -> None:
    first, last = tube.frames[0] * stride, (tube.frames[-1] + 1) * stride
    ax.barh(y, last - first, left=first, height=height, **look)


def tubes_figure(
    models: Mapping[str, Sequence[Tube]],
    truth: Sequence[Tube],
    video: int,
    n_frames: int,
    classes: Sequence[str],
    stride: int = 1,
) -> Figure:
    """One lane per model, time runs right: its three best tubes over the ground truth (grey).

    Behind each tube stand its class, its score and the 3-D IoU with the ground truth of its class
    that it fits best.  All tubes are on frame numbers in steps of `stride`.
    """
    truth = [tube for tube in truth if tube.video == video]
    fig, ax = page(1, 1, 0.6 + 0.24 * (MOST_TUBES + 0.6) * len(models))
    ticks, y = {}, 0.0
    for model, tubes in models.items():
        best = sorted((t for t in tubes if t.video == video), key=lambda t: -t.score)[:MOST_TUBES]
        rows = max(len(best), 1)
        ticks[y + (rows - 1) / 2] = model
        for tube in truth:
            _bar(ax, y + (rows - 1) / 2, tube, stride, rows, color="#E2E2E2", zorder=0)
        for tube in best:
            _bar(ax, y, tube, stride, 0.6, color=class_colour(tube.label))
            fits = [tube_iou(tube, other) for other in truth if other.label == tube.label]
            name = classes[tube.label].replace("_", " ")
            words = f"{name} {tube.score:.2f}, IoU {max(fits, default=0):.2f}"
            ax.text((tube.frames[-1] + 1) * stride + 0.6, y, words, va="center", fontsize=8)
            y += 1
        if not best:
            ax.text(0, y, "no tube", va="center", color=GREY, fontsize=8)
            y += 1
        y += 0.6
    ax.axvline(n_frames, color=GREY, lw=0.8, ls=":")
    ax.set(xlim=(0, n_frames * 1.3), ylim=(y - 0.9, -0.7), xlabel="frame of the video")
    ax.set_yticks(list(ticks), ticks.values())
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
    heat = {"cmap": "RdBu_r", "vmin": 0, "vmax": 1, "alpha": 0.62}
    for row, (name, some) in zip(axes[1:], maps.items()):
        for ax, frame, q in zip(row, frames, some):
            height, width = frame.shape[:2]
            show_frame(ax, np.repeat(frame.mean(-1, keepdims=True), 3, -1))
            image = ax.imshow(q, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **heat)
        row[0].set_ylabel(name)
    fig.colorbar(image, ax=list(axes[1:].flat), label="P(target)", fraction=0.03, pad=0.01)
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
    rows = math.ceil(len(terms) / 4)
    fig, axes = page(rows, 4, 1.9, squeeze=False, sharex=True)
    for ax in axes.flat[len(terms) :]:
        ax.axis("off")
    for ax, term in zip(axes.flat, terms):
        for name, history in trained.items():
            if term in history:
                smooth = history[term].rolling(9, min_periods=1, center=True).mean()
                look = {"label": name, "color": colours[name], "lw": 1.5, "legend": False}
                sns.lineplot(x=history["step"], y=smooth, ax=ax, **look)
        if term in guessing:
            ax.axhline(guessing[term], color=GREY, lw=1, ls=":")
        unit = "smooth L1" if term.endswith("_reg") else "nats"
        ax.set_title(f"{LOSS_LABELS[term]} ({unit})", fontsize=8.5)
        ax.set(ylim=(0, 1.08 * ax.get_ylim()[1]), xlabel="", ylabel="")
        ax.grid(axis="y")
    for ax in axes.flat[len(terms) - 4 : len(terms)]:
        ax.set_xlabel("step")
        ax.tick_params(labelbottom=True)
    fig.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def sources_of_gain(found: pd.DataFrame, rows: Sequence[str]) -> Figure:
    """Bars in percent, a group per measure: both mAPs, and what a right detection needs.

    found: the results of one column.  The bar is the mean of a row's runs, its whisker one s.d.
    """
    own = found[found["row"].isin(rows)].rename(columns=GAIN_LABELS)
    lines = own.melt("row", list(GAIN_LABELS.values()), "measure", "percent")
    fig, ax = page(1, 1, 2.6)
    colours = [class_colour(i) for i in range(len(rows))]
    bars = {"hue": "row", "hue_order": rows, "palette": colours, "saturation": 1}
    sns.barplot(lines, x="measure", y="percent", ax=ax, errorbar="sd", err_kws={"lw": 1}, **bars)
    for group in ax.containers:
        ax.bar_label(group, fmt="%.0f", fontsize=7, label_type="center", color="white")
    ax.set(xlabel="", ylabel="%", ylim=(0, 112))
    ax.legend(ncols=len(rows), loc="lower left", bbox_to_anchor=(0, 1.0))
    return fig
