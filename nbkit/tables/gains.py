"""How much one row is above another, with a 95 % interval, and which orders differ.

Localization: test videos are not right or wrong, and the bootstrap is over paired runs only; that
is narrower than the truth where the test set is small.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from nbkit.evaluate.statistics import Interval, paired_bootstrap, paired_runs
from nbkit.tables.right_wrong import pairs
from nbkit.tables.table import KEY, Table, printed_videos

# Runs per direction, or splits where there are several: fewer make an interval too narrow.
STARRED_FROM = 5
# The fewest videos by which two rows can differ clearly: of six that only one of them has right,
# a sign test says p = 2 / 2**6 = 0.03, of five p = 0.06.
CLEAR_VIDEOS = 6
NOT_RUN, NOTHING = "not run", "–"


def paired(
    table: Table, found: pd.DataFrame, a: str, b: str, column: str | None = None, measure: str = ""
) -> tuple[pd.Series, pd.Series]:
    """The values of two rows in the runs that pair, both by (column, seed, split).

    column, measure: as in `Table.runs_of`.
    """
    runs = [table.runs_of(found, name, column, measure) for name in (a, b)]
    first, second = (own.set_index(KEY[1:])["value"] for own in runs)
    both = first.index.intersection(second.index)
    return first.loc[both], second.loc[both]


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
        column: None, or the mean column, pairs over all columns, and needs pairs in each.
        measure: as in `Table.runs_of`.
    """
    first, second = paired(table, found, a, b, column, measure)
    directions = first.index.get_level_values("column").value_counts()
    if first.empty or (column in (None, table.mean) and len(directions) < len(table.columns)):
        return None
    videos = pairs(table, lines, a, b, column, measure)
    gaps = (first - second).to_numpy()
    if len(videos.right_a) == len(gaps):
        gap = paired_bootstrap(*videos)
    elif first.index.get_level_values("split").nunique() > 1:
        gap = Interval(float(gaps.mean()), -math.inf, math.inf, len(gaps))
    else:
        gap = paired_runs(gaps, np.zeros(len(gaps)))
    if len(directions) == 1:
        return gap
    return gap._replace(least=int(directions.min()))


# --- as text -------------------------------------------------------------------------------------
def starred(found: Interval | None) -> bool:
    """Whether zero lies outside the interval of five paired runs per direction or more (or of five
    splits, where there are several).
    """
    if found is None or not found.clear:
        return False
    return (found.splits or found.least or found.n) >= STARRED_FROM


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
    elif found.least:
        runs = f"{found.least} per direction"
    text = f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}] ({runs})"
    if starred(found):
        text += " *"
    return text


def in_words(found: Interval | None) -> str:
    """What may be said of a difference: 'not run', 'clearly higher', 'clearly lower', 'higher, from
    too few runs' (or lower; or splits), 'not clear'.
    """
    if found is None:
        return NOT_RUN
    if not found.clear:
        return "not clear"
    way = "higher" if found.mean > 0 else "lower"
    if starred(found):
        return f"clearly {way}"
    few = "splits" if found.splits else "runs"
    return f"{way}, from too few {few}"


def signed(value: float) -> str:
    """A difference in points, '–' for none."""
    if math.isnan(value):
        return NOTHING
    return f"{value:+.1f}"


# --- orders -------------------------------------------------------------------------------------
def disagreements(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = ""
) -> pd.DataFrame:
    """Pairs of rows that the paper prints in one order and we measure clearly in the other.

    An order counts only where it is more than noise on both sides: ours has a star, and the paper's
    rows are at least `CLEAR_VIDEOS` of its test videos apart.  Rows that it copied from other works
    are left out, because they follow other protocols.
    """
    columns, out = table.column_names, []
    tested = [printed_videos(table, name) for name in columns]
    own = {}
    for row in table.rows:
        numbers = [row.number(name, table.measures[0]) for name in columns]
        if not row.copied and not any(map(math.isnan, numbers)) and all(tested):
            own[row.name] = np.array(numbers)
    for better, worse in ((a, b) for a in own for b in own):
        gap = own[better] - own[worse]
        videos = round(float(gap @ np.array(tested)) / 100)
        if gap.mean() <= 0 or videos < CLEAR_VIDEOS:
            continue
        ours = difference(table, found, lines, better, worse, None, measure)
        if starred(ours) and ours.mean < 0:
            paper = f"{gap.mean():+.1f} ({videos} videos)"
            out.append((better, worse, paper, interval_text(ours)))
    names = ["the paper's better row", "its worse row", "paper", "ours"]
    return pd.DataFrame(out, columns=names)


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
    for name, part in both.groupby("column", sort=False):
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
