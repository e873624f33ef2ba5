"""Write the blocks of README.md that nobody types: `python -m tools.readme`.

`<!-- notebooks -->` ... `<!-- end -->` holds the path through the notebooks, and
`<!-- results:NAME -->` a table from its committed results.  `python -m tools.readme --times
runs/notebooks` first writes results/notebook_minutes.csv from what papermill recorded there.
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
from nbkit.tables.gains import NOTHING
from tools import results_page
from tools.results_page import markdown

README = ROOT / "README.md"
MINUTES = ROOT / "results" / "notebook_minutes.csv"
BLOCK = re.compile(r"(<!-- notebooks -->\n).*?(<!-- end -->)", re.S)


# --- notebooks -----------------------------------------------------------------------------------
# the order to read in: localization last, because it is a course of its own
ORDER = ("00", "01", "02", "03", "04", "06", "07", "08", "05")


def header(notebook: nbformat.NotebookNode, name: str) -> str:
    """The text after **name.** in a notebook's first cells, "" where there is none."""
    text = "\n".join(c.source for c in notebook.cells[:3] if c.cell_type == "markdown")
    found = re.search(rf"\*\*{name}\.?\*\*\s+(.+?)(?=\n\s*>?\s*\n|\Z)", text, re.S)
    return " ".join(found[1].replace("\n>", "\n").split()) if found else ""


def equations(notebook: nbformat.NotebookNode) -> str:
    """The numbers of the published equations that stand in it: '1-4'."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    numbers = sorted({int(n) for n in re.findall(r"\\tag\{(\d+)\}", text)})
    if not numbers:
        return NOTHING
    return f"{numbers[0]}–{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def hours(notebook: nbformat.NotebookNode) -> str:
    """A student's hours as the notebook's head estimates them."""
    found = re.search(r"student: about (\d+) hours?", header(notebook, "Time"))
    return found[1] if found else NOTHING


def notebooks_block() -> str:
    """The path: question, equations, a student's hours, and measured minutes of the machine."""
    minutes = {}
    if MINUTES.exists():
        minutes = pd.read_csv(MINUTES).set_index("notebook")["minutes"].to_dict()
    paths = (ROOT / "notebooks").glob("[0-9]*.ipynb")
    lines = {}
    for path in sorted(paths, key=lambda path: ORDER.index(path.name[:2])):
        notebook = nbformat.read(path, as_version=4)
        question = header(notebook, "Question") or header(notebook, "Goal")
        spent = f"{minutes[path.stem]:.1f}" if path.stem in minutes else NOTHING
        line = [question, equations(notebook), hours(notebook), spent]
        lines[f"[{path.stem}](notebooks/{path.name})"] = line
    heads = ["question", "equations", "hours", "minutes"]
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
    path = BLOCK.sub(lambda found: f"{found[1]}{notebooks_block()}\n{found[2]}", text)
    return results_page.filled(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--times"]:
        measure(Path(sys.argv[2]))
    written = filled(README.read_text())
    atomically(README, lambda part: part.write_text(written))
