"""Data that several runs need is made by one of them; the others wait, and say for what."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 5.0  # seconds of silent waiting


@contextlib.contextmanager
def one_at_a_time(data_root: str | Path, benchmark: str) -> Iterator[None]:
    """A lock on what is made of `benchmark` below `data_root`: rendered videos, caches, features.
    """
    path = Path(data_root) / f".making-{benchmark}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        print(f"waiting: another process makes the data of {benchmark} ({path})", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
