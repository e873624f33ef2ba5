"""What tables have as results: the finished runs of this machine, and the committed files of
`results/`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Literal

import pandas as pd

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.tables.table import MEASURES, Table, config_of, find_run, load_table

CHOICES = ("source_val", "oracle")  # diagnostic choices of an epoch, see nbkit/train/selection.py
KEY = ["row", "column", "seed", "split"]
COLUMNS = [
    *KEY,
    *MEASURES,
    *(f"fused_{c}" for c in CHOICES),
    "videos",
    "partial",
    "train_seconds",
    "run",
    "commit",
    "torch",
    "device",
    "finished",
    "cell",
]
TEXTS = dict.fromkeys(
    ["run", "commit", "scored_at", "torch", "cell"], str
)  # some have digits only, and are no numbers
# What an export does with lines of its file that this machine has no run of: refuse, keep them, or
# drop them.
Existing = Literal["refuse", "add", "replace"]


def results(table: Table, runs_dir: str | Path = "runs") -> pd.DataFrame:
    """One line a finished cell: row, column, seed, split, accuracies by stream, test videos,
    seconds, provenance.

    `fused_source_val` and `fused_oracle` are the accuracies at an epoch chosen otherwise than as
    the last; empty where the run did not record them. `partial` says what an incomplete copy of the
    data lacked, '' for the whole benchmark. `cell` is the key of the configuration: a line whose
    key the table no longer has is of another one.
    """
    lines = []
    for cell in table.cells():
        folder = find_run(config_of(cell["parameters"], runs_dir=str(runs_dir)))
        if folder is None:
            continue
        metrics = json.loads((folder / "metrics.json").read_text())
        env = json.loads((folder / "env.json").read_text())
        chosen = {
            f"fused_{c}": ((metrics.get("selected") or {}).get(c) or {})
            .get("accuracy", {})
            .get("fused")
            for c in CHOICES
        }
        lines.append(
            {
                **{k: cell[k] for k in KEY},
                **{m: round(metrics["accuracy"].get(m, float("nan")), 4) for m in MEASURES},
                **chosen,
                "videos": metrics["videos"],
                "partial": "; ".join(metrics.get("partial_data", [])),
                "train_seconds": round(
                    float(pd.read_csv(folder / "history.csv")["seconds"].sum()), 1
                ),
                "run": folder.name,
                "commit": env["commit"],
                "torch": env["versions"]["torch"],
                "device": env["gpu"] or f"CPU, {env['threads']} thread",
                "finished": metrics["finished"],
                "cell": cell["key"],
            }
        )
    return pd.DataFrame(lines, columns=COLUMNS)


def committed(name: str) -> pd.DataFrame:
    """The committed results of a table (`results/<name>.csv`), empty when there are none.

    A line of a row, seed or configuration that the table no longer has is left out, with a warning.
    """
    path = ROOT / "results" / f"{name}.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    found = pd.read_csv(path, dtype=TEXTS, float_precision="round_trip")
    keys = {tuple(cell[k] for k in KEY): cell["key"] for cell in load_table(name).cells()}
    return without_strangers(
        found,
        [
            keys.get(tuple(line[k] for k in KEY)) == line["cell"]
            for line in found.to_dict("records")
        ],
        f"results/{name}.csv",
        f"export-results {name}",
    )


def without_strangers(
    found: pd.DataFrame, current: list[bool], path: str, export: str
) -> pd.DataFrame:
    """The lines that are `current`; a warning names the rows of the others, which another state of
    the table left.
    """
    strangers = found[~pd.Series(current, index=found.index, dtype=bool)]
    if len(strangers):
        warnings.warn(
            f"{path}: {len(strangers)} of {len(found)} lines are of rows, seeds or configurations that the table no "
            f"longer has, and are left out ({', '.join(sorted(set(strangers['row'])))}). Run the table, then "
            f"`nbkit {export}` writes the file anew",
            stacklevel=3,
        )
    return found.drop(index=strangers.index).reset_index(drop=True)


def to_write(
    old: pd.DataFrame,
    new: pd.DataFrame,
    key: list[str],
    path: str,
    runs_dir: str | Path,
    existing: Existing,
) -> pd.DataFrame:
    """The lines for the file at `path`, which holds `old` now; `new` are those of the runs here,
    told apart by `key`.

    "replace": `new`.  "add": `old` as it is, and what it lacks of `new`.  "refuse": `new`, or
    NbkitError where it lacks lines of `old`.
    """
    lost = set(_keys(old, key)) - set(_keys(new, key))
    if existing == "refuse" and lost:
        raise NbkitError(
            f"{path} holds {len(old)} results, and {runs_dir}/ lacks {len(lost)} of them: run what is missing, "
            "pass --add to keep the file's lines and add what they lack, or --replace to write these runs only"
        )
    return added(old, new, key) if existing == "add" else new


def added(old: pd.DataFrame, new: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The lines of `old` as they are, then those of `new` that it lacks, told apart by `key`."""
    known = set(_keys(old, key))
    return (
        pd.concat([old, new[[k not in known for k in _keys(new, key)]]], ignore_index=True)
        if known
        else new
    )


def _keys(lines: pd.DataFrame, key: list[str]) -> list[tuple]:
    return list(lines[key].itertuples(index=False, name=None))


def in_order(lines: pd.DataFrame, key: list[str], order: list[tuple]) -> pd.DataFrame:
    """The lines in the `order` of their keys, whatever machine they are from."""
    place = {k: i for i, k in enumerate(order)}
    places = [place[k] for k in _keys(lines, key)]
    return lines.iloc[sorted(range(len(lines)), key=places.__getitem__)].reset_index(drop=True)
