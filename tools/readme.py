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
    path = BLOCK.sub(lambda found: f"{found[1]}{notebooks_block()}\n{found[2]}", text)
    return results_page.filled(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--times"]:
        measure(Path(sys.argv[2]))
    written = filled(README.read_text())
    atomically(README, lambda part: part.write_text(written))
