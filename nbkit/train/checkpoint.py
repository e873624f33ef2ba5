"""Stage checkpoints: `<runs_dir>/stages/<key>.pt`, written whole or not at all.

A stage that two rows share has one key, and is trained once: the second run waits for the first
one's lock, and then loads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from nbkit.config import Configuration
from nbkit.errors import NbkitError
from nbkit.files import atomically


@contextmanager
def stage_file(cfg: Configuration, key: str) -> Iterator[Path]:
    """The path of a stage's checkpoint, held alone for the duration of the block."""
    folder = Path(cfg.watch.runs_dir) / "stages"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.pt"
    with FileLock(f"{path}.lock"):
        yield path


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """`torch.save`, atomically; NbkitError where the disk is full or the folder is read-only."""

    def write(part: Path) -> None:
        with part.open("wb") as file:  # given a path, torch would not say that the disk is full
            torch.save(state, file)

    try:
        atomically(path, write)
    except (OSError, RuntimeError) as error:
        # Closing the file that it cannot finish, torch hides the first error behind a second.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise NbkitError(
            f"{path}: the checkpoint could not be written ({cause}). Free some disk space and run "
            "again: training goes on from the last checkpoint that was saved"
        ) from None


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint at `path`, on the CPU, or None without a file.

    Raises NbkitError for a damaged file, and for a file that may be good but cannot be read just
    now.  A lack of memory is raised as it is: the file is not to blame.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
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
