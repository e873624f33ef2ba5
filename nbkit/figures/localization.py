"""Figures of action localization: boxes on frames, tubes over time, domain maps, where a gain comes
from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nbkit.evaluate.detections import Detections, Tube
from nbkit.figures.style import GREY, PAGE, SOURCE, TARGET, bare, class_colour, page

TRUTH = "#FFFFFF"  # ground truth is a dashed white box in every picture
LOSS_LABELS = {
    "rpn_cls": "RPN, actor or not",
    "rpn_reg": "RPN, box",
    "roi_cls": "RoI, class",
    "roi_reg": "RoI, box",
    "s_img": "$\\mathcal{L}_{D_S}$",
    "t_img": "$\\mathcal{L}_{D_{Timg}}$",
    "t_ins": "$\\mathcal{L}_{D_{Tinst}}$",
}


def draw_box(
    ax: Axes, box: np.ndarray, colour: str, text: str = "", dashed: bool = False, width: float = 1.6
) -> None:
    """One box (4,) xyxy in pixels, with a word above it (inside where there is no room), towards
    the picture's middle.
    """
    x0, y0, x1, y1 = box
    ax.add_patch(
        Rectangle(
            (x0 - 0.5, y0 - 0.5),
            x1 - x0,
            y1 - y0,
            fill=False,
            ec=colour,
            lw=width,
            ls=(0, (2, 1.5)) if dashed else "-",
        )
    )
    if text:
        inside = y0 < 7
        right = x0 + x1 > sum(ax.get_xlim())
        ax.text(
            x1 if right else x0,
            y0 + (1 if inside else -1.5),
            text,
            color="black",
            fontsize=7,
            ha="right" if right else "left",
            va="top" if inside else "bottom",
            bbox={"fc": colour, "ec": "none", "pad": 0.8, "alpha": 0.9},
            zorder=5,
        )


def show_frame(ax: Axes, frame: np.ndarray, title: str = "") -> None:
    """A frame (H, W, 3) without axes."""
    ax.imshow(frame)
    ax.set_title(title, fontsize=9)
    ax.set(xlim=(-0.5, frame.shape[1] - 0.5), ylim=(frame.shape[0] - 0.5, -0.5))
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
    least: float = 0.3,
) -> Figure:
    """One row a model, one column a moment: its detections (coloured by class) over the ground
    truth (dashed white).

    frames (N, H, W, 3) of the video; moments: frame numbers, multiples of `stride`; models: name ->
    detections whose frames are numbered in steps of `stride`; least: lowest score drawn.
    """
    fig, axes = page(len(models), len(moments), PAGE / len(moments) + 0.12, squeeze=False)
    for number, (row, (name, found)) in enumerate(zip(axes, models.items())):
        for ax, t in zip(row, moments):
            show_frame(ax, frames[t], "" if number else f"frame {t}")
            for tube in truth:
                if tube.video == video and t in tube.frames:
                    draw_box(
                        ax, tube.boxes[np.flatnonzero(tube.frames == t)[0]], TRUTH, dashed=True
                    )
            for i, (box, label, score) in enumerate(_columns(at(found, video, t // stride, least))):
                word = f"{classes[label].replace('_', ' ')} {score:.2f}" if i == 0 else ""
                draw_box(ax, box, class_colour(label), word, width=1.8 if i == 0 else 0.9)
        row[0].set_ylabel(name, rotation=90, labelpad=4)
    return fig


def _columns(found: Detections):
    return zip(found.box, found.label.tolist(), found.score.tolist())


def tubes_figure(
    models: Mapping[str, Sequence[Tube]],
    truth: Sequence[Tube],
    video: int,
    n_frames: int,
    classes: Sequence[str],
    stride: int = 1,
    keep: int = 3,
) -> Figure:
    """Time runs to the right: ground-truth tubes on top, then the `keep` best tubes of each model,
    colour = class.

    Detected tubes are on frame numbers in steps of `stride`, ground truth on the video's own;
    scores stand behind the bars.
    """
    lines = [("ground truth", [t for t in truth if t.video == video])]
    for name, tubes in models.items():
        lines.append(
            (name, sorted((t for t in tubes if t.video == video), key=lambda t: -t.score)[:keep])
        )
    fig, ax = page(1, 1, 0.55 + 0.34 * sum(max(len(t), 1) for _, t in lines))
    ticks, labels, y = [], [], 0
    for number, (name, tubes) in enumerate(lines):
        step = stride if number else 1
        ticks.append(y + (max(len(tubes), 1) - 1) / 2)
        labels.append(name)
        for tube in tubes:
            first, last = tube.frames[0] * step, (tube.frames[-1] + 1) * step
            ax.barh(y, last - first, left=first, height=0.7, color=class_colour(tube.label))
            ax.text(
                min(last, n_frames) + 0.6,
                y,
                f"{classes[tube.label].replace('_', ' ')}"
                + (f" {tube.score:.2f}" if name != "ground truth" else ""),
                va="center",
                fontsize=8,
            )
            y += 1
        if not tubes:
            ax.text(0, y, "no tube", va="center", color=GREY, fontsize=8)
            y += 1
        ax.axhline(y - 0.5, color="#DDDDDD", lw=0.8)
    ax.set(xlim=(0, n_frames * 1.22), ylim=(y - 0.5, -0.5), xlabel="frame of the video")
    ax.axvline(n_frames, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(ticks, labels)
    ax.tick_params(axis="y", length=0)
    return fig


def domain_map_figure(
    frames: Sequence[np.ndarray], maps: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]
) -> Figure:
    """Frames on top; below, a row a model: Q, the probability "target" at every place of the
    temporal map, over the frame.

    frames: n of (H, W, 3) in [0, 1]; maps: name -> n of (h, w) in [0, 1].
    """
    fig, axes = page(1 + len(maps), len(frames), PAGE / len(frames) * 0.9, squeeze=False)
    for ax, frame, title in zip(axes[0], frames, titles):
        show_frame(ax, frame, title)
    for row, (name, some) in zip(axes[1:], maps.items()):
        for ax, frame, q in zip(row, frames, some):
            show_frame(ax, np.repeat(frame.mean(-1, keepdims=True), 3, -1))
            image = ax.imshow(
                q,
                cmap="RdBu_r",
                vmin=0,
                vmax=1,
                alpha=0.62,
                interpolation="bilinear",
                extent=(-0.5, frame.shape[1] - 0.5, frame.shape[0] - 0.5, -0.5),
            )
        row[0].set_ylabel(name)
    fig.colorbar(image, ax=axes[1:].ravel().tolist(), label="P(target)", fraction=0.03, pad=0.01)
    return fig


def reversal_figure(
    points: Mapping[str, np.ndarray], steps: Mapping[str, Mapping[str, np.ndarray]]
) -> Figure:
    """Features of two domains in the plane, one panel an entry of `steps`, with an arrow -gradient
    from each point.

    points: 'source' and 'target' -> (n, 2); steps: title -> the same keys -> (n, 2) descent steps.
    """
    fig, axes = page(1, len(steps), 2.7, sharex=True, sharey=True)
    for ax, (title, arrows) in zip(np.atleast_1d(axes), steps.items()):
        for domain, colour in (("source", SOURCE), ("target", TARGET)):
            p, a = points[domain], arrows[domain]
            ax.quiver(
                p[:, 0],
                p[:, 1],
                a[:, 0],
                a[:, 1],
                color=colour,
                angles="xy",
                scale_units="xy",
                scale=1,
                width=0.006,
            )
            ax.scatter(
                p[:, 0],
                p[:, 1],
                s=14,
                color=colour,
                marker="o" if domain == "source" else "^",
                label=domain,
            )
        ax.set(title=title, xlabel="feature 1", aspect="equal")
    axes[0].set_ylabel("feature 2")
    axes[0].legend(loc="upper left")
    return fig


def loss_figure(
    histories: Mapping[str, pd.DataFrame | None], guessing: Mapping[str, float] | None = None
) -> Figure:
    """The four terms of Eq. (1), and those of Eq. (6) that were trained, over the steps of each
    run.

    None stands for a run without training of its own (AdaBN): not drawn, but it keeps its colour.
    guessing: term -> its loss for a discriminator that always answers one half; a dotted line.
    """
    terms = [t for t in LOSS_LABELS if any(h is not None and t in h for h in histories.values())]
    cols = 4
    fig, axes = page(-(-len(terms) // cols), cols, 1.75, squeeze=False, sharex=True)
    for ax, term in zip(axes.flat, terms):
        for i, (name, h) in enumerate(histories.items()):
            if h is not None and term in h:
                ax.plot(
                    h["step"],
                    h[term].rolling(5, min_periods=1, center=True).mean(),
                    label=name,
                    color=class_colour(i),
                    lw=1.3,
                )
        if term in (guessing or {}):
            ax.axhline(guessing[term], color=GREY, lw=1, ls=":")
        ax.set_title(LOSS_LABELS[term], fontsize=9)
        ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
    for ax in axes.flat[len(terms) :]:
        ax.axis("off")
    for ax in axes[-1][: len(terms) % cols or cols]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("loss (nats)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    (axes.flat[len(terms)] if len(terms) % cols else fig).legend(handles, labels, loc="center")
    return fig


def sources_of_gain(metrics: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars in percent, a group a measure: frame-mAP, video-mAP, and the three things a right
    detection needs.
    """
    measures = {
        "frame_map": "frame-mAP",
        "video_map_0.5": "video-mAP",
        "proposal_recall": "recall of\nproposals",
        "box_iou": "IoU of\nboxes",
        "class_given_box": "class,\nbox given",
    }
    fig, ax = page(1, 1, 2.5)
    wide = 0.8 / len(metrics)
    for i, (name, values) in enumerate(metrics.items()):
        x = np.arange(len(measures)) + (i - (len(metrics) - 1) / 2) * wide
        heights = [values[m] for m in measures]
        ax.bar(x, heights, wide * 0.92, color=class_colour(i), label=name)
        for xi, h in zip(x, heights):
            ax.text(xi, h + 1, f"{h:.0f}", ha="center", fontsize=7)
    ax.set_xticks(range(len(measures)), measures.values())
    ax.set(ylabel="%", ylim=(0, 112))
    ax.legend(ncols=len(metrics), loc="lower left", bbox_to_anchor=(0, 1.0))
    return fig


