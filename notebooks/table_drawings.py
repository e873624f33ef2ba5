"""A drawing of notebook 08: methods beside the rows that they start from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nbkit.figures.results import axis_label, legend_of_dots, standing_colour
from nbkit.figures.style import GREY, page
from nbkit.tables.gains import difference
from nbkit.tables.report import values_of
from nbkit.tables.table import Table


def comparison_figure(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = "fused"
) -> Figure:
    """Methods in groups, each below the row that it starts from, with an arrow from that row's mean
    to its own.

    The head of an arrow is coloured as the dots of `difference_figure`; small dots are runs.
    """
    groups, bases = {}, {table.against_of(row) for row in table.rows}
    for row in table.rows:
        base = table.against_of(row)
        if base and row.name not in bases and (found["row"] == row.run_row).any():
            groups.setdefault((base, row.measure), []).append(row)
    height = 0.24 * sum(len(rows) + 1.6 for rows in groups.values()) + 0.8
    fig, axes = page(1, len(table.columns), height, sharey=True, squeeze=False)
    for ax, column in zip(axes[0], table.column_names):
        ticks, y = {}, 0.0
        for (base, stream), rows in groups.items():
            start = values_of(table, found, base, column, stream or measure).mean()
            ticks[y] = f"from {base}" + (f", its {stream}" if stream else "")
            ax.plot([start, start], [y - 0.3, y + len(rows) + 0.4], color=GREY, lw=1.2, ls=":")
            for row in rows:
                y += 1
                ticks[y] = row.name
                gap = difference(table, found, lines, row.name, base, column, stream or measure)
                if gap is None:
                    continue
                values = values_of(table, found, row.name, column, measure)
                ends = {"xy": (values.mean(), y), "xytext": (start, y)}
                ax.annotate("", **ends, arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 3})
                ax.scatter(values, np.full(len(values), y + 0.3), s=5, color=GREY, lw=0)
                ax.plot(values.mean(), y, "o", ms=6, mec="black", mew=0.8, mfc=standing_colour(gap))
            y += 1.6
        ax.set(title=column, xlabel=axis_label(table, measure), ylim=(y - 0.8, -0.6))
        ax.grid(axis="x")
    axes[0][0].set_yticks(list(ticks), ticks.values())
    for label in axes[0][0].get_yticklabels():
        if label.get_text().startswith("from "):
            label.set_fontweight("bold")
    legend_of_dots(fig, table, standings=True)
    return fig
