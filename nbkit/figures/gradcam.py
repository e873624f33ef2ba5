"""Grad-CAM figures: heat over the frames of a video in time, the share of heat on the actor, the
sanity check.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nbkit.figures.filmstrip import pictures
from nbkit.figures.style import GREY, PAGE, STREAM_COLOURS, bare, page

HEAT = mpl.colormaps["inferno"]
OUTLINE = "#56FF56"
STREAM_NAMES = {"rgb": "RGB", "flow": "flow"}


def overlay(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat (..., H, W) in [0, 1] over grey pictures (..., H, W) in [0, 1]: RGB (..., H, W, 3).

    No heat leaves the picture as it is; more heat is brighter, from violet to yellow, and hides
    more of it.
    """
    hidden = 0.85 * heat[..., None] ** 0.8
    return (1 - hidden) * grey[..., None] + hidden * HEAT(0.3 + 0.7 * heat)[..., :3]


def grey_of(clips: np.ndarray) -> np.ndarray:
    """Clips (K, C, T, H, W) -> (K, T, H, W) in [0, 1], for heat to lie on: dimmed luma of RGB, or
    speed of flow (C = 2).
    """
    if clips.shape[1] == 3:
        return 0.15 + 0.7 * np.einsum("kcthw,c->kthw", clips, (0.299, 0.587, 0.114))
    speed = np.hypot(clips[:, 0], clips[:, 1])  # (K, T, H, W)
    return 0.15 + 0.7 * np.clip(speed / max(np.percentile(speed, 99.5), 1e-6), 0, 1)


def in_time(frames: np.ndarray, moments: int) -> np.ndarray:
    """(K, T, ...) -> (K * moments, ...): `moments` frames of every clip, evenly spaced within it,
    in the order of time.
    """
    t = frames.shape[1]
    chosen = ((np.arange(moments) + 0.5) * t / moments).astype(int)
    return frames[:, chosen].reshape(-1, *frames.shape[2:])


