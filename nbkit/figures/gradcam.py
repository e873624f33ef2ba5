"""Grad-CAM figures: heat over the frames of a video, the share of heat on the actor, sanity."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from nbkit.figures.clips import pictures
from nbkit.figures.style import GREY, PAGE, STREAM_COLOURS, bare, page, row_label

HEAT = mpl.colormaps["inferno"]
OUTLINE = "#56FF56"
STREAM_NAMES = {"rgb": "RGB", "flow": "flow"}


def overlay(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Heat over grey pictures, both (..., H, W) in [0, 1]: RGB (..., H, W, 3).

    No heat leaves the picture as it is; more heat is brighter, from violet to yellow, and hides
    more of it.
    """
    hidden = 0.85 * heat[..., None] ** 0.8
    return (1 - hidden) * grey[..., None] + hidden * HEAT(0.3 + 0.7 * heat)[..., :3]


def grey_of(clips: np.ndarray) -> np.ndarray:
    """Clips (K, C, T, H, W) -> (K, T, H, W) in [0, 1]: dimmed luma of RGB, or speed of flow."""
    if clips.shape[1] == 3:
        return 0.15 + 0.7 * np.einsum("kcthw,c->kthw", clips, (0.299, 0.587, 0.114))
    speed = np.hypot(clips[:, 0], clips[:, 1])  # (K, T, H, W)
    top = max(np.percentile(speed, 99.5), 1e-6)
    return 0.15 + 0.7 * np.clip(speed / top, 0, 1)


