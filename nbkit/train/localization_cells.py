"""One run of a localization table or of notebook 05, named by its parameters: found when finished,
trained when not.
"""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT, digest, notebook_parameters
from nbkit.config.localization import LocalizationConfig
from nbkit.data.locks import one_at_a_time
from nbkit.demo.write import VERSION as DEMO_VERSION
from nbkit.errors import NbkitError
from nbkit.models.discriminators import check_adapt
from nbkit.train.localization_data import DEMO, DEMO_COUNTS, localization_table
from nbkit.train.localization_run import (
    ROWS,
    LocalizationData,
    load_localization,
    refuse_other_data,
    row_config,
    run_row,
)

RESULT_VERSION = 3  # raise it when a change of the code alters the numbers of a finished run
WATCHING = {
    "log_every",
    "save_every",
    "eval_batch",
}  # fields of the detector's configuration that change no number


class LocalizationCell(BaseModel):
    """Benchmark, direction, table row and detector of one run. `model.adapt` follows from `row`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str = Field(
        DEMO, description="'demo_untrimmed', or a localization manifest of data_manifests/"
    )
    source: str = "studio"
    target: str = "street"
    row: str = Field("all three", description="a row of the paper's tables, see ROWS")
    split_seed: int = Field(
        0, ge=0, description="which grouped split, where the benchmark has no official one"
    )
    eval_split: Literal["test", "val"] = Field(
        "test", description="'val' while choosing settings, never in a table"
    )
    allow_partial: bool = Field(
        False, description="run on an incomplete copy; no table counts such a run"
    )
    demo_train: int = Field(
        DEMO_COUNTS["train"], ge=1, description="training videos a class and domain"
    )
    demo_test: int = Field(
        DEMO_COUNTS["test"], ge=2, description="test videos; the validation draw has half as many"
    )
    data_root: str = "data"
    runs_dir: str = "runs"
    model: LocalizationConfig

    @model_validator(mode="after")
    def _coherent(self) -> "LocalizationCell":
        refuse_a_path(self.benchmark)
        if self.source == self.target:
            raise ValueError(f"source and target are both {self.source!r}; they must differ")
        if self.row not in ROWS:
            raise ValueError(f"row={self.row!r}: choose one of {', '.join(ROWS)}")
        return self

    @classmethod
    def make(cls, size: str = "small", **fields: Any) -> "LocalizationCell":
        """The preset of `size`, then `fields` of the cell or of `LocalizationConfig` (None: keep
        the preset's value).

        `adapt` (any of t_img, t_ins, s_img; empty: the baseline) names the row unless `row` does.
        Raises NbkitError naming the parameter.
        """
        known = [k for k in (*cls.model_fields, *LocalizationConfig.model_fields) if k != "model"]
        for name in fields:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise NbkitError(
                    f"unknown parameter {name.upper()}"
                    + (f"; did you mean {near[0].upper()}?" if near else "")
                )
        given = {k: v for k, v in fields.items() if v is not None}
        own = {k: given.pop(k) for k in list(given) if k in cls.model_fields}
        adapt = given.pop("adapt", None)
        if adapt is not None and "row" not in own:
            own["row"] = row_of(adapt)
        for folder in (
            "data_root",
            "runs_dir",
        ):  # relative folders start at the checkout, wherever a kernel runs
            own[folder] = str(
                ROOT / Path(own.get(folder, cls.model_fields[folder].default)).expanduser()
            )
        adapt = ROWS.get(own.get("row", "all three"), ())
        try:
            return cls(model=LocalizationConfig.make(size, **given, adapt=adapt), **own)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
            raise NbkitError("the localization run is not valid\n  " + "\n  ".join(lines)) from None

    @classmethod
    def from_parameters(cls, names: dict[str, Any], **more: Any) -> "LocalizationCell":
        """The run of a notebook's upper-case names: `LocalizationCell.from_parameters(globals())`."""
        return cls.make(**{**notebook_parameters(names), **more})

    def with_row(self, row: str) -> "LocalizationCell":
        """The same run as another row of the table; NbkitError for a name that is no row."""
        if row not in ROWS:
            raise NbkitError(f"row={row!r}: choose one of {', '.join(ROWS)}")
        return self.model_copy(
            update={"row": row, "model": self.model.model_copy(update={"adapt": ROWS[row]})}
        )

    def identity(self) -> dict[str, Any]:
        """The fields that determine the numbers of a run."""
        own = self.model_dump(mode="json", exclude={"data_root", "runs_dir", "model"})
        if not self.allow_partial:  # whole data: the name that it always had
            del own["allow_partial"]
        if self.benchmark != DEMO:
            own = {k: v for k, v in own.items() if not k.startswith("demo_")}
        version = [RESULT_VERSION, DEMO_VERSION if self.benchmark == DEMO else 0]
        return {
            **own,
            "version": version,
            "model": self.model.model_dump(mode="json", exclude=WATCHING),
        }

    @property
    def folder(self) -> Path:
        """`runs_dir/localization/<readable name>-<hash>`."""
        row = "".join(c if c.isalnum() else "_" for c in self.row).lower()
        name = f"{self.benchmark}-{self.source}-{self.target}-{row}-s{self.model.seed}-{digest(self.identity(), 10)}"
        return Path(self.runs_dir) / "localization" / name

    @property
    def finished(self) -> bool:
        """Whether the run's metrics are there."""
        return (self.folder / "metrics.json").is_file()


@dataclass
class LocalizationResult:
    """A finished run: folder, metrics (percent), loss history."""

    cell: LocalizationCell
    folder: Path
    metrics: dict[str, Any]
    history: pd.DataFrame


def row_of(adapt: Iterable[str]) -> str:
    """Name of the table row with exactly these adaptation modules; 'I3D+RPN' for none."""
    wanted = check_adapt(adapt)
    return next(name for name, modules in ROWS.items() if modules == wanted)


def cell_data(cell: LocalizationCell, *, progress: bool = False) -> LocalizationData:
    """Frames and boxes of both domains, decoded once; the demo domains are rendered when absent."""
    counts = {"train": cell.demo_train, "val": cell.demo_test // 2, "test": cell.demo_test}
    known = load_manifest("demo" if cell.benchmark == DEMO else cell.benchmark).domains
    for field in ("source", "target"):
        if getattr(cell, field) not in known:
            raise NbkitError(
                f"{field.upper()}={getattr(cell, field)!r} is not a domain of {cell.benchmark}: "
                f"{', '.join(sorted(known))}"
            )
    classes, table = localization_table(
        cell.benchmark,
        cell.data_root,
        split_seed=cell.split_seed,
        counts=counts,
        allow_partial=cell.allow_partial,
        domains=(cell.source, cell.target),
    )
    with one_at_a_time(cell.data_root, cell.benchmark):
        return load_localization(
            table,
            classes,
            cell.source,
            cell.target,
            cell.model,
            Path(cell.data_root) / "cache",
            split=cell.eval_split,
            progress=progress,
        )


def run_cell(
    cell: LocalizationCell, data: LocalizationData | None = None, *, progress: bool = False
) -> LocalizationResult:
    """Train what is missing of a run, evaluate it, write its folder; a finished run is read, an
    interrupted one goes on.

    data: of `cell_data`, to share it between rows of one seed.
    """
    if data is not None:
        refuse_other_data(cell.folder, data)
    if not cell.finished:
        row_config(cell.model, cell.row)  # refuses what cannot be trained, before any work
        data = cell_data(cell, progress=progress) if data is None else data
        fabric = Fabric(accelerator="auto", devices=1)
        if cell.row == "AdaBN":  # its weights are the baseline's: only the statistics differ
            run_cell(cell.with_row("I3D+RPN"), data, progress=progress)
            cell.folder.mkdir(parents=True, exist_ok=True)
            for name in ("checkpoint.pt", "history.csv", "env.json"):
                shutil.copyfile(cell.with_row("I3D+RPN").folder / name, cell.folder / name)
        run_row(cell.model, data, cell.row, cell.folder, fabric=fabric, progress=progress)
    return read_run(cell)


def read_run(cell: LocalizationCell) -> LocalizationResult:
    """A finished run from its folder; NbkitError when it is not there."""
    if not cell.finished:
        raise NbkitError(f"{cell.folder}: this run is not finished")
    return LocalizationResult(
        cell,
        cell.folder,
        json.loads((cell.folder / "metrics.json").read_text()),
        pd.read_csv(cell.folder / "history.csv"),
    )
