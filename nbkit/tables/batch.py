"""Batch: a notebook or a table cell through papermill (what the Snakefile calls), a whole table in
process, exports.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import papermill as pm

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError, reason
from nbkit.files import atomically, write_json
from nbkit.tables.results import KEY, Existing, added, committed, in_order, results, to_write
from nbkit.tables.right_wrong import committed_videos, right_wrong, units_of_tests
from nbkit.tables.table import ROOT, config_of, find_run, load_table
from nbkit.train.loop import read_run, run

CELL_NOTEBOOK = "04_full_adaptation"


def execute(notebook: str, output: Path, parameters: dict[str, Any]) -> None:
    """Run `notebooks/<notebook>.ipynb` with parameters; a failed run leaves its executed notebook
    at `output`.

    Raises NbkitError for a parameter that the notebook does not have, before anything runs.  The
    notebook of the table cells takes every field of a run: it reads all upper-case names, those
    that its parameters cell leaves out too.
    """
    source = ROOT / "notebooks" / f"{notebook}.ipynb"
    fields = [name.upper() for name in RunConfig.model_fields] if notebook == CELL_NOTEBOOK else []
    known = list(dict.fromkeys([*pm.inspect_notebook(source), *fields]))
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise NbkitError(
            f"{source.name} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ["MPLBACKEND"] = (
        "module://matplotlib_inline.backend_inline"  # figures inside, whatever the shell says
    )
    partial = output.with_suffix(".running.ipynb")
    try:
        pm.execute_notebook(
            source,
            partial,
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(ROOT),
            start_timeout=180,
        )
    except pm.PapermillExecutionError as error:
        failed = output.with_suffix(".failed.ipynb")
        os.replace(partial, failed)
        raise NbkitError(
            f"{notebook} failed; the executed notebook with the error is {failed}\n{error}"
        ) from None
    os.replace(partial, output)
    output.with_suffix(".failed.ipynb").unlink(missing_ok=True)


def run_cell(
    table_name: str, key: str, runs_dir: str = "runs", notebook: str = CELL_NOTEBOOK
) -> Path:
    """Run the cell `key` of a table unless it is finished; returns the marker file that the
    Snakefile waits for.
    """
    cells = {cell["key"]: cell for cell in load_table(table_name).cells()}
    if key not in cells:
        raise NbkitError(
            f"table {table_name} has no cell {key}; it changed since the batch was planned: start it again"
        )
    cell, marker = cells[key], Path(runs_dir) / "cells" / f"{key}.json"
    cfg = config_of(cell["parameters"], runs_dir=runs_dir)
    if find_run(cfg) is None:
        execute(
            notebook,
            Path(runs_dir) / "notebooks" / "cells" / f"{key}.ipynb",
            {**cell["parameters"], "RUNS_DIR": runs_dir},
        )
    folder = find_run(cfg)
    if folder is None:
        raise NbkitError(f"{notebook} ran, but left no finished run for cell {key} of {table_name}")
    write_json(
        marker,
        {
            **cell,
            "run": folder.name,
            "accuracy": json.loads((folder / "metrics.json").read_text())["accuracy"],
        },
    )
    return marker


def run_notebook(notebook: str, runs_dir: str = "runs") -> Path:
    """Execute a notebook with its own parameters into `<runs_dir>/notebooks/`."""
    output = Path(runs_dir) / "notebooks" / f"{notebook}.ipynb"
    known = pm.inspect_notebook(ROOT / "notebooks" / f"{notebook}.ipynb")
    execute(notebook, output, {"RUNS_DIR": runs_dir} if "RUNS_DIR" in known else {})
    return output


def run_table(
    name: str,
    rows: list[str] | None = None,
    columns: list[str] | None = None,
    seeds: list[int] | None = None,
    runs_dir: str = "runs",
) -> int:
    """Run the unfinished cells of a table in this process; a failed cell is reported and the rest
    goes on.

    For tables of many short runs, where starting a notebook would cost more than the training.  A
    run that several rows share is made once.  Returns the number of failed cells.
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
        except (
            Exception
        ) as error:  # whatever it was (memory, a device): the other cells can still run
            failed += 1
            print(f"{label}: failed: {reason(error)}", flush=True)
    return failed


def export(table_name: str, runs_dir: str = "runs", existing: Existing = "refuse") -> list[Path]:
    """Write the finished cells of a table to `results/`, the files that README and notebook 08
    quote.

    `<table>.csv`: one line a run; `<table>.videos.csv` and `<table>.tests.csv`: which test videos
    it had right (see nbkit/right_wrong.py).  existing: what becomes of results that the file holds
    and `runs_dir` lacks (`to_write`). Raises NbkitError without a finished cell, or where
    `existing` refuses.
    """
    table = load_table(table_name)
    found = results(table, runs_dir)
    if found.empty:
        raise NbkitError(
            f"no finished cell of {table_name} in {runs_dir}/: run `snakemake {table_name}` first"
        )
    old, order = committed(table_name), [tuple(cell[k] for k in KEY) for cell in table.cells()]
    found = to_write(old, found, KEY, f"results/{table_name}.csv", runs_dir, existing)
    videos, tests = right_wrong(table, runs_dir), units_of_tests(table, runs_dir)
    if existing == "add":
        old_videos, old_tests = committed_videos(table_name, old)
        videos, tests = added(old_videos, videos, KEY), added(old_tests, tests, ["order"])
    frames = {
        "csv": in_order(found, KEY, order),
        "videos.csv": in_order(videos, KEY, order),
        "tests.csv": tests,
    }
    paths = [ROOT / "results" / f"{table_name}.{kind}" for kind in frames]
    for path, frame in zip(paths, frames.values(), strict=True):
        atomically(path, lambda p, frame=frame: frame.to_csv(p, index=False))
    return paths
