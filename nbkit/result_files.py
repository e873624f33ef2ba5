"""What tables have as results: the finished runs of this machine, and the committed files of `results/`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pandas as pd

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.tables import MEASURES, Table, config_of, find_run, load_table

CHOICES = ("source_val", "oracle")  # diagnostic choices of an epoch, see nbkit/train/selection.py
KEY = ["row", "column", "seed", "split"]


def results(table: Table, runs_dir: str | Path = "runs") -> pd.DataFrame:
    """One line a finished cell: row, column, seed, split, accuracies by stream, test videos, seconds, provenance.

    `fused_source_val` and `fused_oracle` are the accuracies at an epoch chosen otherwise than as the last; empty where
    the run did not record them. `partial` says what an incomplete copy of the data lacked, '' for the whole benchmark.
    `cell` is the key of the configuration: a line whose key the table no longer has is of another one.
    """
    lines = []
    for cell in table.cells():
        folder = find_run(config_of(cell["parameters"], runs_dir=str(runs_dir)))
        if folder is None:
            continue
        metrics = json.loads((folder / "metrics.json").read_text())
        env = json.loads((folder / "env.json").read_text())
        chosen = {f"fused_{c}": ((metrics.get("selected") or {}).get(c) or {}).get("accuracy", {}).get("fused") for c in CHOICES}
        lines.append({**{k: cell[k] for k in ("row", "column", "seed", "split")},
                      **{m: round(metrics["accuracy"].get(m, float("nan")), 4) for m in MEASURES}, **chosen,
                      "videos": metrics["videos"], "partial": "; ".join(metrics.get("partial_data", [])),
                      "train_seconds": round(float(pd.read_csv(folder / "history.csv")["seconds"].sum()), 1),
                      "run": folder.name, "commit": env["commit"], "torch": env["versions"]["torch"],
                      "device": env["gpu"] or f"CPU, {env['threads']} thread", "finished": metrics["finished"],
                      "cell": cell["key"]})
    columns = ["row", "column", "seed", "split", *MEASURES, *(f"fused_{c}" for c in CHOICES), "videos", "partial",
               "train_seconds", "run", "commit", "torch", "device", "finished", "cell"]
    return pd.DataFrame(lines, columns=columns)


def committed(name: str) -> pd.DataFrame:
    """The committed results of a table (`results/<name>.csv`), empty when there are none.

    A line of a row, seed or configuration that the table no longer has is left out, with a warning.
    """
    path = ROOT / "results" / f"{name}.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*KEY, *MEASURES])
    found = pd.read_csv(path)
    keys = {tuple(cell[k] for k in KEY): cell["key"] for cell in load_table(name).cells()}
    return without_strangers(found, [keys.get(tuple(line[k] for k in KEY)) == line["cell"] for line in found.to_dict("records")],
                             f"results/{name}.csv", f"export-results {name}")


def without_strangers(found: pd.DataFrame, current: list[bool], path: str, export: str) -> pd.DataFrame:
    """The lines that are `current`; a warning names the rows of the others, which another state of the table left."""
    strangers = found[~pd.Series(current, index=found.index, dtype=bool)]
    if len(strangers):
        warnings.warn(f"{path}: {len(strangers)} of {len(found)} lines are of rows, seeds or configurations that the table no "
                      f"longer has, and are left out ({', '.join(sorted(set(strangers['row'])))}). Run the table, then "
                      f"`nbkit {export}` writes the file anew", stacklevel=3)
    return found.drop(index=strangers.index).reset_index(drop=True)


def refuse_to_lose(old: pd.DataFrame, new: pd.DataFrame, key: list[str], path: str, runs_dir: str | Path, replace: bool) -> None:
    """NbkitError where `new` lacks lines (told apart by `key`) that the file at `path` holds, unless `replace`."""
    there, here = (set(frame[key].itertuples(index=False, name=None)) for frame in (old, new))
    if not replace and there - here:
        raise NbkitError(f"{path} holds {len(there)} results, and {runs_dir}/ lacks {len(there - here)} of them: run what is "
                         "missing, or pass --replace to write those that are there")
