"""Tables to look at: the paper's numbers beside ours, gaps, gains with intervals, and what choosing
an epoch would give.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from nbkit.evaluate.statistics import Interval, nearest_reachable, reachable
from nbkit.tables.gains import NOT_RUN, NOTHING, difference, interval_text, signed, starred
from nbkit.tables.results import CHOICES
from nbkit.tables.table import Line, Table, printed_videos

UNREACHABLE, COPIED, MEAN_OFF = "†", "‡", "§"
FLAGS = {
    UNREACHABLE: "no number of right videos gives this: not a single evaluation on the test list of this benchmark",
    COPIED: "a method or baseline of another work, under that work's protocol",
    MEAN_OFF: "not the mean of the numbers printed beside it",
}
CHOICE_LABELS = {
    "last": "last epoch (the result)",
    "source_val": "source-val selected",
    "oracle": "oracle selected (reads target test labels)",
}


# --- the paper's numbers
# -----------------------------------------------------------------------------------------
def mean_agrees(table: Table, row: Line) -> bool:
    """Whether the printed mean is that of the printed columns, to one decimal (either way of
    rounding a half).
    """
    values = [row.printed[c.name] for c in table.columns if c.name in row.printed]
    if table.mean not in row.printed or len(values) < len(table.columns):
        return True
    return abs(sum(values) / len(values) - row.printed[table.mean]) <= 0.05 + 1e-9


def flags_of(table: Table, row: Line, column: str) -> str:
    """The marks of a printed number, '' for none; computed from the number and the manifest, apart
    from `copied`.
    """
    if column not in row.printed:
        return ""
    videos = None if column == table.mean else printed_videos(table, column)
    marks = UNREACHABLE if videos and not reachable(row.printed[column], videos) else ""
    marks += COPIED if row.copied else ""
    return marks + (MEAN_OFF if column == table.mean and not mean_agrees(table, row) else "")


def printed(table: Table) -> pd.DataFrame:
    """The paper's numbers with their marks, rows x columns, '–' where it printed none."""
    return pd.DataFrame(
        {c: [_printed_text(table, r, c) for r in table.rows] for c in _columns(table)},
        index=[r.name for r in table.rows],
    )


def footnotes(table: Table) -> list[str]:
    """What the marks mean that this table uses."""
    used = "".join(flags_of(table, r, c) for r in table.rows for c in _columns(table))
    return [f"{mark} {text}" for mark, text in FLAGS.items() if mark in used]


def _printed_text(table: Table, row: Line, column: str) -> str:
    if column not in row.printed:
        return NOTHING
    marks = flags_of(table, row, column)
    return f"{row.printed[column]:.1f}{' ' + marks if marks else ''}"


def _columns(table: Table) -> list[str]:
    return [c.name for c in table.columns] + ([table.mean] if table.mean else [])


# --- ours
# --------------------------------------------------------------------------------------------------------
def values_of(
    table: Table, found: pd.DataFrame, row: str, column: str, measure: str = "fused"
) -> np.ndarray:
    """Accuracies of the finished runs of a cell, in the stream that the row reads.

    In the mean column: one value a seed and split, the mean over the columns, where all of them
    have finished.
    """
    line = table.row(row)
    own = found[found["row"] == row]
    if line.same_as:
        own = found[found["row"] == line.same_as]
    stream = line.measure or measure
    if own.empty or stream not in own:
        return np.empty(0)
    if column != table.mean:
        return own.loc[own["column"] == column, stream].dropna().to_numpy(dtype=float)
    wide = own.pivot_table(index=["seed", "split"], columns="column", values=stream)
    return (
        wide.dropna().mean(axis=1).to_numpy()
        if wide.shape[1] == len(table.columns)
        else np.empty(0)
    )


def mean_text(values: np.ndarray) -> str:
    """`mean ± sample s.d. (n)` in percent, 'not run' without values."""
    if not len(values):
        return NOT_RUN
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread} ({len(values)})"


def summary(table: Table, found: pd.DataFrame, measure: str = "fused") -> pd.DataFrame:
    """Rows x columns of `mean ± s.d. (n)` in percent; 'not run' where no cell has finished.

    Cells with a run on an incomplete copy of the data end in 'partial data'.
    """
    return pd.DataFrame(
        {c: [_ours(table, found, r, c, measure) for r in table.rows] for c in _columns(table)},
        index=[r.name for r in table.rows],
    )


def _ours(table: Table, found: pd.DataFrame, row: Line, column: str, measure: str) -> str:
    if not row.runs:
        return NOTHING
    text = mean_text(values_of(table, found, row.name, column, measure))
    return f"{text}, partial data" if _partial(table, found, row, column) else text


def _partial(table: Table, found: pd.DataFrame, row: Line, column: str) -> bool:
    """Whether a run behind the cell was made on an incomplete copy of the data."""
    own = found[found["row"] == (row.same_as or row.name)]
    own = own if column == table.mean else own[own["column"] == column]
    return bool("partial" in own and own["partial"].fillna("").ne("").any())


