"""Tables to look at: the paper's numbers beside ours, gaps, gains, and files of them.

`found` are lines of `nbkit.tables.results`, `lines` those of `committed_right_wrong`; `measure` is
what rows without a stream of their own are read in, '' for the table's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.evaluate.statistics import Interval, grim_neighbours, grim_test
from nbkit.files import atomically
from nbkit.tables.gains import NOT_RUN, NOTHING, difference, interval_text, signed, starred
from nbkit.tables.results import committed
from nbkit.tables.right_wrong import committed_right_wrong
from nbkit.tables.table import Line, Table, heading, load_table, printed_videos

UNREACHABLE, COPIED = "†", "‡"
FLAGS = {
    UNREACHABLE: "no number of right videos gives this: not a single evaluation on the test list "
    "of this benchmark",
    COPIED: "a method or baseline of another work, under that work's protocol",
}


def _grid(table: Table, names: Sequence[str], text: Callable[[Line, str], str]) -> pd.DataFrame:
    columns = {name: [text(row, name) for row in table.rows] for name in names}
    return pd.DataFrame(columns, index=[row.name for row in table.rows])


# --- the paper's numbers -------------------------------------------------------------------------
def paper_heading(table: Table, column: str) -> str:
    """The heading of the paper's numbers beside `column`: a twin's are of another pair of domains,
    and say of which.
    """
    pair = {own.name: own.printed_as for own in table.columns}.get(column)
    return f"paper, {pair}" if pair else "paper"


def flags_of(table: Table, row: Line, column: str) -> str:
    """The marks of a printed accuracy, '' for none; computed, apart from `copied`."""
    if table.task != "recognition" or column not in row.printed:
        return ""
    marks = COPIED if row.copied else ""
    if column != table.mean:
        videos = printed_videos(table, column)
        if videos and not grim_test(row.number(column), videos):
            marks = UNREACHABLE + marks
    return marks


def printed(table: Table, measure: str = "") -> pd.DataFrame:
    """The paper's numbers with their marks, rows x columns, '–' where it printed none."""
    measure = measure or table.measures[0]
    return _grid(table, table.all_columns, lambda r, c: _printed_text(table, r, c, measure))


def printed_by_measure(table: Table, column: str) -> pd.DataFrame:
    """The paper's numbers of one column, rows x measures."""
    names = table.printed_measures
    grid = _grid(table, names, lambda row, name: _printed_text(table, row, column, name))
    return grid.rename(columns=heading)


def _printed_text(table: Table, row: Line, column: str, measure: str) -> str:
    value = row.number(column, measure)
    if math.isnan(value):
        return NOTHING
    return f"{value:.1f} {flags_of(table, row, column)}".rstrip()


def footnotes(table: Table) -> list[str]:
    """What the marks mean that this table uses."""
    used = "".join(flags_of(table, row, name) for row in table.rows for name in table.all_columns)
    return [f"{mark} {text}" for mark, text in FLAGS.items() if mark in used]


def marked(table: Table) -> pd.DataFrame:
    """The printed numbers that no number of right videos gives, with the accuracies beside them."""
    out = []
    for row, column in product(table.rows, table.column_names):
        if UNREACHABLE in flags_of(table, row, column):
            number, videos = row.number(column), printed_videos(table, column)
            low, high = grim_neighbours(number, videos)
            line = {"table": table.name, "row": row.name, "column": column, "printed": number}
            line |= {"videos": videos, "below": round(low, 2), "above": round(high, 2)}
            out.append({**line, "of another work": row.copied})
    return pd.DataFrame(out)


# --- ours ----------------------------------------------------------------------------------------
def values_of(
    table: Table, found: pd.DataFrame, row: str, column: str, measure: str = ""
) -> np.ndarray:
    """Results of the finished runs of a cell, in the stream that the row reads.

    In the mean column: one value per seed and split, the mean over the columns, where all of them
    have finished.
    """
    own = table.runs_of(found, row, column, measure)
    if column != table.mean:
        return own["value"].to_numpy(dtype=float)
    wide = own.pivot_table(index=["seed", "split"], columns="column", values="value")
    return wide.reindex(columns=table.column_names).dropna().mean(axis=1).to_numpy()


def _mean_sd(values: np.ndarray) -> tuple[float, float]:
    """Mean and sample standard deviation, NaN for no value, or for one."""
    series = pd.Series(values, dtype=float)
    return series.mean(), series.std()


def summary(table: Table, found: pd.DataFrame, measure: str = "") -> pd.DataFrame:
    """Rows x columns of `mean ± sample s.d. (n)` in percent; 'not run' where no cell has finished.

    Cells with a run on an incomplete copy of the data end in 'partial data'.
    """
    return _grid(table, table.all_columns, lambda r, c: _ours(table, found, r, c, measure))


def by_measure(
    table: Table, found: pd.DataFrame, column: str, measures: Sequence[str] = ()
) -> pd.DataFrame:
    """Rows x measures of `mean ± s.d. (n)` in one column; the paper's measures when not named."""
    names = measures or table.printed_measures
    grid = _grid(table, names, lambda row, name: _ours(table, found, row, column, name))
    return grid.rename(columns=heading)


def _ours(table: Table, found: pd.DataFrame, row: Line, column: str, measure: str) -> str:
    if not row.runs:
        return NOTHING
    values = values_of(table, found, row.name, column, measure)
    mean, sd = _mean_sd(values)
    if len(values) == 0:
        text = NOT_RUN
    elif len(values) == 1:
        text = f"{mean:.1f} (1)"
    else:
        text = f"{mean:.1f} ± {sd:.1f} ({len(values)})"
    if _partial(table, found, row, column):
        text += ", partial data"
    return text


