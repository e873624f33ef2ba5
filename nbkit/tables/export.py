"""A table as a file for a paper or a page: Markdown, LaTeX (booktabs) and CSV, from the committed
results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.files import atomically
from nbkit.tables.report import NOTHING, footnotes, has_selection, selection, side_by_side, tidy
from nbkit.tables.results import committed
from nbkit.tables.right_wrong import committed_right_wrong
from nbkit.tables.table import Table, load_table

FORMATS = ("md", "tex", "csv")
# What plain LaTeX has no letter for; everything else that needs escaping is pandas' business.
LATEX = {
    "±": r"$\pm$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "–": "--",
}
READ = "Accuracy in %. ours: mean ± sample s.d. (runs), last epoch."
READ_GAP = "gap: ours − paper."
READ_GAIN = (
    "gain: over the row's source-only row; [95 % interval of a paired bootstrap over runs and test videos] (paired runs), "
    "* where it holds no zero and there are five pairs or more (with several splits: five splits)."
)


def to_markdown(table: Table, found: pd.DataFrame, lines: pd.DataFrame) -> str:
    """A heading, one pipe table a column of the table, and the footnotes."""
    wide = side_by_side(table, found, lines)
    parts = [f"# {table.title}", " ".join(table.note.split()), *_pipe_tables(wide)]
    if has_selection(found):
        parts += [
            "## If the epoch were chosen (for information only)",
            *_pipe_tables(selection(table, found)),
        ]
    reading = " ".join([READ, READ_GAP, READ_GAIN])
    return (
        "\n\n".join([p for p in parts if p] + [reading] + [f"{note}." for note in footnotes(table)])
        + "\n"
    )


def _pipe_tables(wide: pd.DataFrame) -> list[str]:
    return [
        f"**{column}**\n\n" + wide[column].to_markdown(disable_numparse=True)
        for column in wide.columns.get_level_values(0).unique()
    ]


def to_latex(table: Table, found: pd.DataFrame, lines: pd.DataFrame) -> str:
    r"""A `table*` with the rules of `\usepackage{booktabs}`: for each column the paper's number,
    ours, and our gain.

    Tables of more than two columns leave the gains to the other formats, for want of width.  Empty
    columns are left out.
    """
    wide = side_by_side(table, found, lines)
    kinds = ("paper", "ours", "our gain") if len(table.columns) <= 2 else ("paper", "ours")
    shown = wide.loc[
        :,
        [
            c
            for c in wide.columns
            if c[1] in kinds and (c[1] == "ours" or (wide[c] != NOTHING).any())
        ],
    ]
    reading = [READ] + [READ_GAIN] * any(c[1] == "our gain" for c in shown)
    caption = " ".join(
        [
            f"{table.title}.",
            *table.note.split(),
            *reading,
            *(f"{note}." for note in footnotes(table)),
        ]
    )
    text = shown.to_latex(
        escape=True,
        multicolumn_format="c",
        caption=_escaped(caption),
        label=f"tab:{table.name}",
        position="t",
        column_format="l" + "r" * shown.shape[1],
    ).replace("{table}", "{table*}")
    for character, code in LATEX.items():
        text = text.replace(character, code)
    return text


def _escaped(text: str) -> str:
    return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_")


def to_csv(table: Table, found: pd.DataFrame, lines: pd.DataFrame) -> str:
    """One line a cell with plain numbers, empty where there is none; the columns are those of
    nbkit.tables.report.tidy.
    """
    return tidy(table, found, lines).round(3).to_csv(index=False)


WRITERS = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


def export_formatted(
    name: str, formats: Sequence[str] = FORMATS, folder: str | Path | None = None
) -> list[Path]:
    """Write `results/formatted/<table>.<format>` from the committed results; a cell without any
    says 'not run'.

    Raises NbkitError for an unknown table or format.
    """
    unknown = [f for f in formats if f not in WRITERS]
    if unknown:
        raise NbkitError(f"format {', '.join(unknown)}: choose among {', '.join(FORMATS)}")
    table, found, lines = load_table(name), committed(name), committed_right_wrong(name)
    paths = [Path(folder or ROOT / "results" / "formatted") / f"{name}.{kind}" for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        text = WRITERS[kind](table, found, lines)
        atomically(path, lambda p, text=text: p.write_text(text))
    return paths
