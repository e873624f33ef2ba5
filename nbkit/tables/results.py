"""Results of tables: finished runs of this machine, and the committed files of `results/`."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.files import atomically
from nbkit.tables.right_wrong import TEST_COLUMNS, VIDEO_COLUMNS, committed_right_wrong, right_wrong
from nbkit.tables.table import KEY, Cell, Table, load_table
from nbkit.train.store import find_run, read_csv, read_environment, read_metrics

# Other choices of an epoch than the last, for information only: see nbkit/train/selection.py.
CHOICES = ("source_val", "oracle")
PROVENANCE = ("torch", "device", "finished", "cell")
# Columns that may hold digits only, and are no numbers.
TEXTS = dict.fromkeys(["run", "commit", "scored_at", "torch", "cell"], str)
# What an export does with lines of its file that this machine has no run of.
Existing = Literal["refuse", "add", "replace"]


# --- runs of this machine ------------------------------------------------------------------------
def result_columns(table: Table) -> list[str]:
    """The columns of a table's results file."""
    if table.task == "recognition":
        own = [*(f"fused_{choice}" for choice in CHOICES), "videos", "partial", "train_seconds"]
        ran = ["run", "commit"]
    else:
        own = ["steps", "train_seconds", "evaluate_seconds"]
        ran = ["run", "commit", "scored_at"]
    return [*KEY, *table.measures, *own, *ran, *PROVENANCE]


def results(table: Table, runs_dir: str | Path = "runs") -> pd.DataFrame:
    """One line per finished cell: its place, its measures in percent, and where it comes from.

    `commit` ends in '+' where the code differed from the commit that it names.  `device` is the
    GPU, or the processor and its threads; lines written before the processor was recorded say CPU.

    `fused_source_val` and `fused_oracle` are accuracies at another epoch than the last.  `partial`
    says what an incomplete copy of the data lacked.  `scored_at` is the commit of the evaluation,
    `commit` that of the training.  `cell` is the key of the configuration.
    """
    lines = []
    for cell in table.cells():
        folder = find_run(cell.config(runs_dir=str(runs_dir)))
        if folder is None:
            continue
        try:
            lines.append(_line(table, cell, folder))
        except (KeyError, TypeError, AttributeError) as error:
            raise NbkitError(
                f"{folder}: metrics.json lacks something ({error!r}). Delete the file and "
                "run again: its checkpoints are kept"
            ) from None
    return pd.DataFrame(lines, columns=result_columns(table))


def _line(table: Table, cell: Cell, folder: Path) -> dict[str, Any]:
    metrics, env = read_metrics(folder), read_environment(folder)
    if table.task == "recognition":
        line = _recognition_values(metrics, folder)
    else:
        line = {name: round(metrics[name], 4) for name in table.measures}
        line["steps"] = cell.config().optim.steps
        line["train_seconds"] = round(metrics["seconds"]["train"], 1)
        line["evaluate_seconds"] = round(metrics["seconds"]["evaluate"], 1)
    return {
        **dict(zip(KEY, cell.place)),
        **line,
        "run": folder.name,
        "commit": env["commit"],
        "scored_at": env.get("scored_at", env["commit"]),
        "torch": env["versions"]["torch"],
        "device": env["gpu"] or f"{env['cpu'] or 'CPU'}, {env['threads']} thread",
        "finished": metrics["finished"],
        "cell": cell.key,
    }


def _recognition_values(metrics: dict[str, Any], folder: Path) -> dict[str, Any]:
    line = {name: round(value, 4) for name, value in metrics["accuracy"].items()}
    selected = metrics.get("selected") or {}
    for choice in CHOICES:
        chosen = selected.get(choice) or {}
        line[f"fused_{choice}"] = chosen.get("accuracy", {}).get("fused")
    seconds = read_csv(folder / "history.csv", ["seconds"], ["seconds"])["seconds"].sum()
    return {
        **line,
        "videos": metrics["videos"],
        "partial": "; ".join(metrics.get("partial_data", [])),
        "train_seconds": round(float(seconds), 1),
    }


