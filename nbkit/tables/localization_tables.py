"""The tables of the localization paper and their twins as data: `tables/localization/<name>.yaml`.

A table has classes in the paper's order and rows; a cell is a row, a direction, a split and a seed.
What the paper printed stands beside a row as `[AP of each class ..., frame-mAP, video-mAP at 0.5]`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nbkit.config import ROOT
from nbkit.errors import NbkitError, reason
from nbkit.files import atomically
from nbkit.tables.results import TEXTS, Existing, in_order, to_write, without_strangers
from nbkit.train.localization_cells import LocalizationCell, run_cell
from nbkit.train.localization_run import ROWS

FOLDER = ROOT / "tables" / "localization"
KEY = ["row", "source", "target", "seed", "split"]
MEANS = ("frame_map", "video_map_0.5")
MORE = ("video_map_0.2", "video_map_0.5:0.95", "proposal_recall", "class_given_box", "box_iou")
HEADINGS = {
    "frame_map": "Fr. mAP",
    "video_map_0.5": "Vid. mAP",
    "video_map_0.2": "Vid. mAP @0.2",
    "video_map_0.5:0.95": "Vid. mAP @0.5:0.95",
    "proposal_recall": "recall of proposals",
    "class_given_box": "class, box given",
    "box_iou": "IoU of boxes",
}


class Row(BaseModel):
    """A row: its name in the table, which row of `ROWS` it trains, parameters of its own, and the
    printed numbers.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    row: str = ""
    set: dict[str, Any] = {}
    printed: list[float] | None = None
    note: str = ""


class LocalizationTable(BaseModel):
    """One YAML of tables/localization/. `set` holds upper-case parameters as in notebook 05."""

    model_config = ConfigDict(extra="forbid")
    name: str
    title: str
    paper: str = ""
    note: str = ""
    set: dict[str, Any]
    directions: list[tuple[str, str]]
    classes: list[str]
    seeds: list[int]
    splits: list[int] = [0]
    rows: list[Row]

    @model_validator(mode="after")
    def _coherent(self) -> "LocalizationTable":
        for row in self.rows:
            if {k.upper(): v for k, v in {**self.set, **row.set}.items()}.get("ALLOW_PARTIAL"):
                raise ValueError(
                    f"row {row.name!r}: ALLOW_PARTIAL is for trying things out; a table counts whole data only"
                )
            row.row = row.row or row.name
            if row.row not in ROWS:
                raise ValueError(
                    f"row {row.name!r} trains {row.row!r}, which is not one of {', '.join(ROWS)}"
                )
            if row.printed is not None and len(row.printed) != len(self.classes) + len(MEANS):
                raise ValueError(
                    f"row {row.name!r}: {len(row.printed)} printed numbers for {len(self.classes)} classes, "
                    "frame-mAP and video-mAP"
                )
        return self

    def cells(
        self,
        rows: list[str] | None = None,
        seeds: list[int] | None = None,
        directions: list[str] | None = None,
        runs_dir: str = "runs",
    ) -> list[tuple[Row, LocalizationCell]]:
        """Every (row, run) of the table, all rows of a seed before the next seed; NbkitError for
        unknown names.
        """
        known_rows, known_ways = [r.name for r in self.rows], ["→".join(d) for d in self.directions]
        ways = [d.replace(":", "→") for d in directions or known_ways]
        asked = (
            ("row", rows or [], known_rows),
            ("direction", ways, known_ways),
            ("seed", seeds or [], self.seeds),
        )
        for what, names, known in asked:
            if unknown := sorted(set(names) - set(known)):
                raise NbkitError(
                    f"{self.name} has no {what} {', '.join(map(str, unknown))}; there are: "
                    f"{', '.join(map(str, known))}"
                )
        return [
            (row, cell_of(self, row, direction, seed, split, runs_dir))
            for seed in (self.seeds if seeds is None else seeds)
            for split in self.splits
            for direction in self.directions
            if "→".join(direction) in ways
            for row in self.rows
            if not rows or row.name in rows
        ]


