"""How fast machines are, for nbkit/cost.py: measured where it has been measured, an estimate that
says so elsewhere.

Seconds rest on benchmarks/results/step_cost.json (a CPU: operations a second by backbone, clip
loading, decoding and flow) and, where it has been made, on benchmarks/results/paper_profile.json (a
GPU).  Without the latter, GPU hours are an estimate: the device's published peak times an assumed
utilisation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.tables.cost import Cost, StageCost

RESULTS = ROOT / "benchmarks" / "results"
#: dense operations a second as published by the maker: tensor cores for bf16, TF32 off for 32-true
PEAK = {
    "A100": {"bf16-mixed": 312e12, "32-true": 19.5e12},
    "H100": {"bf16-mixed": 989e12, "32-true": 67e12},
    "H200": {"bf16-mixed": 989e12, "32-true": 67e12},
    "V100": {"bf16-mixed": 15.7e12, "32-true": 15.7e12},
    "RTX4090": {"bf16-mixed": 165e12, "32-true": 82.6e12},
}


@dataclass(frozen=True)
class Machine:
    """What the hours are predicted for.  `utilisation`: assumed share of the GPU's peak, where
    nothing was measured.
    """

    gpu: str = "A100"
    utilisation: float = 0.25


def measured(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """A committed file of measurements, {} where it has not been made."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def gpu_speed(cfg: RunConfig, machine: Machine, folder: Path = RESULTS) -> tuple[float, str]:
    """Operations a second on a GPU, and where the figure comes from."""
    case = next(
        (
            c
            for c in measured("paper_profile", folder).get("cases", [])
            if (c["backbone"], c["precision"]) == (cfg.model.backbone, cfg.optim.precision)
            and "flops_per_second" in c
        ),
        None,
    )
    if case:
        return case["flops_per_second"], f"measured on {case['device']}"
    if machine.gpu not in PEAK:
        raise NbkitError(f"gpu={machine.gpu!r} is not one of {', '.join(PEAK)}")
    peak = PEAK[machine.gpu][cfg.optim.precision]
    return (
        peak * machine.utilisation,
        f"estimate: {machine.utilisation:.0%} of the {machine.gpu}'s peak, not measured",
    )


def step_cost(folder: Path = RESULTS) -> dict[str, Any]:
    """The CPU's measurements; NbkitError says how to make them where they are absent."""
    found = measured("step_cost", folder)
    if not found:
        raise NbkitError(
            f"{folder / 'step_cost.json'} is missing: run `python benchmarks/step_cost.py`"
        )
    return found


def cpu_speed(cfg: RunConfig, folder: Path = RESULTS) -> float:
    """Operations a second on one thread of the CPU that step_cost.json was measured on."""
    return step_cost(folder)["backbones"][cfg.model.backbone]["flops_per_second"]


def read_seconds(stage: StageCost, cfg: RunConfig, folder: Path = RESULTS) -> float:
    """Seconds of assembling the batches of a stage on one thread; frame features cost next to
    nothing.
    """
    if cfg.model.backbone == "mobilenet_features":
        return 0.0
    return stage.read_bytes / step_cost(folder)["batch_bytes_per_second"]


def cache_seconds(found: Cost, folder: Path = RESULTS) -> float:
    """Seconds of decoding and flow on one thread.  Stored flow counts as a second decoding; that of
    RAFT, on a GPU, is not predicted.
    """
    per_frame = step_cost(folder)["cache_seconds_per_frame"]
    each = {"precomputed": 2 * per_frame["decode"], "raft": per_frame["decode"], **per_frame}[
        found.cfg.data.flow
    ]
    return found.cache_frames * each