# --- committed files -----------------------------------------------------------------------------
def committed(name: str) -> pd.DataFrame:
    """The committed results of a table (`results/<name>.csv`), empty when there are none.

    A line of a row, seed or configuration that the table no longer has is left out, with a
    warning.
    """
    path, table = ROOT / "results" / f"{name}.csv", load_table(name)
    if not path.exists():
        return pd.DataFrame(columns=result_columns(table))
    numbers, how = ("seed", "split", *table.measures), {"float_precision": "round_trip"}
    found = read_csv(path, [*KEY, "cell"], numbers, dtype=TEXTS, **how)
    keys = pd.Series({cell.place: cell.key for cell in table.cells()})
    known = keys.reindex(_places(found)).to_numpy() == found["cell"]
    strangers = found[~known]
    if len(strangers):
        rows = ", ".join(sorted(set(strangers["row"])))
        warnings.warn(
            f"results/{name}.csv: {len(strangers)} of {len(found)} lines are of rows, seeds or "
            f"configurations that the table no longer has, and are left out ({rows}). Run the "
            f"table, then `nbkit export {name}` writes the file anew",
            stacklevel=2,
        )
    return found[known].reset_index(drop=True)


def export(name: str, runs_dir: str | Path = "runs", existing: Existing = "refuse") -> list[Path]:
    """Write the finished cells of a table to `results/`, the files that README and notebooks quote.

    `<table>.csv` has one line per run; the two files of a recognition table that say which test
    videos each run had right stand beside it, see nbkit/tables/right_wrong.py.

    Args:
        existing: what becomes of results that the file holds and `runs_dir` lacks.  "refuse":
            NbkitError.  "add": the file's lines stay, and what they lack is added.  "replace":
            they are dropped.

    Raises:
        NbkitError: there is no finished cell, `existing` refuses, or a new line is of a tree that
            differs from its commit.
    """
    table = load_table(name)
    old, new = committed(name), results(table, runs_dir)
    if new.empty:
        raise NbkitError(f"no finished cell of {name} in {runs_dir}/: run `snakemake {name}` first")
    refuse_losses(old, new, f"results/{name}.csv", runs_dir, existing)
    refuse_uncommitted(old, new)
    files = {"csv": new}
    if table.task == "recognition":
        files["videos.csv"], files["tests.csv"] = right_wrong(table, runs_dir)
    if existing == "add":
        bits = committed_right_wrong(name)
        bits = bits[_places(bits).isin(_places(old))]
        tests = bits[TEST_COLUMNS].drop_duplicates("order")
        before = {"csv": old, "videos.csv": bits[VIDEO_COLUMNS], "tests.csv": tests}
        files = {kind: added(before[kind], lines) for kind, lines in files.items()}
    order = [cell.place for cell in table.cells()]
    paths = []
    for kind, lines in files.items():
        paths.append(ROOT / "results" / f"{name}.{kind}")
        atomically(paths[-1], partial(_in_order(lines, order).to_csv, index=False))
    return paths


def refuse_losses(
    old: pd.DataFrame, new: pd.DataFrame, path: str, runs_dir: str | Path, existing: Existing
) -> None:
    """Raise NbkitError where writing `new` would drop lines of `old` that nobody gave up."""
    lost = (~_places(old).isin(_places(new))).sum()
    if existing == "refuse" and lost:
        raise NbkitError(
            f"{path} holds {len(old)} results, and {runs_dir}/ lacks {lost} of them: run "
            "what is missing, pass --add to keep the file's lines and add what they lack, or "
            "--replace to write these runs only"
        )


def refuse_uncommitted(old: pd.DataFrame, new: pd.DataFrame) -> None:
    """Raise NbkitError where a line of `new` that `old` lacks is of code that nobody can check out.

    Lines that were committed before this rule keep their '+'.
    """
    fresh = new[~_places(new).isin(_places(old))]
    dirty = fresh[fresh["commit"].astype(str).str.endswith("+")]
    if len(dirty):
        rows = ", ".join(sorted(set(dirty["row"])))
        raise NbkitError(
            f"{len(dirty)} of the new lines are of a run whose commit ends in '+' ({rows}): the "
            "code, a table or a manifest differed from that commit. Commit, then run these again"
        )


def added(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The lines of `old` as they are, then those of `new` that it lacks."""
    if old.empty:
        return new
    return pd.concat([old, new[~_places(new).isin(_places(old))]], ignore_index=True)


def _places(lines: pd.DataFrame) -> pd.Index:
    """What names each line: its place in the table or, of a test set, its order."""
    if "row" in lines:
        return pd.MultiIndex.from_frame(lines[KEY])
    return pd.Index(lines["order"])


def _in_order(lines: pd.DataFrame, order: list[tuple]) -> pd.DataFrame:
    """The lines of runs in the table's order, whatever machine they are from."""
    if "row" not in lines:
        return lines
    ranks = pd.MultiIndex.from_tuples(order).get_indexer(_places(lines))
    return lines.iloc[ranks.argsort(kind="stable")].reset_index(drop=True)
