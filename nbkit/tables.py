"""Tables as data: `tables/<name>.yaml` says what every cell runs and what the paper printed; results come from runs.

A cell is a row's parameters, a column's parameters, a split and a seed, put together.  Its key is a hash of the
resulting configuration, so that two tables that hold the same cell share one run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nbkit.config import ROOT, RunConfig, digest
from nbkit.errors import NbkitError
from nbkit.evaluate.statistics import paired_runs

MEASURES = ("fused", "rgb", "flow")
STARRED_FROM = 5  # pairs of runs: a bootstrap over fewer is too narrow to call anything clear


class Line(BaseModel):
    """A row or a column of a table: its name, the parameters it sets, and what the paper printed by column."""

    model_config = ConfigDict(extra="forbid")
    name: str
    set: dict[str, Any] = {}
    printed: dict[str, float] = {}
    note: str = ""
    first: bool = False  # trains stages that other rows reuse: scheduled before them


class Table(BaseModel):
    """One YAML of tables/.  `printed_as` in a column names the paper's column it is the twin of."""

    model_config = ConfigDict(extra="forbid")
    name: str
    title: str
    paper: str = ""
    set: dict[str, Any]
    rows: list[Line]
    columns: list[Line]
    seeds: list[int]
    splits: list[int] = [0]
    note: str = ""

    def cells(self, seeds: list[int] | None = None, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """One dict a cell: table, row, column, seed, split, parameters (upper-case), key, first."""
        found = []
        for seed in self.seeds if seeds is None else seeds:
            for split in self.splits:
                for column in self.columns:
                    if columns is not None and column.name not in columns:
                        continue
                    for row in self.rows:
                        parameters = {**self.set, **column.set, **row.set, "SEED": seed, "SPLIT_SEED": split}
                        cfg = config_of(parameters)
                        found.append({"table": self.name, "row": row.name, "column": column.name, "seed": seed,
                                      "split": split, "parameters": parameters, "first": row.first,
                                      "key": digest(cfg.identity())})
        return found


def config_of(parameters: dict[str, Any], **more: Any) -> RunConfig:
    """Configuration of a cell from its upper-case parameters."""
    return RunConfig.make(**{k.lower(): v for k, v in parameters.items()}, **more)


def load_table(name: str) -> Table:
    """The table `tables/<name>.yaml`; NbkitError names the file and what is wrong in it."""
    path = ROOT / "tables" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise NbkitError(f"no table {name!r}; there are: {known}")
    try:
        return Table(**{"name": name, **yaml.safe_load(path.read_text())})
    except (ValidationError, yaml.YAMLError, TypeError) as error:
        raise NbkitError(f"{path}: {error}") from None


def find_run(cfg: RunConfig) -> Path | None:
    """The finished run folder of a configuration, or None."""
    pattern = f"{cfg.benchmark}-{cfg.source}-{cfg.target}-{cfg.method}-s{cfg.seed}-*/metrics.json"
    for path in sorted(Path(cfg.runs_dir).glob(pattern)):
        config = json.loads((path.parent / "config.json").read_text())
        try:
            if RunConfig(**config).identity() == cfg.identity():
                return path.parent
        except ValidationError:
            continue  # written by another version of the suite
    return None


def results(table: Table, runs_dir: str | Path = "runs") -> pd.DataFrame:
    """One line a finished cell: row, column, seed, split, accuracies by stream, test videos, seconds, provenance."""
    lines = []
    for cell in table.cells():
        folder = find_run(config_of(cell["parameters"], runs_dir=str(runs_dir)))
        if folder is None:
            continue
        metrics = json.loads((folder / "metrics.json").read_text())
        env = json.loads((folder / "env.json").read_text())
        lines.append({**{k: cell[k] for k in ("row", "column", "seed", "split")},
                      **{m: round(metrics["accuracy"].get(m, float("nan")), 4) for m in MEASURES},
                      "videos": metrics["videos"],
                      "train_seconds": round(float(pd.read_csv(folder / "history.csv")["seconds"].sum()), 1),
                      "run": folder.name, "commit": env["commit"], "torch": env["versions"]["torch"],
                      "device": env["gpu"] or f"CPU, {env['threads']} thread", "finished": metrics["finished"]})
    columns = ["row", "column", "seed", "split", *MEASURES, "videos", "train_seconds", "run", "commit", "torch",
               "device", "finished"]
    return pd.DataFrame(lines, columns=columns)


def committed(name: str) -> pd.DataFrame:
    """The committed results of a table (`results/<name>.csv`), empty when there are none."""
    path = ROOT / "results" / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["row", "column", "seed", "split", *MEASURES])


def summary(table: Table, found: pd.DataFrame, measure: str = "fused") -> pd.DataFrame:
    """Rows x columns of `mean ± s.d. (n)` in percent; 'not run' where no cell has finished."""
    grid = {}
    for column in table.columns:
        grid[column.name] = [_cell_text(found, row.name, column.name, measure) for row in table.rows]
    return pd.DataFrame(grid, index=[row.name for row in table.rows])


def _cell_text(found: pd.DataFrame, row: str, column: str, measure: str) -> str:
    values = found.loc[(found["row"] == row) & (found["column"] == column), measure].dropna()
    if values.empty:
        return "not run"
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread} ({len(values)})"


def printed(table: Table) -> pd.DataFrame:
    """The paper's numbers, rows x columns, '–' where it printed none."""
    grid = {c.name: [f"{r.printed[c.name]:.1f}" if c.name in r.printed else "–" for r in table.rows]
            for c in table.columns}
    return pd.DataFrame(grid, index=[row.name for row in table.rows])


def differences(table: Table, found: pd.DataFrame, pairs: list[tuple[str, str]], measure: str = "fused") -> pd.DataFrame:
    """Mean difference of two rows over paired runs (same seed and split), with its 95 % interval, by column and overall."""
    grid: dict[str, list[str]] = {}
    for name in [*(c.name for c in table.columns), "all"]:
        part = found if name == "all" else found[found["column"] == name]
        wide = part.pivot_table(index=["column", "seed", "split"], columns="row", values=measure)
        grid[name] = [_difference_text(wide, a, b) for a, b in pairs]
    return pd.DataFrame(grid, index=[f"{a} − {b}" for a, b in pairs])


def _difference_text(wide: pd.DataFrame, a: str, b: str) -> str:
    if a not in wide or b not in wide:
        return "not run"
    both = wide[[a, b]].dropna()
    if both.empty:
        return "not run"
    found = paired_runs(both[a].to_numpy(), both[b].to_numpy())
    if found.n == 1:
        return f"{found.mean:+.1f} (one run)"
    star = " *" if found.clear and found.n >= STARRED_FROM else ""
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}] ({found.n}){star}"
