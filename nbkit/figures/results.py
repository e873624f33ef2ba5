"""Figures of a run and of a table: training curves, accuracy by class, confusion, dots per seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nbkit.figures.style import GREY, PAGE, STREAM_COLOURS, page
from nbkit.tables.report import values_of
from nbkit.tables.table import Table

TERM_LABELS = {
    "ce": "cross-entropy (Eq. 9)",
    "contrast": "α · contrastive (Eq. 4)",
    "vca": "β · alignment (Eq. 8)",
    "mmd": "MMD",
    "ce_2": "second classifier",
    "discrepancy": "− discrepancy",
    "domain": "domain loss",
    "entropy": "attentive entropy",
    "order": "clip order",
    "attention": "attended videos",
    "correspondence": "correspondence",
}


def training_curves(history: pd.DataFrame) -> Figure:
    """One panel a term of the objective, over the epochs of all stages; a line marks where a stage
    begins.
    """
    terms = [t for t in TERM_LABELS if t in history]
    fig, axes = page(1, len(terms), 2.3, squeeze=False)
    epochs = np.arange(1, len(history) + 1)
    starts = np.flatnonzero(history["stage"].diff().fillna(0).to_numpy()) + 0.5
    for ax, term in zip(axes[0], terms):
        ax.plot(epochs, history[term], marker="o", color="black")
        for x in starts:
            ax.axvline(x, color=GREY, lw=0.8, ls=":")
        ax.set(title=TERM_LABELS[term], xlabel="epoch", xlim=(0.5, len(history) + 0.5))
    axes[0][0].set_ylabel("weighted term")
    return fig


def accuracy_bars(accuracy: dict[str, float], chance: float) -> Figure:
    """Target test accuracy of each stream and of their fusion, in percent."""
    fig, ax = page(1, 1, 1.5, PAGE * 0.7)
    names = [m for m in ("rgb", "flow", "fused") if m in accuracy]
    ax.barh(
        names, [accuracy[m] for m in names], color=[STREAM_COLOURS[m] for m in names], height=0.6
    )
    for i, m in enumerate(names):
        ax.text(accuracy[m] + 1, i, f"{accuracy[m]:.1f}", va="center")
    ax.axvline(chance, color=GREY, lw=1, ls=":")
    ax.text(chance + 0.5, -0.62, "chance", color=GREY, va="center")
    ax.set(xlim=(0, 108), xlabel="target test accuracy (%)", ylim=(len(names) - 0.5, -0.85))
    return fig


def confusion_figure(counts: np.ndarray, classes: list[str]) -> Figure:
    """Confusion matrix (C, C) in percent of each true class."""
    share = 100.0 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    fig, ax = page(1, 1, 3.9, PAGE * 0.72)
    image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for i, j in zip(*np.nonzero(share >= 0.5)):
        ax.text(
            j,
            i,
            f"{share[i, j]:.0f}",
            ha="center",
            va="center",
            color="white" if share[i, j] > 55 else "black",
        )
    names = [c.replace("_", " ") for c in classes]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true class")
    fig.colorbar(image, label="% of the class", fraction=0.046)
    return fig


def table_dots(table: Table, found: pd.DataFrame, measure: str = "fused") -> Figure:
    """One panel a column: a dot for every run, a bar at the mean; dotted, the mean of what the
    row's gain is counted from.

    Rows from top to bottom as in the table, those that have runs.  A row that reads one stream has
    that stream's colour.
    """
    rows = [
        r
        for r in table.rows
        if any(len(values_of(table, found, r.name, c.name, measure)) for c in table.columns)
    ]
    fig, axes = page(
        1, len(table.columns), 0.32 * len(rows) + 0.9, sharey=True, sharex=True, squeeze=False
    )
    for ax, column in zip(axes[0], table.columns):
        for i, row in enumerate(rows):
            values = values_of(table, found, row.name, column.name, measure)
            spread = (
                np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(len(values))
            )
            ax.scatter(
                values,
                i + spread,
                s=20,
                color=STREAM_COLOURS[row.measure or measure],
                alpha=0.65,
                linewidths=0,
            )
            if len(values):
                ax.plot([values.mean()] * 2, [i - 0.34, i + 0.34], color="black", lw=2)
            against = table.against_of(row)
            base = (
                values_of(table, found, against, column.name, row.measure or measure)
                if against
                else np.empty(0)
            )
            if len(base):
                ax.plot([base.mean()] * 2, [i - 0.5, i + 0.5], color=GREY, lw=1.2, ls=":", zorder=0)
        ax.set(title=column.name, xlabel=f"target test accuracy, {measure} (%)")
        ax.grid(axis="x")
    axes[0][0].set_yticks(range(len(rows)), [r.name for r in rows])
    axes[0][0].set_ylim(len(rows) - 0.45, -0.55)
    return fig


def between_the_ticks(numbers: pd.DataFrame) -> Figure:
    """Printed numbers (rows of `nbkit.tables.report.marked`) among the accuracies that whole
    numbers of right videos give.

    One line a number: a tick for every k right of n within two videos of it, a cross at the printed
    value.
    """
    fig, ax = page(1, 1, 0.62 * len(numbers) + 0.7, PAGE)
    lines = list(numbers.to_dict("records"))
    for i, x in enumerate(lines):
        n, here = x["videos"], x["printed"] * x["videos"] / 100
        ax.plot([-2.1, 2.1], [i, i], color=GREY, lw=0.6, zorder=0)
        for k in (k for k in range(n + 1) if abs(k - here) <= 2):
            ax.plot([k - here] * 2, [i - 0.15, i + 0.15], color=GREY, lw=1.6)
            ax.text(k - here, i - 0.19, f"{k} of {n}", ha="center", va="bottom")
            ax.text(
                k - here, i + 0.19, f"{100 * k / n:.2f}", ha="center", va="top", color="#666666"
            )
        ax.plot(0, i, marker="x", color="black", ms=8, mew=2)
    ax.set_yticks(
        range(len(lines)),
        [f"{x['row']}, {x['column']}:\nprinted {x['printed']:.1f}" for x in lines],
    )
    ax.set(
        xlim=(-2.3, 2.3),
        ylim=(len(lines) - 0.4, -0.6),
        xlabel="distance from the printed number, in test videos",
    )
    return fig
