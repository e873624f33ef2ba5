"""Figures of a run and of a table: training curves, accuracy, confusion, a dot per run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nbkit.figures.style import GREY, PAGE, STREAM_COLOURS, page
from nbkit.tables.report import values_of
from nbkit.tables.table import Table, heading

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


def _runs_of(table: Table, found: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Every run of a table: row, column, what the row reads, value."""
    lines = []
    for row in table.rows:
        stream = row.measure or measure
        for column in table.columns:
            for value in values_of(table, found, row.name, column.name, measure):
                lines.append((row.name, column.name, stream, value))
    return pd.DataFrame(lines, columns=["row", "column", "stream", "value"])


def _axis(table: Table, measure: str) -> str:
    if table.task == "recognition":
        return f"target test accuracy, {measure} (%)"
    return f"{heading(measure)} (%)"


def _bases(ax: Axes, table: Table, found: pd.DataFrame, column: str, measure: str, rows: list[str]):
    """Mark in each row the mean of the row that its gain is counted from."""
    for place, name in enumerate(rows):
        row = table.row(name)
        against = table.against_of(row)
        if against:
            base = values_of(table, found, against, column, row.measure or measure)
            if len(base):
                x = [base.mean()] * 2
                ax.plot(x, [place - 0.5, place + 0.5], color=GREY, lw=1.2, ls=":", zorder=0)


def table_dots(table: Table, found: pd.DataFrame, *measures: str) -> Figure:
    """One panel per column and measure: a dot per run, a bar at the mean, whiskers of one s.d.

    Dotted: the mean of the row that the gain is counted from. Rows from top to bottom as in the
    table, those that have runs. A row that reads one stream has that stream's colour.

    Args:
        found: the results of the table, as `committed` and `results` give them.
        measures: columns of `found`, by default the table's own.
    """
    measures = measures or table.measures[:1]
    runs = {measure: _runs_of(table, found, measure) for measure in measures}
    there = set(pd.concat(runs.values())["row"])
    rows = [row.name for row in table.rows if row.name in there]
    colours = dict.fromkeys(measures, STREAM_COLOURS["fused"]) | STREAM_COLOURS
    panels = [(column.name, measure) for column in table.columns for measure in measures]
    height = 0.32 * len(rows) + 0.9
    fig, axes = page(1, len(panels), height, sharey=True, sharex=True, squeeze=False)
    for ax, (column, measure) in zip(axes[0], panels):
        every = runs[measure]
        here = every[every["column"] == column]
        place = {"data": here, "x": "value", "y": "row", "order": rows, "ax": ax}
        dots = {"hue": "stream", "palette": colours, "size": 4.2, "alpha": 0.7}
        sns.swarmplot(**place, **dots, legend=False, warn_thresh=1)
        bars = {"marker": "|", "markersize": 13, "color": "black", "linestyle": "none"}
        sns.pointplot(**place, **bars, errorbar="sd", err_kws={"lw": 1})
        _bases(ax, table, found, column, measure, rows)
        ax.set(
            title=column, xlabel=_axis(table, measure), ylabel="", ylim=(len(rows) - 0.45, -0.55)
        )
        ax.grid(axis="x")
    # a whisker may reach below what an accuracy can be
    ax.set_xlim(left=max(ax.get_xlim()[0], -1.5))
    return fig


def between_the_ticks(numbers: pd.DataFrame) -> Figure:
    """Printed numbers among the accuracies that whole numbers of right videos give.

    numbers: rows of `nbkit.tables.report.marked`. One line per number: a tick for every k right of
    n within two videos of it, a cross at the printed value.
    """
    fig, ax = page(1, 1, 0.62 * len(numbers) + 0.7, PAGE)
    names = []
    for i, line in enumerate(numbers.to_dict("records")):
        n, printed = line["videos"], line["printed"]
        names.append(f"{line['row']}, {line['column']}:\nprinted {printed:.1f}")
        here = printed * n / 100
        ax.plot([-2.1, 2.1], [i, i], color=GREY, lw=0.6, zorder=0)
        for k in range(max(0, int(np.ceil(here - 2))), min(n, int(here + 2)) + 1):
            x = k - here
            ax.plot([x, x], [i - 0.15, i + 0.15], color=GREY, lw=1.6)
            ax.text(x, i - 0.19, f"{k} of {n}", ha="center", va="bottom")
            ax.text(x, i + 0.19, f"{100 * k / n:.2f}", ha="center", va="top", color="#666666")
        ax.plot(0, i, marker="x", color="black", ms=8, mew=2)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("distance from the printed number, in test videos")
    ax.set(xlim=(-2.3, 2.3), ylim=(len(names) - 0.4, -0.6))
    return fig
