"""Write the blocks of docs/RESULTS.md that nobody types: `python -m tools.results_page`.

`<!-- results:NAME -->` ... `<!-- end -->` holds a table of tables/ from its committed results, and
`<!-- tables -->` all tables with the number of their committed cells.  The README has one of these
blocks too; `tools/readme.py` fills it with the functions of this file.
"""

from __future__ import annotations

import re

import pandas as pd

from nbkit.config import ROOT
from nbkit.files import atomically
from nbkit.tables import report
from nbkit.tables import results as result_files
from nbkit.tables.gains import NOT_RUN, NOTHING
from nbkit.tables.table import Table, load_table, table_names

PAGE = ROOT / "docs" / "RESULTS.md"
BLOCK = re.compile(r"(<!-- (?:results:(\w+)|tables) -->\n).*?(<!-- end -->)", re.S)


def markdown(grid: pd.DataFrame, corner: str) -> str:
    """A frame of texts as a Markdown table; `corner` heads the index."""
    lines = [[corner, *map(str, grid.columns)], ["---"] * (len(grid.columns) + 1)]
    lines += [[str(name), *map(str, values)] for name, values in zip(grid.index, grid.to_numpy())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def results_block(name: str) -> str:
    """The table `name`: the paper's numbers, where it printed any, beside ours."""
    table, found = load_table(name), result_files.committed(name)
    if table.task == "recognition":
        unit = "accuracy in %, the streams of a row fused"
        body = markdown(_beside(table, report.printed(table), report.summary(table, found)), "row")
    else:
        unit = "average precision in %, boxes at IoU 0.5"
        body = "\n\n".join(_localization(table, found, column) for column in table.column_names)
    head = f"**{table.title}.** Ours: {unit}, mean ± s.d. (runs)."
    return f"{head}\n\n{body}\n\n`results/{name}.csv`. {provenance(found)}"


def provenance(found: pd.DataFrame) -> str:
    """Where committed lines come from: runs, commits, machines, days; 'No run.' without lines."""
    if "commit" not in found or found.empty:
        return "No run."
    once = found.drop_duplicates("run")
    commits = once["commit"].astype(str)
    days = pd.to_datetime(once["finished"]).dt.strftime("%Y-%m-%d")
    text = f"{len(once)} runs of commits {', '.join(sorted(set(commits)))}"
    dirty = int(commits.str.endswith("+").sum())
    if dirty:
        text += f" ({dirty} of them with `+`)"
    devices, torch = sorted(set(once["device"])), sorted(set(once["torch"].astype(str)))
    hours = once["train_seconds"].sum() / 3600
    text += f"; {'; '.join(devices)}; torch {', '.join(torch)}; {hours:.1f} hours of training"
    return f"{text}; {min(days)} to {max(days)}."


def _localization(table: Table, found: pd.DataFrame, column: str) -> str:
    """The AP of every class and both means, in one column of the table."""
    ours = report.by_measure(table, found, column)
    paper = report.printed_by_measure(table, column)
    return f"{column}\n\n{markdown(_beside(table, paper, ours), 'row')}"


def _beside(table: Table, paper: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """The paper's columns under the paper's pair of domains, and ours, in turn.

    Ours alone where the paper printed nothing.
    """
    if (paper == NOTHING).all(axis=None):
        return ours
    both = {}
    for name in ours.columns:
        head = report.paper_heading(table, name)
        both[head if "," in head else f"{head}, {name}"] = paper[name]
        both[f"ours, {name}"] = ours[name]
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


def filled(text: str) -> str:
    """`text` with every block made anew; what stands between blocks is kept."""

    def block(found: re.Match) -> str:
        made = results_block(found[2]) if found[2] else tables_block()
        return f"{found[1]}{made}\n{found[3]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    written = filled(PAGE.read_text())
    atomically(PAGE, lambda part: part.write_text(written))
