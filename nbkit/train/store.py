"""The run store: `<runs_dir>/<run>/` holds the files of one finished run, of either task.

    config.json    the configuration, flat
    history.csv    one line per epoch or logged step
    env.json       machine, versions and commit with which the training began
    metrics.json   the result, and sums of the other files; written last: the run is finished
    predictions.csv (recognition) or detections.npz (localization)

Importing this module loads no torch, so that tables can be read quickly.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from nbkit.config import Configuration, digest
from nbkit.config.localization import LocalizationConfig
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError, require_one_of
from nbkit.files import held, sha256_of, write_json
from nbkit.methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

CONFIGURATIONS: dict[str, type[Configuration]] = {
    RunConfig.task: RunConfig,
    LocalizationConfig.task: LocalizationConfig,
}
FILES = ("config.json", "env.json", "history.csv", "predictions.csv", "detections.npz")
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
        return read_csv(self.folder / "predictions.csv", ("video", "label", "fused"))


def run(cfg: Configuration) -> Run:
    """Train what is missing of a run of either task, evaluate it, and return it.

    A finished run is read.
    """
    # Here, because reading a table imports this module and must not wait for torch.
    if cfg.task == "recognition":
        from nbkit.train.recognition import run as run_recognition

        return run_recognition(cfg)
    from nbkit.train.localization import run as run_localization

    return run_localization(cfg)


# --- names ---------------------------------------------------------------------------------------
def run_key(cfg: Configuration) -> str:
    """Hash of all that the configuration says of a run's numbers: the key of a table's cell.

    The version of a method's class is part of it, so that results of an older version no longer
    count.
    """
    identity = cfg.identity()
    if cfg.task == "recognition":
        require_one_of("METHOD", cfg.method, METHODS)
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
    pattern = f"{glob.escape(_readable_name(cfg))}*/metrics.json"
    for path in Path(cfg.watch.runs_dir).glob(pattern):
        metrics = read_metrics(path.parent)
        if metrics is not None and metrics["cell"] == key:
            found.append(path)
    if not found:
        return None
    return max(found, key=lambda path: path.stat().st_mtime).parent


def finished(folder: Path) -> bool:
    """Whether the run in `folder` is complete."""
    return read_metrics(folder) is not None


@contextmanager
def unfinished(folder: Path) -> Iterator[bool]:
    """Whether the run in `folder` is still to be made; if so, no other process makes it now."""
    if finished(folder):
        yield False
        return
    with held(folder.with_name(f".{folder.name}.lock"), "this run"):
        yield not finished(folder)


def read_run(cfg: Configuration, folder: Path) -> Run:
    """The finished run in `folder`; NbkitError where it is not finished."""
    metrics = read_metrics(folder)
    if metrics is None:
        raise NbkitError(f"{folder}: this run is not finished")
    return Run(cfg, folder, metrics, read_csv(folder / "history.csv", ["seconds"], ["seconds"]))


class Metrics(BaseModel):
    """What a metrics.json must hold; each task adds its own.

    files: SHA-256 of the run's other files.  sum: digest of all the rest.  Runs of earlier
    versions have neither.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)
    cell: str
    accuracy: dict[str, float] | None = None
    frame_map: float | None = None
    finished: str = ""
    files: dict[str, str] = {}
    sum: str = ""


def finish(folder: Path, metrics: dict[str, Any]) -> None:
    """Write metrics.json, with sums of the files that are there and of itself."""
    names = [name for name in FILES if (folder / name).exists()]
    metrics = {**metrics, "files": {name: sha256_of(folder / name) for name in names}}
    metrics["sum"] = digest(json.loads(json.dumps(metrics)))
    write_json(folder / "metrics.json", metrics)


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """The metrics of a finished run, None where there are none.

    A run of which a file is damaged or was changed is not finished: a warning names the file, and
    the next `run` evaluates anew what its checkpoints hold.
    """
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        said = Metrics.model_validate(found)
        rest = {name: value for name, value in found.items() if name != "sum"}
        changed = [n for n, s in said.files.items() if n in FILES and sha256_of(folder / n) != s]
        if (said.sum or said.files) and said.sum != digest(rest):
            changed.append("metrics.json")
        if changed:
            raise ValueError(f"changed since: {', '.join(changed)}")
        return found
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
        if path.exists():
            text = " ".join(str(error).split())[:200]
            warnings.warn(f"{path}: not the file of a finished run ({text})", stacklevel=3)
        return None
    except OSError as error:
        raise NbkitError(f"{path}: cannot be read now ({error}); look at its rights") from None


class Environment(BaseModel):
    """What tables read of an env.json."""

    model_config = ConfigDict(extra="allow")
    commit: str | None
    versions: dict[str, str]
    gpu: str | None
    threads: int


def read_environment(folder: Path) -> dict[str, Any]:
    """Where a finished run was trained; NbkitError for a damaged file."""
    path = folder / "env.json"
    try:
        return Environment.model_validate_json(path.read_bytes()).model_dump()
    except (OSError, ValueError) as error:
        raise NbkitError(
            f"{path}: not as a run writes it ({error}). Delete it and run again"
        ) from None


def read_csv(
    path: Path, needed: Sequence[str] = (), numbers: Sequence[str] = (), **how: Any
) -> pd.DataFrame:
    """A CSV that the suite wrote: it has the `needed` columns, and `numbers` are numbers.

    Raises NbkitError, which names the file and the column, for anything else.
    """
    import pandas as pd  # here, because reading a table must not wait for it

    try:
        found = pd.read_csv(path, **how)
        if not set(needed) <= set(found):
            raise ValueError(f"it lacks one of the columns {', '.join(needed)}")
        for name in set(numbers) & set(found):
            found[name] = pd.to_numeric(found[name])
        return found
    except (OSError, ValueError, TypeError) as error:  # pandas' own are ValueErrors
        problem = " ".join(str(error).split())[:200]
    raise NbkitError(
        f"{path}: not a file as the suite writes it ({problem}). Move it away; what belongs to a "
        "run is written anew by running again, what lies in results/ is in the repository"
    )


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
        if _git("status", "--porcelain", "-uno", "--", *read):
            head += "+"
        return head
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
    return done.stdout.strip()
