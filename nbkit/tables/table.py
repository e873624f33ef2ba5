"""Tables as data: `tables/<name>.yaml` says what every cell runs and what the paper printed.

A cell is a row's parameters, a column's parameters, a split and a seed, put together.  Its key is a
hash of the resulting configuration, so that two tables that hold the same cell share one run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT, digest
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.train.record import versions

MEASURES = ("fused", "rgb", "flow")


class Line(BaseModel):
    """A row or a column of a table: its name, the parameters it sets, and what the paper printed by
    column.

    copied: the paper prints this row for somebody else's method or baseline, under that work's
    protocol and backbone.
    runs: False for a row that is shown only, because nothing here would differ from another row's
    run.
    same_as: a row above that has the same run; `set` is that row's.  measure: which stream the row
    reads.
    against: the row that gains are counted from.  printed_as: in a twin, the paper table's row or
    column it stands for.
    first: trains stages that other rows reuse, and is scheduled before them.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    set: dict[str, Any] = {}
    printed: dict[str, float] = {}
    note: str = ""
    first: bool = False
    copied: bool = False
    runs: bool = True
    same_as: str = ""
    measure: Literal["", "fused", "rgb", "flow"] = ""
    against: str = ""
    printed_as: str = ""


class Table(BaseModel):
    """One YAML of tables/.

    mean: the name of a last column, the mean of the others ('' for none).  against: the row that
    gains are counted from, unless a row names its own.  twin_of: the table of the paper whose
    printed numbers `printed_as` refers to.
    """

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
    mean: str = ""
    against: str = ""
    twin_of: str = ""

    @model_validator(mode="after")
    def _coherent(self) -> Table:
        names, columns = [r.name for r in self.rows], [c.name for c in self.columns]
        if len(set(names)) < len(names) or len(set(columns)) < len(columns):
            raise ValueError("two rows or two columns have the same name")
        for i, row in enumerate(self.rows):
            unknown = set(row.printed) - {*columns, *([self.mean] if self.mean else [])}
            if unknown:
                raise ValueError(
                    f"row {row.name!r}: printed for {', '.join(sorted(unknown))}, which is no column"
                )
            if row.against and row.against not in names:
                raise ValueError(f"row {row.name!r}: against {row.against!r}, which is no row")
            if row.same_as:
                if row.same_as not in names[:i] or row.set:
                    raise ValueError(
                        f"row {row.name!r}: same_as must name a row above, and leaves no `set` of its own"
                    )
                row.set = dict(self.row(row.same_as).set)
        if self.against and self.against not in names:
            raise ValueError(f"against: {self.against!r} is no row")
        return self

    def row(self, name: str) -> Line:
        """The row of that name; NbkitError without one."""
        return self._named("row", name)

    def column(self, name: str) -> Line:
        """The column of that name; NbkitError without one."""
        return self._named("column", name)

    def _named(self, what: str, name: str) -> Line:
        lines = {line.name: line for line in getattr(self, what + "s")}
        if name not in lines:
            raise NbkitError(f"{self.name} has no {what} {name!r}; there are: {', '.join(lines)}")
        return lines[name]

    def against_of(self, row: Line) -> str:
        """The row that `row`'s gain is counted from, '' for none (itself, or a table without one)."""
        name = row.against or self.against
        return "" if name == row.name else name

    def cells(
        self,
        seeds: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """One dict a cell: table, row, column, seed, split, parameters (upper-case), key, first.

        Cells of rows that share a run (`same_as`) have the same key.  Raises NbkitError for an
        unknown name or seed.
        """
        for what, names in (("row", rows), ("column", columns)):
            for name in names or ():
                self._named(what, name)
        if unknown := sorted(set(seeds or ()) - set(self.seeds)):
            raise NbkitError(
                f"{self.name} has no seed {', '.join(map(str, unknown))}; there are: "
                f"{', '.join(map(str, self.seeds))}. Add it to the file to run it"
            )
        found = []
        for seed in self.seeds if seeds is None else seeds:
            for split in self.splits:
                for column in self.columns:
                    for row in self.rows:
                        if (
                            not row.runs
                            or column.name not in (columns or [column.name])
                            or row.name not in (rows or [row.name])
                        ):
                            continue
                        parameters = {
                            **self.set,
                            **column.set,
                            **row.set,
                            "SEED": seed,
                            "SPLIT_SEED": split,
                        }
                        cfg = self._config(parameters, f"row {row.name!r}, column {column.name!r}")
                        found.append(
                            {
                                "table": self.name,
                                "row": row.name,
                                "column": column.name,
                                "seed": seed,
                                "split": split,
                                "parameters": parameters,
                                "first": row.first,
                                "key": digest([cfg.identity(), *versions(cfg)]),
                            }
                        )
        return found

    def _config(self, parameters: dict[str, Any], where: str) -> RunConfig:
        try:
            return config_of(parameters)
        except NbkitError as error:
            raise NbkitError(f"tables/{self.name}.yaml, {where}: {error}") from None


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
        table = Table(**{"name": name, **yaml.safe_load(path.read_text())})
        if table.twin_of:
            _take_printed(table, load_table(table.twin_of))
    except (ValidationError, yaml.YAMLError, TypeError, LookupError) as error:
        raise NbkitError(f"{path}: {error}") from None
    return table


def _take_printed(twin: Table, paper: Table) -> None:
    """The twin's printed numbers are those of the paper's table: they stand in one file only."""
    columns = {c.name: c.printed_as for c in twin.columns} | (
        {twin.mean: paper.mean} if twin.mean else {}
    )
    if unknown := {c for c in columns.values() if c} - {
        *(c.name for c in paper.columns),
        paper.mean,
    }:
        raise LookupError(f"printed_as {', '.join(sorted(unknown))} is no column of {paper.name}")
    for row in twin.rows:
        if row.printed:
            raise LookupError(
                f"row {row.name!r}: a twin takes its printed numbers from {paper.name}, it holds none"
            )
        if not row.printed_as:
            continue
        if row.printed_as not in {r.name for r in paper.rows}:
            raise LookupError(
                f"row {row.name!r}: printed_as {row.printed_as!r} is no row of {paper.name}"
            )
        theirs = paper.row(row.printed_as)
        row.copied = theirs.copied
        row.printed = {
            mine: theirs.printed[yours]
            for mine, yours in columns.items()
            if yours in theirs.printed
        }


@lru_cache
def _manifest(name: str):
    return load_manifest(name)


def videos_tested(table: Table, column: str) -> int | None:
    """Target test videos of a column, from the manifest's expected counts; None where a split seed
    decides.
    """
    cfg = config_of({**table.set, **table.column(column).set})
    manifest = _manifest(cfg.benchmark)
    if cfg.benchmark == "demo":
        return cfg.data.demo_test * len(manifest.classes)
    expected = manifest.domains[cfg.target].expected_now()
    return expected.counts.get("test") if expected else None


def printed_videos(table: Table, column: str) -> int | None:
    """Test videos behind a column's printed numbers: a twin's are those of the paper's benchmark."""
    if not table.twin_of:
        return videos_tested(table, column)
    there = table.column(column).printed_as
    return videos_tested(load_table(table.twin_of), there) if there else None


def find_run(cfg: RunConfig) -> Path | None:
    """The finished run folder of a configuration, or None; one that an older version of the code
    left does not count.

    Where the data changed between two runs of a configuration, the later one counts.  The data
    itself is not looked at here, so a batch does not notice that it changed: notebook 04
    (`nbkit.train.loop.run`) does, and trains anew.
    """
    found = []
    pattern = f"{cfg.benchmark}-{cfg.source}-{cfg.target}-{cfg.method}-s{cfg.seed}-*/metrics.json"
    for path in Path(cfg.watch.runs_dir).glob(pattern):
        config = json.loads((path.parent / "config.json").read_text())
        try:
            same = RunConfig(**config).identity() == cfg.identity()
        except ValidationError:
            continue  # written by another version of the suite
        metrics = json.loads(path.read_text())
        made_with = [
            metrics.get("result_version", 1),
            metrics.get("evaluation_version", 1),
            *metrics.get("method_version", []),
        ]
        if same and made_with == versions(cfg):
            found.append(path)
    return max(found, key=lambda p: p.stat().st_mtime).parent if found else None