def selection(table: Table, found: pd.DataFrame) -> pd.DataFrame:
    """The result beside what two other choices of the epoch would have given (fused); for
    information only.

    All three columns of a row stand on the same runs, those that recorded the choices (EVAL_EVERY).
    Rows without such a run are left out; 'not recorded' where a row has no such choice.
    """
    chosen = (
        found.dropna(subset=[f"fused_{c}" for c in CHOICES], how="all")
        if has_selection(found)
        else found.iloc[:0]
    )
    rows = [
        row
        for row in table.rows
        if not row.measure and (chosen["row"] == (row.same_as or row.name)).any()
    ]
    grid = {}
    for column in table.columns:
        for choice, label in CHOICE_LABELS.items():
            stream = "fused" if choice == "last" else f"fused_{choice}"
            grid[column.name, label] = [
                _choice_text(chosen, row, column.name, stream) for row in rows
            ]
    return pd.DataFrame(grid, index=[r.name for r in rows])


def _choice_text(chosen: pd.DataFrame, row: Line, column: str, stream: str) -> str:
    own = chosen[(chosen["row"] == (row.same_as or row.name)) & (chosen["column"] == column)]
    known = own[stream].dropna() if stream in own else own.index[:0]
    return mean_text(known.to_numpy()) if len(known) else "not recorded"


def has_selection(found: pd.DataFrame) -> bool:
    """Whether any finished run recorded another choice of its epoch."""
    return any(f"fused_{c}" in found and found[f"fused_{c}"].notna().any() for c in CHOICES)


# --- both
# --------------------------------------------------------------------------------------------------------
def tidy(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = "fused"
) -> pd.DataFrame:
    """One line a cell, in numbers: what the paper printed, ours, the gap, both gains over the row's
    reference.

    A row that reads one stream gains over that stream of its reference; the paper prints no such
    gain.
    """
    out = []
    for column in _columns(table):
        for row in table.rows:
            values, paper = (
                values_of(table, found, row.name, column, measure),
                row.printed.get(column, math.nan),
            )
            against = table.against_of(row)
            theirs = (
                table.row(against).printed.get(column, math.nan)
                if against and not row.measure
                else math.nan
            )
            gain = (
                difference(
                    table,
                    found,
                    lines,
                    row.name,
                    against,
                    None if column == table.mean else column,
                    row.measure or measure,
                )
                if against and row.runs and len(values)
                else None
            )
            ours = float(values.mean()) if len(values) else math.nan
            out.append(
                {
                    "row": row.name,
                    "column": column,
                    "paper": paper,
                    "marks": flags_of(table, row, column),
                    "ours": ours,
                    "sd": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
                    "runs": len(values),
                    "gap": ours - paper,
                    "against": against,
                    "paper_gain": paper - theirs,
                    **{k: getattr(gain, k) if gain else math.nan for k in ("mean", "low", "high")},
                    "pairs": gain.n if gain else 0,
                    "splits": gain.splits if gain else 0,
                    "starred": starred(gain),
                    "partial": _partial(table, found, row, column),
                }
            )
    return pd.DataFrame(out).rename(columns={"mean": "gain"})


def side_by_side(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = "fused"
) -> pd.DataFrame:
    """Paper, ours, gap, and both gains over the reference row, for every column, as text."""
    numbers = tidy(table, found, lines, measure).set_index(["column", "row"])
    grid: dict[tuple[str, str], list[str]] = {}
    for column in _columns(table):
        part = [(row, numbers.loc[(column, row.name)]) for row in table.rows]
        grid[column, "paper"] = [_printed_text(table, row, column) for row, _ in part]
        grid[column, "ours"] = [_ours(table, found, row, column, measure) for row, _ in part]
        grid[column, "gap"] = [signed(x["gap"]) for _, x in part]
        grid[column, "paper's gain"] = [signed(x["paper_gain"]) for _, x in part]
        grid[column, "our gain"] = [_gain_text(table, row, x) for row, x in part]
    return pd.DataFrame(grid, index=[r.name for r in table.rows])


def _gain_text(table: Table, row: Line, x: pd.Series) -> str:
    if not table.against_of(row) or not row.runs:
        return NOTHING
    known = not math.isnan(x["gain"])
    return interval_text(
        Interval(x["gain"], x["low"], x["high"], int(x["pairs"]), int(x["splits"]))
        if known
        else None
    )


def marked(table: Table) -> pd.DataFrame:
    """The table's printed numbers that no number of right videos gives, with the accuracies on both
    sides of them.
    """
    out = []
    for row in table.rows:
        for column in (
            c.name for c in table.columns if UNREACHABLE in flags_of(table, row, c.name)
        ):
            videos = printed_videos(table, column)
            low, high = nearest_reachable(row.printed[column], videos)
            out.append(
                {
                    "table": table.name,
                    "row": row.name,
                    "column": column,
                    "printed": row.printed[column],
                    "videos": videos,
                    "below": round(low, 2),
                    "above": round(high, 2),
                    "of another work": "yes" if row.copied else "",
                }
            )
    return pd.DataFrame(out)
