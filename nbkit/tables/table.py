"""Tables as data: `tables/<name>.yaml` says what every cell runs and what the paper printed.

A cell is a row's parameters, a column's parameters, a split and a seed, put together.  Its key is
a hash of the resulting configuration, so that two tables that hold the same cell share one run.
Importing this module loads no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT, Configuration
from nbkit.errors import NbkitError
from nbkit.files import Name, checked_name, read_yaml
from nbkit.train.store import CONFIGURATIONS, run_key

if TYPE_CHECKING:
    import pandas as pd

# What names a line of a results file; runs of two rows pair by the last three.
KEY = ["row", "column", "seed", "split"]
ACCURACIES = ("fused", "rgb", "flow")
# Localization: the heads of the two means that papers print, and of where their gains come from.
HEADINGS = {
    "frame_map": "Fr. mAP",
    "video_map_0.5": "Vid. mAP",
    "video_map_0.2": "Vid. mAP @0.2",
    "video_map_0.5:0.95": "Vid. mAP @0.5:0.95",
    "proposal_recall": "recall of proposals",
    "class_given_box": "class, box given",
    "box_iou": "IoU of boxes",
}
MEAN_PRECISIONS = ("frame_map", "video_map_0.5")


def _checked_label(label: str) -> str:
    if not re.fullmatch(r"[\w(][\w ()+,.:=→'’&%/-]{0,79}", label):
        raise ValueError(
            f"{label!r} cannot name a row or a column: letters, digits, blanks and ()+,.:=→'&%/- "
            "are allowed, 80 at most"
        )
    return label


Label = Annotated[str, AfterValidator(_checked_label)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def heading(measure: str) -> str:
    """How a table heads a measure."""
    return HEADINGS.get(measure, measure.removeprefix("ap_"))


@dataclass(frozen=True)
class Cell:
    """One run of a table: upper-case parameters, and the key of the resulting configuration.

    first: trains a stage that other cells load, so it is scheduled before them.
    """

    table: str
    task: str
    row: str
    column: str
    seed: int
    split: int
    parameters: dict[str, Any]
    first: bool
    key: str

    @property
    def place(self) -> tuple[str, str, int, int]:
        """Its values of `KEY`."""
        return self.row, self.column, self.seed, self.split

    @property
    def label(self) -> str:
        """The place, for people."""
        return f"{self.row} | {self.column} | seed {self.seed} split {self.split}"

    def config(self, **more: Any) -> Configuration:
        """The configuration; `more` are flat fields that change no number, such as runs_dir."""
        return configuration_of(self.task, self.parameters, **more)


def configuration_of(task: str, parameters: dict[str, Any], **more: Any) -> Configuration:
    """The configuration of a task from upper-case parameters."""
    flat = {name.lower(): value for name, value in parameters.items()}
    return CONFIGURATIONS[task].make(**flat, **more)


class Line(BaseModel):
    """A row or a column: its name, the parameters it sets, and what the paper printed.

    printed: by column, a number or (localization) a number per measure.  copied: the paper prints
    this row for another work's method, under that work's protocol.  runs: False for a row that is
    shown only.  same_as: a row above that has the same run.  measure: the stream that the row
    reads.  against: the row that gains are counted from.  printed_as: in a twin, the line of the
    paper's table that this line stands for.  first: see `Cell`.
    """

    model_config = ConfigDict(extra="forbid")
    name: Label
    set: dict[str, Any] = {}
    printed: dict[str, float | dict[str, float]] = {}
    note: str = ""
    first: bool = False
    copied: bool = False
    runs: bool = True
    same_as: str = ""
    measure: Literal["", "fused", "rgb", "flow"] = ""
    against: str = ""
    printed_as: str = ""

    def number(self, column: str, measure: str = "") -> float:
        """The printed number, NaN where the paper prints none."""
        found = self.printed.get(column, math.nan)
        if isinstance(found, dict):
            return found.get(measure, math.nan)
        return found

    @property
    def run_row(self) -> str:
        """Name of the row whose runs this row reads."""
        return self.same_as or self.name


class Table(BaseModel):
    """One YAML of tables/.

    mean: name of a last column, the mean of the others.  against: the row that gains are counted
    from, unless a row names its own.  twin_of: the paper's table that `printed_as` refers to.
    classes: localization only, in the paper's order.
    """

    model_config = ConfigDict(extra="forbid")
    name: Name
    title: str
    task: Literal["recognition", "localization"] = "recognition"
    paper: str = ""
    set: dict[str, Any]
    rows: list[Line]
    columns: list[Line]
    classes: list[Label] = []
    seeds: list[Seed]
    splits: list[Seed] = [0]
    note: str = ""
    mean: Literal[""] | Label = ""
    against: str = ""
    twin_of: str = ""

    @model_validator(mode="after")
    def _coherent(self) -> Table:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names) or len(set(self.column_names)) < len(self.columns):
            raise ValueError("two rows or two columns have the same name")
        if self.against and self.against not in names:
            raise ValueError(f"against: {self.against!r} is no row")
        for part in (self, *self.rows, *self.columns):
            for name in part.set:
                if not name.isupper() or name in ("SEED", "SPLIT_SEED", "RUNS_DIR"):
                    raise ValueError(
                        f"set: {name} is no parameter of a table (seeds and splits have lines of "
                        "their own; parameters have upper-case names)"
                    )
        for i, row in enumerate(self.rows):
            if row.against and row.against not in names:
                raise ValueError(f"row {row.name!r}: against {row.against!r}, which is no row")
            self._check_printed(row)
            if row.same_as:
                if row.same_as not in names[:i] or row.set:
                    raise ValueError(
                        f"row {row.name!r}: same_as must name a row above, and leaves no `set` of "
                        "its own"
                    )
                row.set = dict(self.row(row.same_as).set)
            if self.task == "localization" and {**self.set, **row.set}.get("ALLOW_PARTIAL"):
                raise ValueError(
                    f"row {row.name!r}: ALLOW_PARTIAL is for trying things out; a table counts "
                    "whole data only"
                )
        return self

    def _check_printed(self, row: Line) -> None:
        unknown = set(row.printed) - set(self.all_columns)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise ValueError(f"row {row.name!r}: printed for {names}, which is no column")
        for column, numbers in row.printed.items():
            fits = not isinstance(numbers, dict)
            if self.task == "localization":
                fits = not fits and set(numbers) == set(self.printed_measures)
            if not fits:
                raise ValueError(
                    f"row {row.name!r}, column {column!r}: printed needs one number in a "
                    "recognition table, in a localization table one for every class, frame_map "
                    "and video_map_0.5"
                )

    # --- what it holds ---------------------------------------------------------------------------
    @property
    def column_names(self) -> list[str]:
        """Names of the columns that have runs."""
        return [column.name for column in self.columns]

    @property
    def all_columns(self) -> list[str]:
        """The same and, where the table has one, the mean column."""
        return [name for name in (*self.column_names, self.mean) if name]

    @property
    def measures(self) -> list[str]:
        """The measures of a results file, all in percent; the first is the table's own."""
        if self.task == "recognition":
            return list(ACCURACIES)
        return [*HEADINGS, *(f"ap_{name}" for name in self.classes)]

    @property
    def printed_measures(self) -> list[str]:
        """The measures that a paper prints in one column, in its order."""
        if self.task == "recognition":
            return ["fused"]
        return [*(f"ap_{name}" for name in self.classes), *MEAN_PRECISIONS]

    def row(self, name: str) -> Line:
        """The row of that name; NbkitError without one."""
        return self._named("row", self.rows, name)

    def column(self, name: str) -> Line:
        """The column of that name; NbkitError without one."""
        return self._named("column", self.columns, name)

    def _named(self, what: str, lines: list[Line], name: str) -> Line:
        self._refuse_unknown(what, [name], [line.name for line in lines])
        return next(line for line in lines if line.name == name)

    def _refuse_unknown(self, what: str, asked: Sequence | None, known: Sequence) -> None:
        for name in asked or ():
            if name not in known:
                raise NbkitError(
                    f"{self.name} has no {what} {name!r}; there are: {', '.join(map(str, known))}"
                )

    def against_of(self, row: Line) -> str:
        """The row that `row`'s gain is counted from, '' for none."""
        name = row.against or self.against
        if name == row.name:
            return ""
        return name

    def runs_of(
        self, lines: pd.DataFrame, name: str, column: str | None = None, measure: str = ""
    ) -> pd.DataFrame:
        """The lines of the runs that a row reads, with what it reads there as `value`, never NaN.

        column: None, or the mean column, takes all of them.  measure: what rows without a stream
        of their own are read in; '': the table's own.
        """
        row = self.row(name)
        stream = row.measure or measure or self.measures[0]
        chosen = lines["row"] == row.run_row
        if column not in (None, self.mean):
            chosen &= lines["column"] == column
        own = lines[chosen]
        return own.assign(value=own.get(stream)).dropna(subset=["value"])

    # --- cells -----------------------------------------------------------------------------------
    def cells(
        self,
        seeds: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
    ) -> list[Cell]:
        """The cells of the named seeds, columns and rows (None: all), seed by seed.

        Cells of rows that share a run have the same key.  Raises NbkitError for an unknown name,
        seed or parameter.
        """
        self._refuse_unknown("row", rows, [row.name for row in self.rows])
        self._refuse_unknown("column", columns, self.column_names)
        self._refuse_unknown("seed", seeds, self.seeds)
        seeds = self.seeds if seeds is None else seeds
        columns = columns or self.column_names
        rows = rows or [row.name for row in self.rows]
        found = []
        for seed, split, column, row in product(seeds, self.splits, self.columns, self.rows):
            if row.runs and row.name in rows and column.name in columns:
                found.append(self._cell(row, column, seed, split))
        return found

    def _cell(self, row: Line, column: Line, seed: int, split: int) -> Cell:
        drawn = {"SEED": seed, "SPLIT_SEED": split}
        parameters = {**self.set, **column.set, **row.set, **drawn}
        try:
            key = run_key(configuration_of(self.task, parameters))
        except NbkitError as error:
            where = f"row {row.name!r}, column {column.name!r}"
            raise NbkitError(f"tables/{self.name}.yaml, {where}: {error}") from None
        place = (row.name, column.name, seed, split)
        return Cell(self.name, self.task, *place, parameters, row.first, key)


