"""The blocks of README.md that nobody types: `python -m nbkit.readme`.

`<!-- results:NAME -->` ... `<!-- end -->` holds a table of tables/ (or tables/localization/) from
its committed results; `<!-- notebooks -->` the notebooks, and `<!-- tables -->` all tables with the
number of their committed cells. `python -m nbkit.readme --times runs/notebooks` first writes
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
from nbkit.tables import localization_tables, report
from nbkit.tables import results as result_files
from nbkit.tables import table as tables

README = ROOT / "README.md"
MINUTES = ROOT / "results" / "notebook_minutes.csv"
BLOCK = re.compile(r"(<!-- (results:(\w+)|notebooks|tables) -->\n).*?(<!-- end -->)", re.S)


def markdown(grid: pd.DataFrame, corner: str) -> str:
    """A frame of texts as a Markdown table; `corner` heads the index."""
    lines = [[corner, *map(str, grid.columns)], ["---"] * (len(grid.columns) + 1)]
    lines += [[str(name), *map(str, values)] for name, values in zip(grid.index, grid.to_numpy())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- results
# -----------------------------------------------------------------------------------------------------
def results_block(name: str) -> str:
    """The table `name`: the paper's numbers, where it printed any, beside ours."""
    if name in localization_tables.localization_tables():
        return _localization(name)
    table = tables.load_table(name)
    grid = _beside(report.printed(table), report.summary(table, result_files.committed(name)))
    return _captioned(
        table.title, "accuracy in %, the streams of a row fused", markdown(grid, "row"), name
    )


def _localization(name: str) -> str:
    table = localization_tables.load_localization_table(name)
    found, means = localization_tables.committed(table), list(localization_tables.MEANS)
    texts = []
    for direction in table.directions:
        ours = localization_tables.summary(table, found, direction, means)
        grid = _beside(localization_tables.printed(table)[list(ours.columns)], ours)
        texts.append(f"{'→'.join(direction)}\n\n{markdown(grid, 'row')}")
    return _captioned(
        table.title, "average precision in %, boxes at IoU 0.5", "\n\n".join(texts), name
    )


def _beside(paper: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Columns 'A, paper' and 'A' in turn; the paper's are left out where it printed nothing at all."""
    if (paper == report.NOTHING).all(axis=None):
        return ours
    return pd.DataFrame(
        {
            f"{c}{kind}": frame[c]
            for c in ours.columns
            for kind, frame in ((", paper", paper), (", ours", ours))
        }
    )


def _captioned(title: str, unit: str, body: str, name: str) -> str:
    return f"**{title}.** Ours: {unit}, mean ± s.d. (runs).\n\n{body}\n\n`results/{name}.csv`"


def _share(texts: pd.DataFrame) -> str:
    """How many of a summary's cells hold a result."""
    cells = [t for t in texts.to_numpy().ravel() if t != report.NOTHING]
    return f"{sum(t != report.NOT_RUN for t in cells)} of {len(cells)}"


def tables_block() -> str:
    """Every table: what it is, how many cells have a committed result, and its command."""
    lines = {}
    for name in sorted(p.stem for p in (ROOT / "tables").glob("*.yaml")):
        table = tables.load_table(name)
        done = _share(report.summary(table, result_files.committed(name)))
        lines[f"`{name}`"] = [table.title, done, f"`.venv/bin/snakemake --cores 2 {name}`"]
    for name in localization_tables.localization_tables():
        table = localization_tables.load_localization_table(name)
        found = localization_tables.committed(table)
        grids = [
            localization_tables.summary(table, found, d, [localization_tables.MEANS[0]])
            for d in table.directions
        ]
        lines[f"`{name}`"] = [
            table.title,
            _share(pd.concat(grids)),
            f"`.venv/bin/snakemake --cores 2 {name}`",
        ]
    return markdown(
        pd.DataFrame(lines, index=["what it holds", "cells with a result", "run it"]).T, "table"
    )


# --- notebooks
# ---------------------------------------------------------------------------------------------------
def goal(notebook: nbformat.NotebookNode) -> str:
    """The sentence after **Goal.** in a notebook's first cells."""
    text = "\n".join(c.source for c in notebook.cells[:3] if c.cell_type == "markdown")
    found = re.search(r"\*\*Goal\.\*\*\s+(.+?)(?=\n\s*>?\s*\n|\Z)", text, re.S)
    return " ".join(found[1].replace("\n>", "\n").split()) if found else ""


def notebooks_block() -> str:
    """What each notebook is for and, where they have been measured, its minutes."""
    measured = pd.read_csv(MINUTES).set_index("notebook") if MINUTES.exists() else pd.DataFrame()
    lines = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        lines[f"[{path.stem}](notebooks/{path.name})"] = [goal(nbformat.read(path, as_version=4))]
        if len(measured):
            known = path.stem in measured.index
            lines[f"[{path.stem}](notebooks/{path.name})"] += [
                f"{measured.loc[path.stem, 'minutes']:.1f}" if known else "–"
            ]
    columns = ["what it is for"] + (["minutes, demo profile"] if len(measured) else [])
    return markdown(pd.DataFrame(lines, index=columns).T, "notebook")


def measure(folder: Path) -> None:
    """Write results/notebook_minutes.csv from the durations that papermill left in executed
    notebooks.

    Raises NbkitError when `folder` holds none.
    """
    lines = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        seconds = nbformat.read(path, as_version=4).metadata.get("papermill", {})
        if seconds.get("duration") and not seconds.get("exception"):
            lines.append(
                {
                    "notebook": path.stem,
                    "minutes": round(seconds["duration"] / 60, 2),
                    "ended": seconds["end_time"],
                }
            )
    if not lines:
        raise NbkitError(f"{folder}: no notebook executed by papermill here; run `make demo` first")
    atomically(MINUTES, lambda p: pd.DataFrame(lines).to_csv(p, index=False))


# --- the file
# ----------------------------------------------------------------------------------------------------
def filled(text: str) -> str:
    """`text` with every block made anew; what stands between blocks is kept."""

    def block(found: re.Match) -> str:
        made = {"notebooks": notebooks_block, "tables": tables_block}.get(found[2]) or (
            lambda: results_block(found[3])
        )
        return f"{found[1]}{made()}\n{found[4]}"

    return BLOCK.sub(block, text)


def update() -> None:
    """Write README.md anew."""
    text = filled(README.read_text())
    atomically(README, lambda p: p.write_text(text))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--times"]:
        measure(Path(sys.argv[2]))
    update()
