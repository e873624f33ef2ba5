"""Write the blocks of README.md that nobody types: `python tools/readme.py`.

`<!-- results:NAME -->` ... `<!-- end -->` holds a table of tables/ from its committed results,
`<!-- notebooks -->` the notebooks, and `<!-- tables -->` all tables with the number of their
committed cells.  `python tools/readme.py --times runs/notebooks` first writes
results/notebook_minutes.csv from what papermill recorded there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
import pandas as pd

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.files import atomically
from nbkit.tables import report
from nbkit.tables import results as result_files
from nbkit.tables.gains import NOT_RUN, NOTHING
from nbkit.tables.table import MEAN_PRECISIONS, Table, heading, load_table, table_names

README = ROOT / "README.md"
MINUTES = ROOT / "results" / "notebook_minutes.csv"
BLOCK = re.compile(r"(<!-- (results:(\w+)|notebooks|tables) -->\n).*?(<!-- end -->)", re.S)


def markdown(grid: pd.DataFrame, corner: str) -> str:
    """A frame of texts as a Markdown table; `corner` heads the index."""
    lines = [[corner, *map(str, grid.columns)], ["---"] * (len(grid.columns) + 1)]
    lines += [[str(name), *map(str, values)] for name, values in zip(grid.index, grid.to_numpy())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- results -------------------------------------------------------------------------------------
def results_block(name: str) -> str:
    """The table `name`: the paper's numbers, where it printed any, beside ours."""
    table, found = load_table(name), result_files.committed(name)
    if table.task == "recognition":
        unit = "accuracy in %, the streams of a row fused"
        body = markdown(_beside(report.printed(table), report.summary(table, found)), "row")
    else:
        unit = "average precision in %, boxes at IoU 0.5"
        body = "\n\n".join(_localization(table, found, column) for column in table.column_names)
    head = f"**{table.title}.** Ours: {unit}, mean ± s.d. (runs)."
    return f"{head}\n\n{body}\n\n`results/{name}.csv`"


def _localization(table: Table, found: pd.DataFrame, column: str) -> str:
    ours = report.by_measure(table, found, column, MEAN_PRECISIONS)
    paper = report.printed_by_measure(table, column)[list(map(heading, MEAN_PRECISIONS))]
    return f"{column}\n\n{markdown(_beside(paper, ours), 'row')}"


def _beside(paper: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Columns 'A, paper' and 'A, ours' in turn; ours alone where the paper printed nothing."""
    if (paper == NOTHING).all(axis=None):
        return ours
    both = {}
    for name in ours.columns:
        both[f"{name}, paper"] = paper[name]
        both[f"{name}, ours"] = ours[name]
    return pd.DataFrame(both)


def tables_block() -> str:
    """Every table: what it is, how many cells have a committed result, and its command."""
    lines = {}
    for name in sorted(table_names(), key=lambda name: load_table(name).task != "recognition"):
        table = load_table(name)
        texts = report.summary(table, result_files.committed(name)).to_numpy().ravel()
        cells = [text for text in texts if text != NOTHING]
        done = sum(text != NOT_RUN for text in cells)
        command = f"`.venv/bin/snakemake --cores 2 {name}`"
        lines[f"`{name}`"] = [table.title, f"{done} of {len(cells)}", command]
    heads = ["what it holds", "cells with a result", "run it"]
    return markdown(pd.DataFrame(lines, index=heads).T, "table")


# --- notebooks -----------------------------------------------------------------------------------
def goal(notebook: nbformat.NotebookNode) -> str:
    """The sentence after **Goal.** in a notebook's first cells."""
    text = "\n".join(c.source for c in notebook.cells[:3] if c.cell_type == "markdown")
    found = re.search(r"\*\*Goal\.\*\*\s+(.+?)(?=\n\s*>?\s*\n|\Z)", text, re.S)
    return " ".join(found[1].replace("\n>", "\n").split()) if found else ""


def notebooks_block() -> str:
    """What each notebook is for and, where they have been measured, its minutes."""
    minutes = {}
    if MINUTES.exists():
        minutes = pd.read_csv(MINUTES).set_index("notebook")["minutes"].to_dict()
    lines = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        line = [goal(nbformat.read(path, as_version=4))]
        if minutes:
            known = path.stem in minutes
            line.append(f"{minutes[path.stem]:.1f}" if known else NOTHING)
        lines[f"[{path.stem}](notebooks/{path.name})"] = line
    heads = ["what it is for", "minutes, demo profile"][: 2 if minutes else 1]
    return markdown(pd.DataFrame(lines, index=heads).T, "notebook")


def measure(folder: Path) -> None:
    """Write results/notebook_minutes.csv from the durations that papermill left in notebooks.

    Raises NbkitError when `folder` holds none.
    """
    lines = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        ran = nbformat.read(path, as_version=4).metadata.get("papermill", {})
        if ran.get("duration") and not ran.get("exception"):
            minutes = round(ran["duration"] / 60, 2)
            lines.append({"notebook": path.stem, "minutes": minutes, "ended": ran["end_time"]})
    if not lines:
        raise NbkitError(f"{folder}: no notebook executed by papermill here; run `make demo` first")
    atomically(MINUTES, lambda part: pd.DataFrame(lines).to_csv(part, index=False))


# --- the file ------------------------------------------------------------------------------------
def filled(text: str) -> str:
    """`text` with every block made anew; what stands between blocks is kept."""

    def block(found: re.Match) -> str:
        if found[2] == "notebooks":
            made = notebooks_block()
        elif found[2] == "tables":
            made = tables_block()
        else:
            made = results_block(found[3])
        return f"{found[1]}{made}\n{found[4]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--times"]:
        measure(Path(sys.argv[2]))
    written = filled(README.read_text())
    atomically(README, lambda part: part.write_text(written))
