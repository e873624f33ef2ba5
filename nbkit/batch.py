"""Batch: a notebook or a table cell through papermill (what the Snakefile calls), a whole table in process, exports."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import papermill as pm

from nbkit.config import RunConfig
from nbkit.errors import NbkitError, reason
from nbkit.result_files import KEY, committed, refuse_to_lose, results
from nbkit.right_wrong import right_wrong, units_of_tests
from nbkit.tables import ROOT, config_of, find_run, load_table
from nbkit.train.loop import read_run, run
from nbkit.train.record import atomically, write_json

CELL_NOTEBOOK = "04_full_adaptation"


def execute(notebook: str, output: Path, parameters: dict[str, Any]) -> None:
    """Run `notebooks/<notebook>.ipynb` with parameters; a failed run leaves its executed notebook at `output`.

    Raises NbkitError for a parameter that the notebook does not have, before anything runs.  The notebook of the table
    cells takes every field of a run: it reads all upper-case names, those that its parameters cell leaves out too.
    """
    source = ROOT / "notebooks" / f"{notebook}.ipynb"
    fields = [name.upper() for name in RunConfig.model_fields] if notebook == CELL_NOTEBOOK else []
    known = list(dict.fromkeys([*pm.inspect_notebook(source), *fields]))
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise NbkitError(f"{source.name} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures inside, whatever the shell says
    partial = output.with_suffix(".running.ipynb")
    try:
        pm.execute_notebook(source, partial, parameters=parameters, kernel_name="python3", progress_bar=False,
                            cwd=str(ROOT), start_timeout=180)
    except pm.PapermillExecutionError as error:
        failed = output.with_suffix(".failed.ipynb")
        os.replace(partial, failed)
        raise NbkitError(f"{notebook} failed; the executed notebook with the error is {failed}\n{error}") from None
    os.replace(partial, output)
    output.with_suffix(".failed.ipynb").unlink(missing_ok=True)


def run_cell(table_name: str, key: str, runs_dir: str = "runs", notebook: str = CELL_NOTEBOOK) -> Path:
    """Run the cell `key` of a table unless it is finished; returns the marker file that the Snakefile waits for."""
    cells = {cell["key"]: cell for cell in load_table(table_name).cells()}
    if key not in cells:
        raise NbkitError(f"table {table_name} has no cell {key}; it changed since the batch was planned: start it again")
    cell, marker = cells[key], Path(runs_dir) / "cells" / f"{key}.json"
    cfg = config_of(cell["parameters"], runs_dir=runs_dir)
    if find_run(cfg) is None:
        execute(notebook, Path(runs_dir) / "notebooks" / "cells" / f"{key}.ipynb",
                {**cell["parameters"], "RUNS_DIR": runs_dir})
    folder = find_run(cfg)
    if folder is None:
        raise NbkitError(f"{notebook} ran, but left no finished run for cell {key} of {table_name}")
    write_json(marker, {**cell, "run": folder.name,
                        "accuracy": json.loads((folder / "metrics.json").read_text())["accuracy"]})
    return marker


def run_notebook(notebook: str, runs_dir: str = "runs") -> Path:
    """Execute a notebook with its own parameters into `<runs_dir>/notebooks/`."""
    output = Path(runs_dir) / "notebooks" / f"{notebook}.ipynb"
    known = pm.inspect_notebook(ROOT / "notebooks" / f"{notebook}.ipynb")
    execute(notebook, output, {"RUNS_DIR": runs_dir} if "RUNS_DIR" in known else {})
    return output


def run_table(name: str, rows: list[str] | None = None, columns: list[str] | None = None,
              seeds: list[int] | None = None, runs_dir: str = "runs") -> int:
    """Run the unfinished cells of a table in this process; a failed cell is reported and the rest goes on.

    For tables of many short runs, where starting a notebook would cost more than the training.  A run that several rows
    share is made once.  Returns the number of failed cells.
    """
    failed = 0
    cells = {c["key"]: c for c in reversed(load_table(name).cells(seeds, columns, rows))}
    for cell in sorted(reversed(cells.values()), key=lambda c: (c["seed"], not c["first"])):
        label = f"{cell['row']}, {cell['column']}, seed {cell['seed']}, split {cell['split']}"
        try:
            cfg = config_of(cell["parameters"], runs_dir=runs_dir)
            finished = find_run(cfg)
            with contextlib.redirect_stdout(io.StringIO()):
                accuracy = (read_run(cfg, finished) if finished else run(cfg)).metrics["accuracy"]
            print(f"{label}: " + "  ".join(f"{m} {a:.1f}" for m, a in accuracy.items()), flush=True)
        except Exception as error:  # whatever it was (memory, a device): the other cells can still run
            failed += 1
            print(f"{label}: failed: {reason(error)}", flush=True)
    return failed


def export(table_name: str, runs_dir: str = "runs", replace: bool = False) -> list[Path]:
    """Write the finished cells of a table to `results/`, the files that README and notebook 08 quote.

    `<table>.csv`: one line a run; `<table>.videos.csv` and `<table>.tests.csv`: which test videos it had right (see
    nbkit/right_wrong.py).  Raises NbkitError without a finished cell, and, unless `replace`, where the file holds
    results that `runs_dir` lacks.
    """
    table = load_table(table_name)
    found = results(table, runs_dir)
    if found.empty:
        raise NbkitError(f"no finished cell of {table_name} in {runs_dir}/: run `snakemake {table_name}` first")
    refuse_to_lose(committed(table_name), found, KEY, f"results/{table_name}.csv", runs_dir, replace)
    frames = {ROOT / "results" / f"{table_name}.csv": found,
              ROOT / "results" / f"{table_name}.videos.csv": right_wrong(table, runs_dir),
              ROOT / "results" / f"{table_name}.tests.csv": units_of_tests(table, runs_dir)}
    for path, frame in frames.items():
        atomically(path, lambda p, frame=frame: frame.to_csv(p, index=False))
    return list(frames)
