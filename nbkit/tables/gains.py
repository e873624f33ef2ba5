"""How much one row is above another, with a 95 % interval, and which orders differ.

Recognition: the interval is that of a two-level bootstrap over runs and test videos (and splits,
where there are several).  Localization: test videos are not right or wrong, and the bootstrap is
over paired runs only; that is narrower than the truth where the test set is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nbkit.evaluate.statistics import Interval, paired_bootstrap, paired_runs
from nbkit.tables.right_wrong import pairs
from nbkit.tables.table import Table, heading

# Runs, or splits where there are several: a bootstrap over fewer is too narrow for a star.
STARRED_FROM = 5
NOT_RUN, NOTHING = "not run", "–"


def difference(
    table: Table,
    found: pd.DataFrame,
    lines: pd.DataFrame,
    a: str,
    b: str,
    column: str | None = None,
    measure: str = "",
) -> Interval | None:
    """Mean of row a - row b over paired runs with its 95 % interval; None where no runs pair.

    Args:
        found: lines of results.
        lines: lines of `committed_right_wrong`.  Where they lack a paired run, as they always do
            in localization, the bootstrap is over runs only; a single run, and runs of several
            splits, then have no interval.
        column: None pairs over all columns, and needs pairs in each.
        measure: what rows without a stream of their own are read in; '': the table's own.
    """
    measure = measure or table.measures[0]
    first, second = (_by_run(table, found, name, column, measure) for name in (a, b))
    both = first.index.intersection(second.index)
    covered = set(both.get_level_values("column"))
    if both.empty or (column is None and covered < set(table.column_names)):
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
    """The values of a row by (column, seed, split)."""
    row = table.row(name)
    stream = row.measure or measure
    own = found[found["row"] == row.run_row].reindex(columns=["column", "seed", "split", stream])
    if column is not None:
        own = own[own["column"] == column]
    return own.dropna(subset=[stream]).set_index(["column", "seed", "split"])[stream]


# --- as text -------------------------------------------------------------------------------------
def starred(found: Interval | None) -> bool:
    """Whether zero lies outside the interval of five paired runs or more (splits, if several)."""
    return found is not None and found.clear and (found.splits or found.n) >= STARRED_FROM


def interval_text(found: Interval | None) -> str:
    """`mean [low, high] (pairs) *`, 'not run' for None; the interval of one run is of its videos
    alone.
    """
    if found is None:
        return NOT_RUN
    if not math.isfinite(found.low) and found.n == 1:
        return f"{found.mean:+.1f} (one run)"
    if not math.isfinite(found.low):
        return f"{found.mean:+.1f} ({found.n}, no interval)"
    runs = str(found.n)
    if found.splits:
        runs = f"{found.n} in {found.splits} splits"
    elif found.n == 1:
        runs = "one run: videos only"
    text = f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}] ({runs})"
    if starred(found):
        text += " *"
    return text


def signed(value: float) -> str:
    """A difference in points, '–' for none."""
    if math.isnan(value):
        return NOTHING
    return f"{value:+.1f}"


# --- tables of differences -----------------------------------------------------------------------
def differences(
    table: Table,
    found: pd.DataFrame,
    lines: pd.DataFrame,
    chosen: Sequence[tuple[str, str]],
    measure: str = "",
) -> pd.DataFrame:
    """Differences of chosen pairs of rows as text, by column and over all of them."""
    grid = {}
    for name in [*table.column_names, None]:
        gaps = [difference(table, found, lines, a, b, name, measure) for a, b in chosen]
        grid[name or "all"] = [interval_text(gap) for gap in gaps]
    return pd.DataFrame(grid, index=[f"{a} − {b}" for a, b in chosen])


def gains(
    table: Table,
    found: pd.DataFrame,
    lines: pd.DataFrame,
    column: str,
    against: Sequence[str],
    measures: Sequence[str],
) -> pd.DataFrame:
    """Difference of every row to the rows `against` in one column, as text.

    The frame's columns are (row of `against`, heading of the measure).
    """
    names = [row.name for row in table.rows]
    grid = {}
    for base in against:
        for measure in measures:
            texts = []
            for name in names:
                gap = difference(table, found, lines, name, base, column, measure)
                texts.append(NOTHING if name == base else interval_text(gap))
            grid[base, heading(measure)] = texts
    return pd.DataFrame(grid, index=names)


def disagreements(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = ""
) -> pd.DataFrame:
    """Pairs of rows that the paper prints in one order and we measure in the other.

    Both orders are those of the means over the columns; a star says that ours is clear.
    """
    paper = _printed_means(table)
    orders = [(a, b) for a in paper for b in paper if paper[a] > paper[b]]
    out = []
    for better, worse in sorted(orders, key=lambda pair: paper[pair[1]] - paper[pair[0]]):
        ours = difference(table, found, lines, better, worse, None, measure)
        if ours is not None and ours.mean < 0:
            gap = signed(paper[better] - paper[worse])
            out.append((better, worse, gap, interval_text(ours)))
    names = ["the paper's better row", "its worse row", "paper", "ours"]
    return pd.DataFrame(out, columns=names)


def _printed_means(table: Table) -> dict[str, float]:
    """Mean of the printed numbers of each row that has one in every column."""
    means = {}
    for row in table.rows:
        numbers = [row.number(name, table.measures[0]) for name in table.column_names]
        mean = sum(numbers) / len(numbers)
        if not math.isnan(mean):
            means[row.name] = mean
    return means


# --- repeated runs -------------------------------------------------------------------------------
def repeats(
    table: Table, committed: pd.DataFrame, here: pd.DataFrame, measure: str = ""
) -> pd.DataFrame:
    """How far runs of this machine end from the committed runs that they repeat, in points.

    One line per column of the table.  Rows that share a run or read one stream of it count once; a
    run that was itself committed is no repetition.  `rms` is the root of the mean squared
    difference.  `rms of two seeds` is what to hold it against: the one expected of two different
    seeds of a row, from the variance between the committed seeds of the rows that were repeated.
    """
    measure = measure or table.measures[0]
    own = [r.name for r in table.rows if r.runs and not r.same_as and not r.measure]
    committed = committed[committed["row"].isin(own)]
    same = ["column", "row", "seed", "split", "cell"]
    both = committed.merge(here, on=same, suffixes=("", "_here"))
    both = both[both["finished"] != both["finished_here"]]
    both = both.dropna(subset=[measure, f"{measure}_here"])
    out = {}
    for name in table.column_names:
        part = both[both["column"] == name]
        if part.empty:
            continue
        gaps = part[f"{measure}_here"] - part[measure]
        rows = committed[(committed["column"] == name) & committed["row"].isin(part["row"])]
        between = rows.groupby(["row", "split"])[measure].var(ddof=1).mean()
        out[name] = {
            "runs": len(gaps),
            "mean difference": gaps.mean(),
            "largest": gaps.abs().max(),
            "rms": np.sqrt((gaps**2).mean()),
            "rms of two seeds": np.sqrt(2 * between),
        }
    return pd.DataFrame.from_dict(out, orient="index")
