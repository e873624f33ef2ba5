"""Run folders: `runs/<run id>/` with config.json, history.csv, metrics.json, predictions.csv and
env.json.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nbkit.config import digest
from nbkit.config.recognition import RunConfig
from nbkit.methods import METHODS

#: raise it when a change of the code alters the numbers of a backbone's finished runs
RESULT_VERSION = {"small": 2, "mobilenet_features": 1, "mobilenet": 1, "bn_inception": 1, "i3d": 1}
#: raise it when a change alters how a finished network is read: runs are evaluated anew, their
#: stages are not trained again
EVALUATION_VERSION = 2


def versions(cfg: RunConfig) -> list[int]:
    """Of the backbone's numbers, of the evaluation, and of the method's class where its own was
    raised above 1.
    """
    own = getattr(METHODS.get(cfg.method), "version", 1)
    return [RESULT_VERSION[cfg.model.backbone], EVALUATION_VERSION] + ([own] if own > 1 else [])


def run_id(cfg: RunConfig, data_key: str) -> str:
    """Name of a run: readable, and unique to configuration, data and result version."""
    key = digest({"config": cfg.identity(), "data": data_key, "version": versions(cfg)}, 10)
    return f"{cfg.benchmark}-{cfg.source}-{cfg.target}-{cfg.method}-s{cfg.seed}-{key}"


def environment(device: torch.device | str = "cuda") -> dict[str, Any]:
    """Machine and versions a result was made with; call it before training, or a later commit gets
    the credit.

    device: where the run computes; a GPU is named only if that is one.
    """
    names = (
        "torch",
        "torchvision",
        "numpy",
        "av",
        "opencv-contrib-python-headless",
        "scikit-learn",
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name()
        if torch.device(device).type == "cuda" and torch.cuda.is_available()
        else None,
        "versions": {n: version(n) for n in names},
        "commit": commit(),
    }


def commit() -> str | None:
    """The checkout's commit, with '+' when files differ from it; None outside a checkout."""

    def git(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