def localization_dots(
    found: pd.DataFrame, rows: Sequence[str], directions: Sequence[tuple[str, str]]
) -> Figure:
    """Frame-mAP and video-mAP of every run: one panel a measure and direction, a dot a seed, a bar
    at the mean.
    """
    there = [r for r in rows if (found["row"] == r).any()]
    some = [d for d in directions if ((found["source"] == d[0]) & (found["target"] == d[1])).any()]
    fig, axes = page(1, 2 * len(some), 0.3 * len(there) + 0.9, sharey=True, squeeze=False)
    panels = [(d, m) for d in some for m in ("frame_map", "video_map_0.5")]
    lowest = max(0.0, 10 * np.floor(found[["frame_map", "video_map_0.5"]].min(axis=None) / 10) - 2)
    for ax, (direction, measure) in zip(axes[0], panels):
        here = found[(found["source"] == direction[0]) & (found["target"] == direction[1])]
        for i, row in enumerate(there):
            values = here.loc[here["row"] == row, measure].to_numpy()
            spread = (
                np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(len(values))
            )
            ax.scatter(values, i + spread, s=20, color=GREY, alpha=0.65, linewidths=0)
            if len(values):
                ax.plot([values.mean()] * 2, [i - 0.34, i + 0.34], color="black", lw=1.5)
        ax.set_title("→".join(direction), fontsize=9)
        ax.set(
            xlabel="frame-mAP (%)" if measure == "frame_map" else "video-mAP (%)",
            xlim=(lowest, 101),
        )
        ax.grid(axis="x")
    axes[0][0].set_yticks(range(len(there)), there)
    axes[0][0].invert_yaxis()
    return fig
