"""`nbkit cost TABLE`: every run of a table, its configuration, predicted hours and disk; what runs
share counts once.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nbkit.config.recognition import RunConfig
from nbkit.tables.cost import Cost, cost
from nbkit.tables.cost_speed import (
    RESULTS,
    Machine,
    cache_seconds,
    cpu_speed,
    gpu_speed,
    read_seconds,
)
from nbkit.tables.table import config_of, find_run, load_table


def table_costs(
    name: str, machine: Machine | None = None, runs_dir: str = "runs", folder: Path = RESULTS
) -> pd.DataFrame:
    """One line a run of `tables/<name>.yaml`.

    Columns: row, column, seed, split, key, status ('done' or 'to run'), settings (what differs from
    the profile), and the
    shares that this run is the first to need: gpu_hours, cpu_hours (the same training on one CPU
    thread), cache_hours (CPU), cache_gb, checkpoint_gb. A run that is done costs nothing.
    """
    machine, known, lines = machine or Machine(), {}, []
    stages_seen, caches_seen = set(), set()
    cells = list({cell["key"]: cell for cell in reversed(load_table(name).cells())}.values())[
        ::-1
    ]  # rows may share a run
    plans = []
    for cell in cells:
        cfg = config_of(cell["parameters"], runs_dir=runs_dir)
        plain = cfg.model_copy(update={"seed": 0, "split_seed": 0})
        name_of = str(plain.identity())
        known[name_of] = known.get(name_of) or cost(plain)
        plans.append((cell, cfg, known[name_of], find_run(cfg) is not None))
    for cell, cfg, found, done in sorted(
        plans, key=lambda p: not p[3]
    ):  # first what is done: its stages and caches are there
        line = {k: cell[k] for k in ("row", "column", "seed", "split", "key")}
        line |= {"status": "done" if done else "to run", "settings": settings(cfg)}
        costs = _share(found, (cfg.seed, cfg.split_seed), machine, folder, stages_seen, caches_seen)
        lines.append(line | (dict.fromkeys(costs, 0.0) if done else costs))
    order = {cell["key"]: i for i, cell in enumerate(cells)}
    return pd.DataFrame(sorted(lines, key=lambda line: order[line["key"]]))


def settings(cfg: RunConfig) -> str:
    """The configuration in a line: its profile, its domains, and what it sets otherwise than the
    profile.
    """
    hidden = (
        "profile",
        "benchmark",
        "source",
        "target",
        "seed",
        "split_seed",
        "runs_dir",
        "data_root",
    )
    changed = {k: v for k, v in cfg.changed().items() if k not in hidden}
    return " ".join(
        [cfg.watch.profile, f"{cfg.source}→{cfg.target}", *(f"{k}={v}" for k, v in changed.items())]
    )


def _share(
    found: Cost, draw: tuple, machine: Machine, folder: Path, stages_seen: set, caches_seen: set
) -> dict[str, float]:
    """Hours and gigabytes of what no earlier run of the table has needed."""
    cfg = found.cfg
    new = [s for s in found.stages if (s.key, draw) not in stages_seen]
    stages_seen |= {(s.key, draw) for s in new}
    flops, reading = sum(s.flops for s in new), sum(read_seconds(s, cfg, folder) for s in new)
    fresh = found.cache_key not in caches_seen
    caches_seen.add(found.cache_key)
    return {
        "gpu_hours": (flops / gpu_speed(cfg, machine, folder)[0] + reading) / 3600,
        "cpu_hours": (flops / cpu_speed(cfg, folder) + reading) / 3600,
        "cache_hours": fresh * cache_seconds(found, folder) / 3600,
        "cache_gb": fresh * found.cache_bytes / 1e9,
        "checkpoint_gb": sum(s.disk for s in new) / 1e9,
    }


def format_costs(
    name: str, lines: pd.DataFrame, machine: Machine | None = None, folder: Path = RESULTS
) -> str:
    """The list, the totals, and what the figures rest on."""
    return "\n".join(
        [
            f"{name}: {len(lines)} runs, {int((lines['status'] == 'to run').sum())} to run",
            *map(format_run, lines.itertuples()),
            "",
            format_total(name, lines, machine, folder),
        ]
    )


def format_run(r) -> str:
    """One line of the list, `r` a row of `table_costs`."""
    return (
        f"{r.key}  {r.row} | {r.column} | seed {r.seed} split {r.split} | {r.status} | {r.settings} | "
        f"GPU {r.gpu_hours:.2f} h, or CPU {r.cpu_hours:.2f} h; disk {r.cache_gb + r.checkpoint_gb:.2f} GB"
    )


def format_total(
    name: str, lines: pd.DataFrame, machine: Machine | None = None, folder: Path = RESULTS
) -> str:
    """The totals, and what the figures rest on."""
    machine = machine or Machine()
    sources = sorted(
        {
            gpu_speed(config_of(c["parameters"]), machine, folder)[1]
            for c in load_table(name).cells()
        }
    )
    total = lines[["gpu_hours", "cpu_hours", "cache_hours", "cache_gb", "checkpoint_gb"]].sum()
    return "\n".join(
        [
            f"to run, stages and caches that runs share counted once: GPU {total.gpu_hours:.1f} h, or "
            f"{total.cpu_hours:.1f} h on one CPU thread; decoding and flow {total.cache_hours:.1f} h on one CPU thread",
            f"disk: caches {total.cache_gb:.1f} GB, checkpoints {total.checkpoint_gb:.1f} GB",
            f"GPU hours: {'; '.join(sources)}; with the assembling of batches as measured on one CPU thread",
            "CPU hours, batches, decoding and flow: measured, benchmarks/results/step_cost.json",
        ]
    )
