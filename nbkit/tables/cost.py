"""Hours and disk that a table will need, without training, decoding or torch.

A run takes what committed runs took: the median of the same row, else of the same method on the
same benchmark and profile, else a measured step (benchmarks/step_cost.py) scaled to its clips and
method.  Stages that rows share count for every row: sums are upper bounds.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from statistics import median
from typing import Any, NamedTuple

from nbkit.config import ROOT, Configuration
from nbkit.tables.table import Cell, load_table, manifest_of, table_names
from nbkit.train.store import find_run

STEPS = ROOT / "benchmarks" / "results" / "step_cost.json"
COMMITTED = "as committed runs took"
SCALED = "scaled from a step on one CPU thread, benchmarks/results/step_cost.json"
BYTES_PER_PIXEL = {"recognition": 3 + 2, "localization": 3}


class Need(NamedTuple):
    """What one run needs: hours (NaN where nothing tells), and its cached clips in bytes."""

    cell: Cell
    done: bool
    hours: float
    basis: str
    cache: tuple[str, float]

    @property
    def text(self) -> str:
        """One line for people: the run, its parameters, its hours."""
        parameters = " ".join(f"{name}={value}" for name, value in self.cell.parameters.items())
        state = _hours(self.hours)
        if self.done:
            state = "done"
        return f"{self.cell.key}  {self.cell.label} | {parameters} | {state}"


def needs(cells: Iterable[Cell], runs_dir: str = "runs") -> list[Need]:
    """One entry per run of the cells; a run that rows share counts once."""
    found = []
    for cell in {cell.key: cell for cell in cells}.values():
        cfg = cell.config(runs_dir=runs_dir)
        done = find_run(cfg) is not None
        found.append(Need(cell, done, *_hours_of(cell, cfg), _cache(cfg)))
    return found


def total(name: str, found: list[Need]) -> str:
    """The sum over the runs that are still to be made, and what the hours rest on."""
    todo = [need for need in found if not need.done]
    caches = {name: size for name, size in (need.cache for need in todo)}
    disk = sum(caches.values()) / 1e9
    hours = _hours(sum(need.hours for need in todo))
    basis = "; ".join(sorted({need.basis for need in todo if need.basis}))
    return (
        f"{name}: {len(found)} runs, {len(todo)} to run: {hours}, {disk:.1f} GB of cached clips"
        f" ({basis or 'nothing to go by'})"
    )


def _hours(hours: float) -> str:
    if math.isnan(hours):
        return "hours not predicted"
    return f"at most {hours:.2f} h"


# --- hours ---------------------------------------------------------------------------------------
def _hours_of(cell: Cell, cfg: Configuration) -> tuple[float, str]:
    known = _committed()
    seconds = known.get((cell.table, cell.row)) or known.get(_kind(cell.parameters))
    if seconds:
        return median(seconds) / 3600, COMMITTED
    expected = manifest_of(_benchmark(cfg)).domains[cfg.source].expected_now()
    if cfg.task == "localization" or not expected or "train" not in expected.counts:
        return math.nan, ""
    like = {**cell.parameters, "BENCHMARK": "demo", "PROFILE": "demo"}
    own, plain = (_kind({**like, "METHOD": name}) for name in (cfg.method, "source_only"))
    relative = median(known.get(own, [math.nan])) / median(known.get(plain, [math.nan]))
    # An epoch sees every source video once.  Stage 1 has the contrastive terms alone.
    epochs = sum(cfg.optim.epochs)
    if cfg.method != "stcda" or cfg.stcl.alpha == 0:
        epochs -= cfg.optim.epochs[0]
    videos = expected.counts["train"] * epochs
    return relative * videos * _seconds_per_video(cfg) / 3600, SCALED


@cache
def _committed() -> dict[tuple, list[float]]:
    """Seconds of the committed runs, by (table, row) and by `_kind`."""
    seconds = defaultdict(list)
    for name in table_names():
        path, table = ROOT / "results" / f"{name}.csv", load_table(name)
        if not path.exists():
            continue
        kinds = {row.name: _kind({**table.set, **row.set}) for row in table.rows}
        for line in csv.DictReader(path.open()):
            spent = float(line["train_seconds"]) + float(line.get("evaluate_seconds", 0))
            for key in ((name, line["row"]), kinds.get(line["row"])):
                seconds[key].append(spent)
    return dict(seconds)


def _kind(parameters: dict[str, Any]) -> tuple:
    names = ("BENCHMARK", "PROFILE", "METHOD", "ROW", "MODALITIES")
    return tuple(parameters.get(name) for name in names)


def _seconds_per_video(cfg: Configuration) -> float:
    step = json.loads(STEPS.read_text())["backbones"][cfg.model.backbone]
    measured = step["batch"] * step["clips"] * step["frames"] * step["crop"] ** 2 * 2
    wanted = cfg.data.clips * cfg.data.frames * cfg.data.crop**2 * len(cfg.streams)
    return step["seconds_per_step"] * wanted / measured


# --- disk ----------------------------------------------------------------------------------------
def _cache(cfg: Configuration) -> tuple[str, float]:
    manifest, domains = manifest_of(_benchmark(cfg)), sorted((cfg.source, cfg.target))
    expected = [manifest.domains[name].expected_now() for name in domains]
    videos = sum(sum(known.counts.values()) for known in expected if known)
    if manifest.benchmark == "demo":
        each = cfg.data.demo_train + cfg.data.demo_test + cfg.data.demo_test // 2
        videos = 2 * each * len(manifest.classes)
    if cfg.task == "localization":
        pixels = cfg.data.height * cfg.data.width
    else:
        pixels = cfg.data.cache_size**2
    size = videos * manifest.mean_frames * pixels * BYTES_PER_PIXEL[cfg.task]
    return f"{cfg.benchmark} {domains} {pixels}", size


def _benchmark(cfg: Configuration) -> str:
    return cfg.benchmark.removesuffix("_untrimmed")