def cell_of(
    table: LocalizationTable,
    row: Row,
    direction: tuple[str, str],
    seed: int,
    split: int = 0,
    runs_dir: str = "runs",
) -> LocalizationCell:
    """The run behind one cell."""
    fields = {k.lower(): v for k, v in {**table.set, **row.set}.items()}
    return LocalizationCell.make(
        **fields,
        source=direction[0],
        target=direction[1],
        row=row.row,
        seed=seed,
        split_seed=split,
        runs_dir=runs_dir,
    )


def load_localization_table(name: str) -> LocalizationTable:
    """The table `tables/localization/<name>.yaml`; NbkitError names the file and what is wrong in
    it.
    """
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        raise NbkitError(
            f"no localization table {name!r}; there are: {', '.join(localization_tables())}"
        )
    try:
        return LocalizationTable(**{"name": name, **yaml.safe_load(path.read_text())})
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise NbkitError(f"{path}: {error}") from None


def localization_tables() -> list[str]:
    """Names of all localization tables."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def run_localization(
    name: str,
    rows: list[str] | None = None,
    seeds: list[int] | None = None,
    directions: list[str] | None = None,
    runs_dir: str = "runs",
) -> int:
    """Run the unfinished cells of a table one after another; a failed cell is reported and the rest
    goes on.

    Returns the number of failed cells. An interrupted cell goes on from its last checkpoint.
    """
    failed = 0
    for row, cell in load_localization_table(name).cells(rows, seeds, directions, runs_dir):
        label = f"{row.name}, {cell.source}→{cell.target}, seed {cell.seed}, split {cell.split_seed}"
        known = cell.finished
        try:
            metrics = run_cell(cell).metrics
            print(
                f"{label}: frame-mAP {metrics['frame_map']:.1f}  video-mAP {metrics['video_map_0.5']:.1f}"
                + ("  (was finished)" if known else ""),
                flush=True,
            )
        except (
            Exception
        ) as error:  # whatever it was (memory, a device): the other cells can still run
            failed += 1
            print(f"{label}: failed: {reason(error)}", flush=True)
    return failed


def results(table: LocalizationTable, runs_dir: str = "runs") -> pd.DataFrame:
    """One line a finished cell: row, source, target, seed, split, every metric in percent, and
    where it comes from.

    commit: at which its training began.  scored_at: at which its detector was evaluated, later
    where the metrics were redone.
    """
    lines = []
    for row, cell in table.cells(runs_dir=runs_dir):
        if not cell.finished:
            continue
        metrics = json.loads((cell.folder / "metrics.json").read_text())
        env = json.loads((cell.folder / "env.json").read_text())
        values = {
            k: round(metrics[k], 4) for k in (*MEANS, *MORE, *(f"ap_{c}" for c in table.classes))
        }
        lines.append(
            {
                "row": row.name,
                "source": cell.source,
                "target": cell.target,
                "seed": cell.seed,
                "split": cell.split_seed,
                **values,
                "steps": cell.optim.steps,
                "train_seconds": round(metrics["seconds"]["train"], 1),
                "evaluate_seconds": round(metrics["seconds"]["evaluate"], 1),
                "run": cell.folder.name,
                "commit": env["commit"],
                "scored_at": env.get("scored_at", env["commit"]),
                "torch": env["versions"]["torch"],
                "device": env["gpu"] or f"CPU, {env['threads']} thread",
                "finished": metrics["finished"],
            }
        )
    return pd.DataFrame(lines, columns=columns(table))


def columns(table: LocalizationTable) -> list[str]:
    """Columns of a results file."""
    return [
        *KEY,
        *MEANS,
        *MORE,
        *(f"ap_{c}" for c in table.classes),
        "steps",
        "train_seconds",
        "evaluate_seconds",
        "run",
        "commit",
        "scored_at",
        "torch",
        "device",
        "finished",
    ]


def export_localization(name: str, runs_dir: str = "runs", existing: Existing = "refuse") -> Path:
    """Write the finished cells of a table to `results/<name>.csv`.

    existing: what becomes of results that the file holds and `runs_dir` lacks
    (`nbkit.tables.results.to_write`). Raises NbkitError when there is no finished cell, or where
    `existing` refuses.
    """
    table = load_localization_table(name)
    found = results(table, runs_dir)
    if found.empty:
        raise NbkitError(
            f"no finished cell of {name} in {runs_dir}/: run `nbkit run-localization {name}` first"
        )
    found = to_write(committed(table), found, KEY, f"results/{name}.csv", runs_dir, existing)
    order = [
        (row.name, c.source, c.target, c.model.seed, c.split_seed)
        for row, c in table.cells(runs_dir=runs_dir)
    ]
    found, path = in_order(found, KEY, order), ROOT / "results" / f"{name}.csv"
    atomically(path, lambda p: found.to_csv(p, index=False))
    return path


def committed(table: LocalizationTable) -> pd.DataFrame:
    """The committed results of a table (`results/<name>.csv`), empty when there are none.

    A line of a row, seed or configuration that the table no longer has is left out, with a warning.
    """
    path = ROOT / "results" / f"{table.name}.csv"
    if not path.exists():
        return pd.DataFrame(columns=columns(table))
    found = pd.read_csv(path, dtype=TEXTS, float_precision="round_trip")
    runs = {(row.name, cell.folder.name) for row, cell in table.cells()}
    return without_strangers(
        found,
        [key in runs for key in zip(found["row"], found["run"])],
        f"results/{table.name}.csv",
        f"export-localization {table.name}",
    )


def summary(
    table: LocalizationTable,
    found: pd.DataFrame,
    direction: tuple[str, str],
    measures: list[str] | None = None,
) -> pd.DataFrame:
    """Rows x measures of `mean ± s.d. (n)` in percent, 'not run' where no cell has finished.

    measures: columns of `results`; the paper's (AP of each class, frame-mAP, video-mAP at 0.5) when
    None.
    """
    measures = [*(f"ap_{c}" for c in table.classes), *MEANS] if measures is None else measures
    here = found[(found["source"] == direction[0]) & (found["target"] == direction[1])]
    grid = {
        HEADINGS.get(m, m.removeprefix("ap_")): [
            _text(here.loc[here["row"] == r.name, m]) for r in table.rows
        ]
        for m in measures
    }
    return pd.DataFrame(grid, index=[r.name for r in table.rows])


def gains(
    table: LocalizationTable,
    found: pd.DataFrame,
    direction: tuple[str, str],
    against: Sequence[str],
    measures: Sequence[str] = MEANS,
) -> pd.DataFrame:
    """Difference of every row to the rows `against`, paired by seed and split: `mean ± s.d.
    (pairs)` in points.

    Columns are (row of `against`, measure); 'not run' where no pair is there. NbkitError for a name
    that is no row.
    """
    if unknown := set(against) - {r.name for r in table.rows}:
        raise NbkitError(f"{table.name} has no row {', '.join(sorted(unknown))}")
    here = found[(found["source"] == direction[0]) & (found["target"] == direction[1])].set_index(
        ["row", "seed", "split"]
    )
    grid = {}
    for base in against:
        for m in measures:
            values = (
                here[m].unstack("row").reindex(columns=[r.name for r in table.rows])
            )  # (seed, split) x rows
            grid[base, HEADINGS.get(m, m)] = [
                "–" if r.name == base else _text(values[r.name] - values[base], "+")
                for r in table.rows
            ]
    return pd.DataFrame(grid, index=[r.name for r in table.rows])


def _text(values: pd.Series, sign: str = "") -> str:
    values = values.dropna()
    if values.empty:
        return "not run"
    return (
        f"{values.mean():{sign}.1f}"
        + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")
        + f" ({len(values)})"
    )


def printed(table: LocalizationTable) -> pd.DataFrame:
    """The paper's numbers, '–' for a row that it does not print."""
    grid = [
        [f"{v:.1f}" for v in r.printed] if r.printed else ["–"] * (len(table.classes) + len(MEANS))
        for r in table.rows
    ]
    return pd.DataFrame(
        grid,
        index=[r.name for r in table.rows],
        columns=[*table.classes, *(HEADINGS[m] for m in MEANS)],
    )
