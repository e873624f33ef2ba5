"""Execute notebooks in their own (demo) parameters.

python tools/notebooks.py [NAME ...]                 in place, the committed ones
python tools/notebooks.py NAME ... --runs-dir RUNS   into RUNS/notebooks/ (the Snakefile)
python tools/notebooks.py --ready                    names those that `make test` executes
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import nbclient
import nbformat
import papermill
from PIL import Image

from nbkit.config import ROOT
from nbkit.config.localization import LocalizationConfig
from nbkit.errors import NbkitError
from nbkit.files import atomically
from nbkit.tables.batch import execute
from nbkit.train.store import find_run

# A figure of lines and text has fewer colours than this, a picture has more.
MANY_COLOURS = 4096


def with_small_figures(notebook: nbformat.NotebookNode) -> None:
    """Store figures of few colours with a palette: a third of the bytes, and the same to the eye.

    Pictures with many colours stay as they are.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            png = output.get("data", {}).get("image/png")
            if not png:
                continue
            image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
            if image.getcolors(MANY_COLOURS) is None:
                continue
            small = io.BytesIO()
            image.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
            output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute_in_place(path: Path) -> None:
    """Run a notebook from top to bottom and keep its outputs.

    The file is untouched when a cell fails.  Traces of the machine, such as times, are left out of
    it, so that a second run changes nothing.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    client = nbclient.NotebookClient(
        notebook,
        timeout=1800,
        startup_timeout=300,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except (nbclient.exceptions.CellControlSignal, RuntimeError) as error:  # a cell, or the kernel
        raise NbkitError(f"{path}: left as it was. {error}") from None
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("papermill", None)
    with_small_figures(notebook)
    notebook.metadata.pop("papermill", None)
    atomically(path, lambda part: nbformat.write(notebook, part))


def execute_into(path: Path, runs_dir: str) -> None:
    """Run a notebook through papermill into `<runs_dir>/notebooks/`."""
    known = papermill.inspect_notebook(str(path))
    parameters = {"RUNS_DIR": str(ROOT / runs_dir)} if "RUNS_DIR" in known else {}
    execute(path.stem, Path(runs_dir) / "notebooks" / path.name, parameters)


def notebooks(names: Sequence[str] = ()) -> list[Path]:
    """The notebooks whose file names begin with one of `names`; all without names."""
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    return [path for path in paths if not names or path.stem.startswith(tuple(names))]


def ready() -> list[Path]:
    """The notebooks that run within minutes: 05 only where the runs that it shows are finished."""
    shown = [LocalizationConfig.make(row=row) for row in ("I3D+RPN", "all three", "oracle")]
    if all(find_run(cfg) for cfg in shown):
        return notebooks()
    return [path for path in notebooks() if not path.stem.startswith("05")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of file names; all when left out")
    parser.add_argument("--runs-dir", help="leave the committed ones as they are, write here")
    parser.add_argument("--ready", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.ready:
        print(*(path.relative_to(ROOT) for path in ready()))
        return
    for path in notebooks(asked.names):
        print("executing", path.name, flush=True)
        if asked.runs_dir:
            execute_into(path, asked.runs_dir)
        else:
            execute_in_place(path)


if __name__ == "__main__":
    try:
        main()
    except NbkitError as error:
        sys.exit(f"error: {error}")
