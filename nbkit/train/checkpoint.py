"""Stage checkpoints: `<runs_dir>/stages/<key>.pt`, written whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nbkit.config import Configuration
from nbkit.errors import NbkitError
from nbkit.files import atomically, held, not_written


def stage_path(cfg: Configuration, key: str) -> Path:
    """Where the checkpoint of a stage lies."""
    return Path(cfg.watch.runs_dir) / "stages" / f"{key}.pt"


@contextmanager
def stage_file(cfg: Configuration, key: str) -> Iterator[Path]:
    """The path of a stage's checkpoint, held alone for the duration of the block."""
    path = stage_path(cfg, key)
    with held(path.with_name(f"{path.name}.lock"), "a stage that this run needs, too"):
        yield path


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """`torch.save`, atomically; NbkitError where the disk is full or the folder is read-only."""

    def write(part: Path) -> None:
        with part.open("wb") as file:  # given a path, torch would not say that the disk is full
            torch.save(state, file)

    try:
        atomically(path, write)
    except RuntimeError as error:
        # Closing the file that it cannot finish, torch hides the first error behind a second.
        if not isinstance(error.__context__, OSError):
            raise
        raise not_written(path, error.__context__) from None


def read_checkpoint(path: Path, *needed: str) -> dict[str, Any] | None:
    """The checkpoint at `path`, on the CPU, or None without a file.

    Raises NbkitError for a damaged file, for one without the `needed` entries, and for a file that
    may be good but cannot be read just now.  A lack of memory is raised as it is: the file is not
    to blame.
    """
    try:
        if not path.exists():
            return None
        with zipfile.ZipFile(path) as file:  # torch would not compare the check sums
            if (changed := file.testzip()) is not None:
                raise ValueError(f"its part {changed} changed")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not set(needed) <= set(state):
            raise ValueError(f"it lacks one of {', '.join(needed)}")
        return state
    except OSError as error:
        raise NbkitError(
            f"{path}: the checkpoint cannot be read now ({error}). The file itself may be good: "
            "look at its rights and its disk, and run again"
        ) from None
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise
        raise NbkitError(
            f"{path}: not a readable checkpoint ({error}). Move the file away and run again: what "
            "it held is trained anew"
        ) from None