def examples(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which videos to look at, by rule: positions of videos by outcome.

    'fixed': wrong before, right after, the largest rise of the true class's probability first;
    'not fixed': wrong in both, the most confident second mistake first;
    'broken': right before, wrong after, the largest fall of the true class's probability first.

    Args:
        before: fused probabilities (N, C) of the first network.
        after: those of the second.
        labels: true classes (N,).
    """
    every = np.arange(len(labels))
    right, right_after = before.argmax(1) == labels, after.argmax(1) == labels
    rise = after[every, labels] - before[every, labels]
    rules = {
        "fixed": (~right & right_after, rise),
        "not fixed": (~right & ~right_after, after.max(1)),
        "broken": (right & ~right_after, -rise),
    }
    found = {}
    for name, (chosen, score) in rules.items():
        order = np.argsort(-score[chosen], kind="stable")
        found[name] = every[chosen][order]
    return found


def verdict(probs: np.ndarray, label: int, classes: list[str]) -> str:
    """'kick (81 %), not throw (12 %)': the prediction and, where it is wrong, the true class."""
    named = dict.fromkeys([int(probs.argmax()), int(label)])
    return ", not ".join(f"{classes[c].replace('_', ' ')} ({100 * probs[c]:.0f} %)" for c in named)


def cells_figure(frame: np.ndarray, grids: dict[str, tuple]) -> Figure:
    """Where the cells of a map lie on a picture (H, W, 3): true centres, and an even spread.

    grids: by panel title (rows (start, step), columns (start, step), number of rows, number of
    columns), in pixels.
    """
    side = frame.shape[0]
    fig, axes = page(1, len(grids), 2.9, PAGE * 0.72, squeeze=False)
    for ax, (title, (y, x, rows, columns)) in zip(axes[0], grids.items()):
        ax.imshow(frame)
        # an even spread puts the first cell half a step inside
        even_y, even_x = side / rows, side / columns
        even = ((even_y - 1) / 2, even_y), ((even_x - 1) / 2, even_x)
        square = {"label": "spread evenly", "marker": "s", "mfc": "none", "mec": "white"}
        dot = {"label": "true centres", "marker": "o", "color": OUTLINE}
        for ((y0, dy), (x0, dx)), mark in ((even, square), ((y, x), dot)):
            across, down = np.meshgrid(x0 + dx * np.arange(columns), y0 + dy * np.arange(rows))
            ax.plot(across.ravel(), down.ravel(), ls="", ms=6, clip_on=False, **mark)
        ax.set_title(title)
        bare(ax)
    handles = axes[0][0].get_legend_handles_labels()
    look = {"frameon": True, "facecolor": "#555555", "edgecolor": "none", "labelcolor": "white"}
    fig.legend(*handles, loc="outside lower left", ncols=2, **look)
    return fig


def video_figure(
    clips: dict[str, np.ndarray],
    heats: list[tuple[str, str, np.ndarray]],
    title: str,
    masks: np.ndarray | None = None,
) -> Figure:
    """One video: what each stream saw, and beside it the heat of every network.

    Two rows per stream: the middle frames of the first and of the last clip. clips: by stream
    (K, C, T, H, W); heats: (stream, heading, (K, T, H, W) not negative), each scaled by its own
    maximum over the frames that are shown; masks (K, T, H, W): the actor, outlined.
    """
    columns = 1 + max(sum(line[0] == stream for line in heats) for stream in clips)
    height = PAGE / columns + 0.15  # room for a heading
    fig, axes = page(2 * len(clips), columns, height, squeeze=False)
    for ax in axes.flat:
        bare(ax)
    for block, (stream, seen) in zip(axes.reshape(len(clips), 2, columns), clips.items()):
        shown = [(k, seen.shape[2] // 2) for k in (0, len(seen) - 1)]
        grey = grey_of(seen)  # (K, T, H, W)
        for ax, (k, t) in zip(block[:, 0], shown):
            ax.imshow(pictures(seen[k])[t])
            row_label(ax, f"clip {k + 1}")
        block[0, 0].set_title(f"What the {STREAM_NAMES[stream]} stream saw")
        own = [(heading, heat) for of, heading, heat in heats if of == stream]
        for column, (heading, heat) in zip(block[:, 1:].T, own):
            top = max(max(heat[k, t].max() for k, t in shown), 1e-12)
            column[0].set_title(heading, fontsize=8.5)
            for ax, (k, t) in zip(column, shown):
                ax.imshow(np.clip(overlay(grey[k, t], heat[k, t] / top), 0, 1))
                if masks is not None and masks[k, t].any():
                    ax.contour(masks[k, t], [0.5], colors=OUTLINE, linewidths=1.2)
    warm = mpl.colors.ListedColormap(HEAT(np.linspace(0.3, 1, 128)))
    key = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100), warm)
    label = "evidence, % of the most in that column's two frames"
    fig.colorbar(key, ax=axes, location="bottom", shrink=0.5, aspect=40, label=label)
    fig.suptitle(title, x=0.01, ha="left")
    return fig


def share_figure(table: pd.DataFrame, chance: float, ceiling: dict[str, float]) -> Figure:
    """Share of heat on the actor, a panel per stream: dot and 95 % interval per row.

    Rings: the maps of other videos.

    Args:
        table: from `heat_table`, percent.
        chance: the actor's share of the area, percent.
        ceiling: by stream, what a map of that resolution could reach, percent.
    """
    streams, rows = table["stream"].unique(), list(table["row"].unique())
    height = 0.42 * len(rows) + 1.2
    fig, axes = page(1, len(streams), height, squeeze=False, sharey=True, sharex=True)
    top = -0.95
    for ax, stream in zip(axes[0], streams):
        part = table[table["stream"] == stream]
        # the percentiles 0 and 100 of (low, share, high) draw the interval, its median the dot
        long = part.melt(["row"], ["low", "share", "high"], value_name="percent")
        dots = {"estimator": "median", "errorbar": ("pi", 100), "linestyle": "none"}
        dots |= {"markersize": 6, "err_kws": {"lw": 2.4}}
        colour = STREAM_COLOURS[stream]
        sns.pointplot(long, x="percent", y="row", order=rows, color=colour, ax=ax, **dots)
        ax.plot(part["other videos"], part["row"], "o", mfc="white", mec=GREY, ms=6)
        for y, share in enumerate(part.set_index("row")["share"].loc[rows]):
            ax.text(share, y - 0.22, f"{share:.1f}", ha="center", va="bottom")
        for x, name in ((chance, "area"), (ceiling[stream], "best map")):
            ax.axvline(x, color=GREY, lw=1, ls=":")
            ax.text(x, top, name, color=GREY, ha="center", va="bottom")
        ax.set(xlabel="heat on the actor (%)", ylabel="", ylim=(len(rows) - 0.5, top))
        ax.set_title(STREAM_NAMES[stream], pad=18)
    ax.set_xlim(0, 1.12 * max(*ceiling.values(), table["high"].max()))
    axes[0][0].plot([], [], "o", mfc="white", mec=GREY, ms=6, label="maps of another video")
    fig.legend(loc="outside lower left")
    return fig


def sanity_figure(table: pd.DataFrame, chance: float) -> Figure:
    """Maps as weights are drawn anew: rank correlation with the trained network's, heat inside.

    table: columns depth (name), stream, correlation, share (percent).
    """
    fig, (left, right) = page(1, 2, 2.5, sharey=True)
    depths = table["depth"].unique()
    labels = {"correlation": "rank correlation with trained", "share": "heat on the actor (%)"}
    names = table.assign(stream=table["stream"].map(STREAM_NAMES))
    colours = {STREAM_NAMES[m]: STREAM_COLOURS[m] for m in STREAM_NAMES}
    for ax, (column, label) in zip((left, right), labels.items()):
        line = {"hue": "stream", "palette": colours, "orient": "y", "marker": "o", "mew": 0}
        sns.lineplot(names, x=column, y="depth", ax=ax, legend=ax is left, **line)
        ax.set(xlabel=label, ylabel="", ylim=(len(depths) - 0.5, -0.4))
    left.legend(loc="lower right")
    left.set_xlim(-0.35, 1.1)
    left.axvline(0, color=GREY, lw=1, ls=":")
    right.axvline(chance, color=GREY, lw=1, ls=":")
    right.text(chance, len(depths) - 0.55, " area", color=GREY, va="bottom")
    right.set_xlim(0, None)
    return fig
