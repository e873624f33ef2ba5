"""What the Snakefile calls: execute one notebook or one table cell through papermill, and export a table's results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import papermill as pm

from nbkit.errors import NbkitError
from nbkit.tables import ROOT, config_of, find_run, load_table, results
from nbkit.train.record import atomically, write_json

CELL_NOTEBOOK = "04_full_adaptation"


def execute(notebook: str, output: Path, parameters: dict[str, Any]) -> None:
    """Run `notebooks/<notebook>.ipynb` with parameters; a failed run leaves its executed notebook at `output`.

    Raises NbkitError for a parameter that the notebook does not have, before anything runs.
    """
    source = ROOT / "notebooks" / f"{notebook}.ipynb"
    known = pm.inspect_notebook(source)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise NbkitError(f"{source.name} has no parameter {', '.join(unknown)}; it has: {', '.join(known)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
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


def export(table_name: str, runs_dir: str = "runs") -> Path:
    """Write the finished cells of a table to `results/<table>.csv`, the file that README and notebook 08 quote."""
    found = results(load_table(table_name), runs_dir)
    if found.empty:
        raise NbkitError(f"no finished cell of {table_name} in {runs_dir}/: run `snakemake {table_name}` first")
    path = ROOT / "results" / f"{table_name}.csv"
    atomically(path, lambda p: found.to_csv(p, index=False))
    return path