def examples(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which videos to look at, by rule: fused probabilities (N, C) of two networks, labels (N,) ->
    positions by outcome.

    'fixed': wrong before, right after, the largest rise of the true class's probability first;
    'not fixed': wrong in both, the most confident second mistake first;
    'broken': right before, wrong after, the largest fall of the true class's probability first.
    """
    right, right_after = before.argmax(1) == labels, after.argmax(1) == labels
    every = np.arange(len(labels))
    rise = after[every, labels] - before[every, labels]
    found = {
        "fixed": (~right & right_after, rise),
        "not fixed": (~right & ~right_after, after.max(1)),
        "broken": (right & ~right_after, -rise),
    }
    return {
        name: every[chosen][np.argsort(-score[chosen], kind="stable")]
        for name, (chosen, score) in found.items()
    }


def verdict(probs: np.ndarray, label: int, classes: list[str]) -> str:
    """'kick 0.81, throw 0.12': the predicted class and, where it is another, the true one, with
    probabilities (C,).
    """
    best = int(probs.argmax())
    said = f"{classes[best].replace('_', ' ')} {probs[best]:.2f}"
    return (
        said if best == label else f"{said}, {classes[label].replace('_', ' ')} {probs[label]:.2f}"
    )


def cells_figure(frame: np.ndarray, grids: dict[str, tuple]) -> Figure:
    """Where the cells of a map lie on a picture (H, W, 3): true centres, and an even spread over
    the picture.

    grids: by panel title (rows (start, step), columns (start, step), number of rows, number of
    columns), in pixels.
    """
    side = frame.shape[0]
    fig, axes = page(1, len(grids), 2.9, PAGE * 0.72, squeeze=False)
    for ax, (title, (y, x, rows, columns)) in zip(axes[0], grids.items()):
        ax.imshow(frame)
        for name, (y0, dy), (x0, dx), style in (
            (
                "spread evenly",
                ((side / rows - 1) / 2, side / rows),
                ((side / columns - 1) / 2, side / columns),
                {"marker": "s", "mfc": "none", "mec": "white"},
            ),
            ("true centres", y, x, {"marker": "o", "color": OUTLINE}),
        ):
            at = np.stack(
                np.meshgrid(x0 + dx * np.arange(columns), y0 + dy * np.arange(rows)), -1
            ).reshape(-1, 2)
            ax.plot(at[:, 0], at[:, 1], ls="", ms=6, label=name, clip_on=False, **style)
        ax.set_title(title)
        bare(ax)
    legend = fig.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=True
    )
    legend.get_frame().set(facecolor="#555555", edgecolor="none")
    for text in legend.get_texts():
        text.set_color("white")
    return fig


def video_figure(
    clips: dict[str, np.ndarray],
    heats: list[tuple[str, str, np.ndarray]],
    title: str,
    masks: np.ndarray | None = None,
    moments: int = 2,
) -> Figure:
    """One video: for each stream what the network saw, then each row's heat over it; time runs to
    the right.

    clips: by stream (K, C, T, H, W); heats: (stream, label, (K, T, H, W) not negative), each scaled
    by its own maximum over the frames that are shown; masks (K, T, H, W): the actor, outlined.
    """
    lines = []
    for stream, seen in clips.items():
        frames = np.stack([pictures(clip) for clip in seen])  # (K, T, H, W, 3)
        lines.append((f"{STREAM_NAMES[stream]} as seen", in_time(frames, moments), False))
        for of, label, heat in heats:
            if of == stream:
                shown = in_time(heat, moments)  # (K moments, H, W)
                lines.append(
                    (
                        label,
                        overlay(in_time(grey_of(seen), moments), shown / max(shown.max(), 1e-12)),
                        True,
                    )
                )
    columns = len(lines[0][1])
    fig, axes = page(
        len(lines), columns, 0.93, PAGE, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02}
    )
    outline = None if masks is None else in_time(masks, moments)
    for row, (label, shown, warm) in zip(axes, lines):
        for i, ax in enumerate(row):
            ax.imshow(np.clip(shown[i], 0, 1))
            if outline is not None and warm and outline[i].any():
                ax.contour(outline[i], [0.5], colors=OUTLINE, linewidths=0.9)
            bare(ax)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", linespacing=1.3)
    for i, ax in enumerate(axes[0]):
        if i % moments == 0:
            ax.set_title(f"clip {i // moments + 1}", fontsize=9)
    fig.suptitle(title, x=0.01, ha="left")
    return fig


def share_figure(table: pd.DataFrame, chance: float, ceiling: dict[str, float]) -> Figure:
    """Share of heat on the actor, a panel a stream: dot and 95 % interval a row, rings for the maps
    of other videos.

    table: from `heat_table` (percent); chance: the actor's share of the area; ceiling: by stream,
    what a map of that resolution could reach (both percent).
    """
    streams, rows = list(dict.fromkeys(table["stream"])), list(dict.fromkeys(table["row"]))
    fig, axes = page(
        1, len(streams), 0.42 * len(rows) + 1.2, squeeze=False, sharey=True, sharex=True
    )
    for ax, stream in zip(axes[0], streams):
        part = table[table["stream"] == stream].set_index("row").loc[rows]
        for y, (_, line) in enumerate(part.iterrows()):
            ax.plot(
                [line["low"], line["high"]],
                [y, y],
                color=STREAM_COLOURS[stream],
                lw=2.4,
                solid_capstyle="butt",
            )
            ax.plot(line["share"], y, "o", color=STREAM_COLOURS[stream], ms=6)
            ax.plot(line["other videos"], y, "o", mfc="white", mec=GREY, ms=6)
            ax.text(line["share"], y - 0.22, f"{line['share']:.1f}", ha="center", va="bottom")
            if y == 0 and ax is axes[0][0]:
                ax.text(
                    line["other videos"],
                    y + 0.17,
                    "other video",
                    color=GREY,
                    ha="center",
                    va="top",
                    bbox={"fc": "white", "ec": "none", "pad": 0.5},
                )
        top = -0.95
        for x, name in ((chance, "area"), (ceiling[stream], "best map")):
            ax.axvline(x, color=GREY, lw=1, ls=":")
            ax.text(x, top, name, color=GREY, ha="center", va="bottom")
        ax.set(xlabel="heat on the actor (%)", ylim=(len(rows) - 0.5, top))
        ax.set_title(STREAM_NAMES[stream], pad=18)
    axes[0][0].set_yticks(range(len(rows)), rows)
    axes[0][0].set_xlim(0, max(ceiling.values()) * 1.12)
    return fig


def sanity_figure(table: pd.DataFrame, chance: float) -> Figure:
    """Left: rank correlation with the trained network's maps; right: heat on the actor; both as
    weights are drawn anew.

    table: columns depth (name), stream, correlation, share (percent).
    """
    fig, axes = page(1, 2, 2.5, sharey=True)
    depths = list(dict.fromkeys(table["depth"]))
    panels = (("correlation", "rank correlation with trained"), ("share", "heat on the actor (%)"))
    for ax, (column, label) in zip(axes, panels):
        for stream, part in table.groupby("stream", sort=False):
            y = [depths.index(d) for d in part["depth"]]
            ax.plot(
                part[column],
                y,
                marker="o",
                color=STREAM_COLOURS[stream],
                label=STREAM_NAMES[stream],
            )
        ax.set(xlabel=label, ylim=(len(depths) - 0.5, -0.4))
        ax.set_yticks(range(len(depths)), depths)
    axes[0].set_xlim(-0.35, 1.1)
    axes[0].legend(loc="lower right")
    axes[0].axvline(0, color=GREY, lw=1, ls=":")
    axes[1].axvline(chance, color=GREY, lw=1, ls=":")
    axes[1].text(chance, len(depths) - 0.55, " area", color=GREY, va="bottom")
    axes[1].set_xlim(0, None)
    return fig
