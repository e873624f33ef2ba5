"""`python -m nbkit.notebooks [NAME ...]`: execute the committed notebooks in place, in their own
(demo) parameters.

`python -m nbkit.notebooks --ready` names those that `make test` executes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from nbkit.config import ROOT
from nbkit.files import atomically


def execute_in_place(path: Path) -> None:
    """Run a notebook from top to bottom and keep its outputs; the file is untouched when a cell
    fails.

    Times and other traces of the machine are left out of the file, so that a second run changes
    nothing.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=300,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("papermill", None)
    notebook.metadata.pop("papermill", None)
    atomically(path, lambda p: nbformat.write(notebook, p))


def ready() -> list[Path]:
    """The notebooks that can be executed within minutes: all, 05 only where the three runs that it
    shows are finished.
    """
    from nbkit.train.localization_cells import LocalizationCell

    cell = LocalizationCell.make()
    trained = all(cell.with_row(row).finished for row in ("I3D+RPN", "all three", "oracle"))
    return [
        p
        for p in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
        if trained or not p.stem.startswith("05")
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["--ready"]:
        print(*(p.relative_to(ROOT) for p in ready()))
        sys.exit()
    names = sys.argv[1:] or ["0"]
    for chosen in sorted(
        p for p in (ROOT / "notebooks").glob("[0-9]*.ipynb") if p.stem.startswith(tuple(names))
    ):
        print("executing", chosen.name, flush=True)
        execute_in_place(chosen)