def _partial(table: Table, found: pd.DataFrame, row: Line, column: str) -> bool:
    if "partial" not in found:
        return False
    return table.runs_of(found, row.name, column)["partial"].fillna("").ne("").any()


# --- both ----------------------------------------------------------------------------------------
def tidy(table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = "") -> pd.DataFrame:
    """One line per cell, in numbers: the paper's, ours, the gap, gains over the row's reference.

    A twin has no gap, because the paper's numbers beside it are of other data.  A row that reads
    one stream gains over that stream of its reference; the paper prints no such gain.
    """
    measure = measure or table.measures[0]
    cells = product(table.all_columns, table.rows)
    return pd.DataFrame([_entry(table, found, lines, row, at, measure) for at, row in cells])


def _entry(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, row: Line, column: str, measure: str
) -> dict[str, Any]:
    values = values_of(table, found, row.name, column, measure)
    ours, sd = _mean_sd(values)
    paper, theirs = row.number(column, measure), math.nan
    against, gain, text = table.against_of(row), None, NOTHING
    if against and not row.measure:
        theirs = table.row(against).number(column, measure)
    if against and row.runs:
        if len(values):
            stream = row.measure or measure
            gain = difference(table, found, lines, row.name, against, column, stream)
        text = interval_text(gain)
    shown = gain or Interval(math.nan, math.nan, math.nan, 0)
    return {
        "row": row.name,
        "column": column,
        "paper": paper,
        "of": paper_heading(table, column).removeprefix("paper, ") if table.twin_of else column,
        "marks": flags_of(table, row, column),
        "ours": ours,
        "sd": sd,
        "runs": len(values),
        "gap": math.nan if table.twin_of else ours - paper,
        "against": against,
        "paper_gain": paper - theirs,
        "gain": shown.mean,
        "low": shown.low,
        "high": shown.high,
        "pairs": shown.n,
        "splits": shown.splits,
        "starred": starred(gain),
        "gain_text": text,
        "partial": _partial(table, found, row, column),
    }


def side_by_side(
    table: Table, found: pd.DataFrame, lines: pd.DataFrame, measure: str = ""
) -> pd.DataFrame:
    """Paper, ours, gap, and both gains over the reference row, for every column, as text.

    Columns in which nothing stands are left out.
    """
    numbers = tidy(table, found, lines, measure)
    paper, ours = printed(table, measure), summary(table, found, measure)
    grid = {}
    for column in table.all_columns:
        part = numbers[numbers["column"] == column].set_index("row")
        grid[column, paper_heading(table, column)] = paper[column]
        grid[column, "ours"] = ours[column]
        grid[column, "gap"] = part["gap"].map(signed)
        grid[column, "paper's gain"] = part["paper_gain"].map(signed)
        grid[column, "our gain"] = part["gain_text"]
    wide = pd.DataFrame(grid)
    return wide.loc[:, (wide != NOTHING).any()]


# --- files ---------------------------------------------------------------------------------------
FORMATS = ("md", "tex", "csv")
# What plain LaTeX has no letter for; the rest of escaping is pandas' business.
LATEX = {"±": r"$\pm$", "−": "$-$", "→": r"$\rightarrow$", "α": r"$\alpha$", "β": r"$\beta$"}
LATEX |= {"†": r"$^\dagger$", "‡": r"$^\ddagger$", "–": "--"}
READING = (
    "In %. ours: mean ± sample s.d. (runs), last epoch. gap: ours − paper. gain: over the row's "
    "reference; [95 % interval of a paired bootstrap over runs and, where they are right or wrong, "
    "test videos] (paired runs), * where it holds no zero and there are five pairs per direction "
    "or more (with several splits: five splits)."
)


def export_formatted(
    name: str, formats: Sequence[str] = FORMATS, folder: str | Path | None = None
) -> list[Path]:
    """Write `results/formatted/<table>.<format>` from the committed results.

    Raises NbkitError for an unknown table or format.
    """
    table, paths = load_table(name), []
    given = (table, committed(name), committed_right_wrong(name))
    notes = [" ".join(table.note.split()), READING, *(f"{note}." for note in footnotes(table))]
    for kind in formats:
        if kind == "csv":
            text = tidy(*given).drop(columns="gain_text").round(3).to_csv(index=False)
        elif kind == "tex":
            text = _latex(table, side_by_side(*given), notes)
        elif kind == "md":
            wide = side_by_side(*given)
            parts = [f"# {table.title}"]
            for column in table.all_columns:
                parts += [f"**{column}**", wide[column].to_markdown(disable_numparse=True)]
            text = "\n\n".join([*parts, *notes]) + "\n"
        else:
            raise NbkitError(f"format {kind}: choose among {', '.join(FORMATS)}")
        paths.append(Path(folder or ROOT / "results" / "formatted") / f"{name}.{kind}")
        atomically(paths[-1], lambda part, text=text: part.write_text(text))
    return paths


def _latex(table: Table, wide: pd.DataFrame, notes: list[str]) -> str:
    r"""A table for `\usepackage{booktabs}`."""
    caption = " ".join([f"{table.title}.", *notes])
    for character in "&%_":
        caption = caption.replace(character, f"\\{character}")
    text = wide.to_latex(escape=True, caption=caption, label=f"tab:{table.name}")
    for character, code in LATEX.items():
        text = text.replace(character, code)
    return text
