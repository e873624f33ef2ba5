"""Notebooks through papermill, and the cells of tables: one in a notebook, or many in process."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import papermill

from nbkit.config import ROOT
from nbkit.errors import NbkitError, reason
from nbkit.files import checked_name, held
from nbkit.tables.table import MEAN_PRECISIONS, Cell, load_table
from nbkit.train.store import CONFIGURATIONS, find_run, read_run, run

# The notebook of one cell, by task.
CELL_NOTEBOOKS = {"recognition": "04_full_adaptation", "localization": "05_localization"}


def execute(
    notebook: str, output: Path, parameters: dict[str, Any], task: str | None = None
) -> None:
    """Run `notebooks/<notebook>.ipynb` with parameters into `output`.

    A failed run leaves its executed notebook beside `output`, as `.failed.ipynb`.

    Args:
        task: of a cell's notebook, which takes every flat field of that task's configuration.

    Raises:
        NbkitError: a parameter that the notebook does not have, before anything runs; or a failed
            run.
    """
    source = ROOT / "notebooks" / f"{checked_name(notebook)}.ipynb"
    if not source.is_file():
        raise NbkitError(f"{source}: no such notebook")
    known = list(papermill.inspect_notebook(str(source)))
    if task is not None:
        known += [name.upper() for name in CONFIGURATIONS[task].places()]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        names = ", ".join(dict.fromkeys(known))
        raise NbkitError(f"{source.name} has no parameter {', '.join(unknown)}; it has: {names}")
    # Figures go into the notebook, whatever the shell says.
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    partial, failed = output.with_suffix(".running.ipynb"), output.with_suffix(".failed.ipynb")
    with held(output.with_suffix(".lock"), str(output)):
        try:
            papermill.execute_notebook(
                str(source),
                str(partial),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(source.parent),
                start_timeout=180,
            )
        except BaseException as error:
            # Whatever ended it (a cell, the kernel, the disk, a person), what was executed stays.
            if partial.exists():
                os.replace(partial, failed)
            if not isinstance(error, Exception):
                raise
            told = reason(error)
            if isinstance(error, papermill.PapermillExecutionError):
                told = f"{error.ename}: {error.evalue}"
            raise NbkitError(
                f"{notebook} failed; what was executed is in {failed}\n{told}"
            ) from None
        os.replace(partial, output)
        failed.unlink(missing_ok=True)


def run_cell(name: str, key: str, runs_dir: str | Path = "runs") -> Path:
    """Execute the cell `key` of a table through papermill unless it is finished; its run folder."""
    cells = {cell.key: cell for cell in load_table(name).cells()}
    if key not in cells:
        raise NbkitError(
            f"table {name} has no cell {key}; it changed since the batch was planned: start it "
            "again"
        )
    cell = cells[key]
    cfg = cell.config(runs_dir=str(runs_dir))
    if find_run(cfg) is None:
        output = Path(cfg.watch.runs_dir) / "notebooks" / "cells" / f"{key}.ipynb"
        parameters = {**cell.parameters, "RUNS_DIR": cfg.watch.runs_dir}
        if cell.task == "recognition":
            parameters["SHIPPED"] = False  # a table's number has been trained
        execute(CELL_NOTEBOOKS[cell.task], output, parameters, cell.task)
    folder = find_run(cfg)
    if folder is None:
        raise NbkitError(f"the notebook ran, but left no finished run for {cell.label} of {name}")
    return folder


def run_table(
    name: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    runs_dir: str | Path = "runs",
) -> int:
    """Run the unfinished cells of a table in this process, and return the number that failed.

    For tables of many short runs, where starting a notebook would cost more than the training.  A
    failed cell is reported, and the rest goes on.
    """
    cells: dict[str, Cell] = {}
    for cell in load_table(name).cells(seeds, columns, rows):
        cells.setdefault(cell.key, cell)
    failed = 0
    for cell in sorted(cells.values(), key=lambda cell: (cell.seed, not cell.first)):
        cfg = cell.config(runs_dir=str(runs_dir))
        try:
            folder = find_run(cfg)
            with contextlib.redirect_stdout(io.StringIO()):
                if folder is None:
                    found = run(cfg)
                else:
                    found = read_run(cfg, folder)
            scores = found.metrics.get("accuracy")
            if scores is None:
                scores = {name: found.metrics[name] for name in MEAN_PRECISIONS}
            told = "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
            print(f"{cell.label}: {told}", flush=True)
        except Exception as error:
            # Whatever it was (memory, a device), the other cells can still run.
            failed += 1
            print(f"{cell.label}: failed: {reason(error)}", flush=True)
    return failed
