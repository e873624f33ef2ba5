"""The run store: `<runs_dir>/<run>/` holds the files of one finished run, of either task.

    config.json    the configuration, flat
    history.csv    one line per epoch or logged step
    env.json       machine, versions and commit with which the training began
    metrics.json   the result; written last, its presence says that the run is finished
    predictions.csv (recognition) or detections.npz (localization)

Importing this module loads no torch, so that tables can be read quickly.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbkit.config import Configuration, digest
from nbkit.errors import NbkitError
from nbkit.methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "torchvision", "numpy", "av", "opencv-contrib-python-headless", "scikit-learn")


@dataclass
class Run:
    """A finished run: its configuration, folder, metrics (percent) and history."""

    cfg: Configuration
    folder: Path
    metrics: dict[str, Any]
    history: pd.DataFrame

    @property
    def predictions(self) -> pd.DataFrame:
        """One line per test video: video, label, the predicted class by stream and fused."""
        import pandas as pd  # here, because reading a table must not wait for it

        return pd.read_csv(self.folder / "predictions.csv")


# --- names ---------------------------------------------------------------------------------------
def run_key(cfg: Configuration) -> str:
    """Hash of all that the configuration says of a run's numbers: the key of a table's cell.

    The version of a method's class is part of it, so that results of an older version no longer
    count.
    """
    identity = cfg.identity()
    if cfg.task == "recognition":
        if cfg.method not in METHODS:
            raise NbkitError(f"METHOD={cfg.method!r} is not one of {', '.join(METHODS)}")
        identity["method_version"] = METHODS[cfg.method].version
    return digest(identity)


def run_folder(cfg: Configuration, data_key: str) -> Path:
    """Where a run's files go; `data_key` is the hash of the data that it read."""
    name = _readable_name(cfg) + digest([run_key(cfg), data_key], 10)
    return Path(cfg.watch.runs_dir) / name


def _readable_name(cfg: Configuration) -> str:
    row = cfg.method if cfg.task == "recognition" else cfg.row
    slug = "".join(letter if letter.isalnum() else "_" for letter in row).lower()
    return f"{cfg.benchmark}-{cfg.source}-{cfg.target}-{slug}-s{cfg.seed}-"


# --- reading -------------------------------------------------------------------------------------
def find_run(cfg: Configuration) -> Path | None:
    """The folder of the finished run of a configuration, or None.

    Where the data changed between two runs of a configuration, the later one counts.  The data
    itself is not looked at here; `run` looks at it, and trains anew where it changed.
    """
    key, found = run_key(cfg), []
    for path in Path(cfg.watch.runs_dir).glob(f"{_readable_name(cfg)}*/metrics.json"):
        if json.loads(path.read_text()).get("cell") == key:
            found.append(path)
    if not found:
        return None
    return max(found, key=lambda path: path.stat().st_mtime).parent


def finished(folder: Path) -> bool:
    """Whether the run in `folder` is complete."""
    return (folder / "metrics.json").is_file()


def read_run(cfg: Configuration, folder: Path) -> Run:
    """The finished run in `folder`; NbkitError where it is not finished."""
    import pandas as pd  # here, because reading a table must not wait for it

    if not finished(folder):
        raise NbkitError(f"{folder}: this run is not finished")
    metrics = json.loads((folder / "metrics.json").read_text())
    return Run(cfg, folder, metrics, pd.read_csv(folder / "history.csv"))


# --- provenance ----------------------------------------------------------------------------------
def environment(device: Any = "cpu") -> dict[str, Any]:
    """Machine, versions and commit; call it before training, or a later commit gets the credit.

    Args:
        device: where the run computes; a GPU is named only if that is one.
    """
    import torch  # here, because reading a table must not wait for it

    gpu = None
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit(),
    }


def _processor() -> str:
    """Model name of the processor; Linux says it in /proc only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str | None:
    """The checkout's commit, with '+' when the package, a table or a manifest differs from it.

    None outside a checkout.  Pages and notebooks change no number, and do not count.
    """
    try:
        head = _git("rev-parse", "--short", "HEAD")
        read = [f":/{folder}" for folder in ("nbkit", "tables", "data_manifests")]
        return head + ("+" if _git("status", "--porcelain", "-uno", "--", *read) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()
