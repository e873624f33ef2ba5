"""Figures of a run and of a table: training curves, accuracy by class, confusion, dots per seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nbkit.figures.style import GREY, PAGE, STREAM_COLOURS, page
from nbkit.tables import Table

TERM_LABELS = {"ce": "cross-entropy (Eq. 9)", "contrast": "α · contrastive (Eq. 4)", "vca": "β · alignment (Eq. 8)"}


def training_curves(history: pd.DataFrame) -> Figure:
    """One panel a term of the objective, over the epochs of all stages; a line marks where a stage begins."""
    terms = [t for t in TERM_LABELS if t in history]
    fig, axes = page(1, len(terms), 2.3, squeeze=False)
    epochs = np.arange(1, len(history) + 1)
    starts = np.flatnonzero(history["stage"].diff().fillna(0).to_numpy()) + 0.5
    for ax, term in zip(axes[0], terms):
        ax.plot(epochs, history[term], marker="o")
        for x in starts:
            ax.axvline(x, color=GREY, lw=0.8, ls=":")
        ax.set(title=TERM_LABELS[term], xlabel="epoch", xlim=(0.5, len(history) + 0.5))
    axes[0][0].set_ylabel("weighted loss (nats)")
    return fig


def accuracy_bars(accuracy: dict[str, float], chance: float) -> Figure:
    """Target test accuracy of each stream and of their fusion, in percent."""
    fig, ax = page(1, 1, 1.5, PAGE * 0.7)
    names = [m for m in ("rgb", "flow", "fused") if m in accuracy]
    ax.barh(names, [accuracy[m] for m in names], color=[STREAM_COLOURS[m] for m in names], height=0.6)
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
        ax.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", color="white" if share[i, j] > 55 else "black")
    names = [c.replace("_", " ") for c in classes]
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true class")
    fig.colorbar(image, label="% of the class", fraction=0.046)
    return fig


def table_dots(table: Table, found: pd.DataFrame, measure: str = "fused") -> Figure:
    """One panel a column: a dot for every run, a bar at the mean, rows from top to bottom as in the table."""
    rows = [r.name for r in table.rows if (found["row"] == r.name).any()]
    fig, axes = page(1, len(table.columns), 0.32 * len(rows) + 0.9, sharey=True, squeeze=False)
    for ax, column in zip(axes[0], table.columns):
        for i, row in enumerate(rows):
            values = found.loc[(found["row"] == row) & (found["column"] == column.name), measure].to_numpy()
            spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else [0.0]
            ax.scatter(values, i + np.asarray(spread)[:len(values)], s=18, color=STREAM_COLOURS[measure], alpha=0.6,
                       linewidths=0)
            if len(values):
                ax.plot([values.mean()] * 2, [i - 0.3, i + 0.3], color="#D55E00", lw=2)
        ax.set(title=column.name, xlabel=f"{measure} accuracy (%)")
        ax.grid(axis="x")
    axes[0][0].set_yticks(range(len(rows)), rows)
    axes[0][0].invert_yaxis()
    return fig
