"""Differences of rows: how much one is above another over paired runs, with a 95 % interval, and
which orders differ.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from nbkit.evaluate.statistics import Interval, paired_bootstrap, paired_runs
from nbkit.tables.right_wrong import pairs
from nbkit.tables.table import Table

# runs, or splits where there are several: a bootstrap over fewer is too narrow to call anything
# clear
STARRED_FROM = 5
NOT_RUN, NOTHING = "not run", "–"


def difference(
    table: Table,
    found: pd.DataFrame,
    lines: pd.DataFrame,
    a: str,
    b: str,
    column: str | None = None,
    measure: str = "fused",
) -> Interval | None:
    """Mean of row a - row b over paired runs with its 95 % interval, None where no runs pair (in
    one of the columns).

    column: None for all.  measure: what rows without a stream of their own are read in.  lines:
    what nbkit/right_wrong.py gives.  Where it has every paired run, the bootstrap resamples splits,
    runs and test videos; without it runs only, and one run, or runs of several splits, have no
    interval.
    """
    first, second = (_by_run(table, found, name, column, measure) for name in (a, b))
    both = first.index.intersection(second.index)
    if both.empty or (
        column is None and set(both.get_level_values("column")) < {c.name for c in table.columns}
    ):
        return None
    paired = pairs(table, lines, a, b, column, measure)
    if len(paired.right_a) == len(both):
        return paired_bootstrap(*paired)
    gaps = (first.loc[both] - second.loc[both]).to_numpy()
    if both.get_level_values("split").nunique() > 1:
        return Interval(float(gaps.mean()), -math.inf, math.inf, len(gaps))
    return paired_runs(gaps, np.zeros(len(gaps)))


def _by_run(
    table: Table, found: pd.DataFrame, name: str, column: str | None, measure: str
) -> pd.Series:
    row = table.row(name)
    own = found[found["row"] == (row.same_as or name)]
    own = own if column is None else own[own["column"] == column]
    stream = row.measure or measure
    own = own.dropna(subset=[stream]) if stream in own else own.iloc[:0]
    return own.set_index(["column", "seed", "split"])[stream if stream in own else "row"]


def starred(found: Interval | None) -> bool:
    """Whether a difference is marked: zero outside its interval, from five paired runs on (five
    splits, where several).
    """
    return found is not None and found.clear and (found.splits or found.n) >= STARRED_FROM


def interval_text(found: Interval | None) -> str:
    """`mean [low, high] (pairs) *`, 'not run' for None; the interval of one run is of its videos
    alone.
    """
    if found is None:
        return NOT_RUN
    if not math.isfinite(found.low):
        return f"{found.mean:+.1f} ({'one run' if found.n == 1 else f'{found.n}, no interval'})"
    runs = (
        f"{found.n} in {found.splits} splits"
        if found.splits
        else found.n
        if found.n > 1
        else "one run: videos only"
    )
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}] ({runs}){' *' if starred(found) else ''}"


def differences(
    table: Table,
    found: pd.DataFrame,
    lines: pd.DataFrame,
    chosen: list[tuple[str, str]],
    measure: str = "fused",
) -> pd.DataFrame:
    """Differences of chosen pairs of rows, by column and over all of them."""
    grid = {
        name: [
            interval_text(
                difference(table, found, lines, a, b, None if name == "all" else name, measure)
            )
            for a, b in chosen
        ]
        for name in [*(c.name for c in table.columns), "all"]
    }
    return pd.DataFrame(grid, index=[f"{a} − {b}" for a, b in chosen])


def signed(value: float) -> str:
    """A difference in points, '–' for none."""
    return NOTHING if math.isnan(value) else f"{value:+.1f}"


def disagreements(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = "fused"
) -> pd.DataFrame:
    """Pairs of rows that the paper prints in one order and we measure in the other, means over the
    columns.

    The rows are compared as in `differences`, over all columns; a star says that the opposite order
    is clear.
    """
    means = {
        r.name: sum(r.printed[c.name] for c in table.columns) / len(table.columns)
        for r in table.rows
        if all(c.name in r.printed for c in table.columns)
    }
    out = []
    for better, worse in sorted(
        ((a, b) for a in means for b in means if means[a] > means[b]),
        key=lambda pair: means[pair[1]] - means[pair[0]],
    ):
        ours = difference(table, found, lines, better, worse, None, measure)
        if ours is not None and ours.mean < 0:
            out.append(
                {
                    "the paper's better row": better,
                    "its worse row": worse,
                    "paper": signed(means[better] - means[worse]),
                    "ours": interval_text(ours),
                }
            )
    return pd.DataFrame(out, columns=["the paper's better row", "its worse row", "paper", "ours"])
