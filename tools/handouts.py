"""Write the notebooks without solutions and without outputs, for a class.

python tools/handouts.py [FOLDER]     into FOLDER, by default runs/handouts

The hand-outs are made from the committed notebooks each time, so they cannot be out of date.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat

from nbkit.config import ROOT
from nbkit.files import atomically

SOLUTION = re.compile(
    r"<details>\s*<summary>\s*(?:Solutions?|Answers?)\s*</summary>.*?</details>\n*", re.S | re.I
)


def handout(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without folded solutions, outputs and cells that become empty; derivations stay."""
    copy = nbformat.from_dict(notebook)
    kept = []
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = SOLUTION.sub("", cell.source).strip()
        if cell.source:
            kept.append(cell)
    copy.cells = kept
    return copy


def write(folder: Path) -> list[Path]:
    """Write all hand-outs and what they import beside them; returns the notebooks' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        made = handout(nbformat.read(path, as_version=4))
        target = folder / path.name
        atomically(target, lambda part, made=made: nbformat.write(made, part))
        written.append(target)
    for module in (ROOT / "notebooks").glob("*.py"):  # graders, and what else notebooks import
        shutil.copy(module, folder)
    return written


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "handouts"
    for made in write(place):
        print(made)