# --- files ---------------------------------------------------------------------------------------
def table_names() -> list[str]:
    """Names of all tables, sorted."""
    return sorted(path.stem for path in (ROOT / "tables").glob("*.yaml"))


def load_table(name: str) -> Table:
    """The table `tables/<name>.yaml`; NbkitError names the file and what is wrong in it."""
    path = ROOT / "tables" / f"{checked_name(name)}.yaml"
    if not path.exists():
        raise NbkitError(f"no table {name!r}; there are: {', '.join(table_names())}")
    try:
        table = Table(**{"name": name, **read_yaml(path)})
        if table.name != name:
            raise LookupError(f"name: {table.name!r} is not the file's; leave the line out")
        if table.twin_of:
            _take_printed(table, load_table(table.twin_of))
    except (ValidationError, LookupError) as error:
        raise NbkitError(f"{path}: {error}") from None
    return table


def _take_printed(twin: Table, paper: Table) -> None:
    """Give the twin the printed numbers of the paper's table: they stand in one file only."""
    columns = {column.name: column.printed_as for column in twin.columns if column.printed_as}
    if twin.mean:
        columns[twin.mean] = paper.mean
    unknown = set(columns.values()) - set(paper.all_columns)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise LookupError(f"printed_as {names} is no column of {paper.name}")
    theirs = {row.name: row for row in paper.rows}
    for row in twin.rows:
        if row.printed:
            raise LookupError(
                f"row {row.name!r}: a twin takes its printed numbers from {paper.name}, "
                "it holds none"
            )
        if not row.printed_as:
            continue
        if row.printed_as not in theirs:
            raise LookupError(
                f"row {row.name!r}: printed_as {row.printed_as!r} is no row of {paper.name}"
            )
        source = theirs[row.printed_as]
        row.copied = source.copied
        for mine, yours in columns.items():
            if yours in source.printed:
                row.printed[mine] = source.printed[yours]


# --- test sets -----------------------------------------------------------------------------------
manifest_of = cache(load_manifest)


def videos_tested(table: Table, column: str) -> int | None:
    """Target test videos of a recognition column, as the manifest expects them.

    None where a split seed decides.
    """
    cfg = configuration_of(table.task, {**table.set, **table.column(column).set})
    manifest = manifest_of(cfg.benchmark)
    if cfg.benchmark == "demo":
        return cfg.data.demo_test * len(manifest.classes)
    expected = manifest.domains[cfg.target].expected_now()
    if expected is None:
        return None
    return expected.counts.get("test")


def printed_videos(table: Table, column: str) -> int | None:
    """Test videos behind a column's printed numbers: a twin's are those of the paper's table."""
    if not table.twin_of:
        return videos_tested(table, column)
    there = table.column(column).printed_as
    if not there:
        return None
    return videos_tested(load_table(table.twin_of), there)
