"""Figures of a run and of a table: training curves, accuracy, confusion, dots, differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nbkit.evaluate.statistics import Interval
from nbkit.figures.style import CLASS_COLOURS, GREY, NEGATIVE, PAGE, STREAM_COLOURS, page
from nbkit.tables.gains import difference, paired, starred
from nbkit.tables.report import values_of
from nbkit.tables.table import Table, heading

GAIN = "#009E73"

# raw terms of the history, as the methods return them
TERM_LABELS = {
    "ce": "cross-entropy (Eq. 9)",
    "contrast": "contrastive (Eq. 4)",
    "vca": "alignment (Eq. 8)",
    "mmd": "MMD",
    "ce_2": "second classifier",
    "discrepancy": "discrepancy",
    "domain": "domain loss",
    "entropy": "attentive entropy",
    "order": "clip order",
    "attention": "attended videos",
    "correspondence": "correspondence",
}


def training_curves(history: pd.DataFrame) -> Figure:
    """One panel per term, unweighted, over the epochs; a dotted line where a stage begins.

    Eq. (8) is drawn with its two parts.
    """
    terms = [term for term in TERM_LABELS if term in history]
    fig, axes = page(1, len(terms), 2.3, squeeze=False)
    epochs = np.arange(1, len(history) + 1)
    starts = np.flatnonzero(history["stage"].diff() > 0) + 0.5
    for ax, term in zip(axes[0], terms):
        sns.lineplot(x=epochs, y=history[term], marker="o", mew=0, color="black", ax=ax)
        if term == "vca" and "intra" in history:
            for part, dashes in {"intra": "--", "inter": "-."}.items():
                ax.plot(epochs, history[part], dashes, color=GREY, lw=1.2, label=part)
            ax.legend(loc="center left")
        for x in starts:
            ax.axvline(x, color=GREY, lw=0.8, ls=":")
        ax.set(title=TERM_LABELS[term], xlabel="epoch", ylabel="", xlim=(0.5, len(history) + 0.5))
    axes[0][0].set_ylabel("term, unweighted")
    return fig


def accuracy_bars(accuracy: dict[str, float], chance: float) -> Figure:
    """Target test accuracy of each stream and of their fusion, in percent."""
    fig, ax = page(1, 1, 1.5, PAGE * 0.7)
    names = [name for name in STREAM_COLOURS if name in accuracy]
    values = [accuracy[name] for name in names]
    colours = [STREAM_COLOURS[name] for name in names]
    sns.barplot(x=values, y=names, hue=names, palette=colours, saturation=1, width=0.6, ax=ax)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.1f", padding=3)
    ax.axvline(chance, color=GREY, lw=1, ls=":")
    ax.text(chance + 0.5, -0.62, "chance", color=GREY, va="center")
    ax.set(xlim=(0, 108), xlabel="target test accuracy (%)", ylim=(len(names) - 0.5, -0.85))
    return fig


def confusion_figure(counts: np.ndarray, classes: list[str]) -> Figure:
    """Confusion matrix (C, C) in percent of each true class; cells below 0.5 % stay empty."""
    share = 100.0 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    words = np.where(share >= 0.5, np.char.mod("%.0f", share), "")
    names = [name.replace("_", " ") for name in classes]
    fig, ax = page(1, 1, 3.9, PAGE * 0.75)
    labels = {"xticklabels": names, "yticklabels": names, "cbar_kws": {"label": "% of the class"}}
    sns.heatmap(share, cmap="Blues", vmin=0, vmax=100, square=True, annot=words, fmt="", **labels)
    ax.tick_params(length=0)
    ax.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted", ylabel="true class")
    return fig


def _split_colours(table: Table) -> dict[int, str]:
    return dict(zip(table.splits, CLASS_COLOURS))


def axis_label(table: Table, measure: str) -> str:
    """What an axis of results is labelled with."""
    if table.task == "recognition":
        return f"target test accuracy, {measure} (%)"
    return f"{heading(measure)} (%)"


def table_dots(table: Table, found: pd.DataFrame, measure: str = "fused") -> Figure:
    """One panel per column: a dot per run, a bar at the mean, whiskers of one s.d.

    Rows from top to bottom as in the table, those that have runs.  Dots have the colour of their
    split, where there are several, else of the stream that the row reads.  Dotted: the mean of the
    row that the table's gains are counted from.

    Args:
        found: the results of the table, as `committed` and `results` give them.
    """
    parts = []
    for row in table.rows:
        own = table.runs_of(found, row.name, None, measure)[["column", "split", "value"]]
        parts.append(own.assign(row=row.name, stream=row.measure or measure))
    runs = pd.concat(parts, ignore_index=True)
    look = {"hue": "stream", "palette": STREAM_COLOURS}
    if len(table.splits) > 1:
        look = {"hue": "split", "palette": _split_colours(table)}
    rows = [row.name for row in table.rows if row.name in set(runs["row"])]
    fig, axes = page(
        1, len(table.columns), 0.3 * len(rows) + 0.9, sharey=True, sharex=True, squeeze=False
    )
    for ax, column in zip(axes[0], table.column_names):
        place = {"data": runs[runs["column"] == column], "x": "value", "y": "row", "ax": ax}
        dots = {**look, "size": 4, "alpha": 0.8, "legend": False, "warn_thresh": 1}
        sns.swarmplot(**place, order=rows, **dots)
        bars = {"marker": "|", "markersize": 13, "color": "black", "linestyle": "none"}
        sns.pointplot(**place, order=rows, **bars, errorbar="sd", err_kws={"lw": 1})
        if table.against in rows:
            start = values_of(table, found, table.against, column, measure).mean()
            ax.axvline(start, color=GREY, lw=1.2, ls=":", zorder=0)
        ax.set(title=column, xlabel=axis_label(table, measure), ylabel="")
        ax.set_ylim(len(rows) - 0.45, -0.55)
        ax.grid(axis="x")
    # a whisker may reach below what an accuracy can be
    ax.set_xlim(left=max(ax.get_xlim()[0], -1.5))
    legend_of_dots(fig, table)
    return fig


def legend_of_dots(fig: Figure, table: Table, standings: bool = False) -> None:
    """Below a figure, what its dots mean: splits and, with `standings`, how clear they are."""
    few = "too few splits" if len(table.splits) > 1 else "too few runs"
    looks = {"clear gain": GAIN, "clear loss": NEGATIVE, few: GREY, "no clear difference": "white"}
    dots, names = [], []
    if standings:
        for name, colour in looks.items():
            dots.append(Line2D([], [], marker="o", ls="none", ms=6, mec="black", mfc=colour))
            names.append(name)
    if len(table.splits) > 1:
        for split, colour in _split_colours(table).items():
            dots.append(Line2D([], [], marker="o", ls="none", ms=4, mew=0, color=colour))
            names.append(f"split {split}")
    if dots:
        fig.legend(dots, names, loc="outside lower right", ncols=7, columnspacing=1, fontsize=8)


def difference_figure(
    table: Table,
    found: pd.DataFrame,
    lines: pd.DataFrame,
    chosen: Sequence[tuple[str, str]],
    measures: Sequence[str] = ("",),
) -> Figure:
    """One panel per column and measure: row a - row b of every chosen pair, around a zero line.

    A small dot per paired run, a large one at the mean, whiskers of the 95 % interval.  The large
    dot is green or wine red where a star stands in the tables, grey where the interval holds no
    zero but the runs are too few, or where a single run has no interval, and hollow where it holds
    zero.  A pair that did not run has an empty line.  found, lines: as in
    `nbkit.tables.gains.difference`.
    """
    panels = [(column, measure) for column in table.column_names for measure in measures]
    names, colours = [f"{a} − {b}" for a, b in chosen], _split_colours(table)
    against, line = {b for _, b in chosen}, 0.27
    if len(against) == 1:
        names = [a for a, _ in chosen]
    elif max(map(len, names)) > 40:
        names = [f"{a}\n− {b}" for a, b in chosen]
        line = 0.36
    height = line * len(chosen) + 1.1
    fig, axes = page(1, len(panels), height, sharey=True, sharex=len(measures) == 1, squeeze=False)
    for ax, (column, measure) in zip(axes[0], panels):
        ax.axvline(0, color="black", lw=1)
        for y, (a, b) in enumerate(chosen):
            stream = table.row(a).measure or measure
            gap = difference(table, found, lines, a, b, column, stream)
            if gap is None:
                continue
            first, second = paired(table, found, a, b, column, stream)
            split = first.index.get_level_values("split")
            own = [colours[s] for s in split] if len(colours) > 1 else GREY
            ax.scatter(first - second, np.full(len(first), y + 0.27), s=7, c=own, lw=0, zorder=2)
            if np.isfinite(gap.low):
                ax.plot([gap.low, gap.high], [y, y], color="black", lw=1)
            ax.plot(
                gap.mean, y, "o", ms=6, mec="black", mew=0.8, mfc=standing_colour(gap), zorder=3
            )
        title = column if len(measures) == 1 else f"{column}\n{heading(measure)}"
        ax.set(title=title, xlabel="difference (points)", ylim=(len(chosen) - 0.45, -0.55))
        ax.grid(axis="x")
    if len(against) == 1:
        fig.supylabel(f"minus {against.pop()}", fontsize=9)
    axes[0][0].set_yticks(range(len(names)), names)
    legend_of_dots(fig, table, standings=True)
    return fig


def standing_colour(gap: Interval) -> str:
    """The colour of a difference's dot: see `difference_figure`."""
    if np.isfinite(gap.low) and not gap.clear:
        return "white"
    if not starred(gap):
        return GREY
    return GAIN if gap.mean > 0 else NEGATIVE
