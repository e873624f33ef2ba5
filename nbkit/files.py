"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write to a temporary file beside `path`, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of our own: the files of mkstemp can be read by their owner alone.
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path, age: float = 60.0) -> None:
    """Delete the temporary files of `atomically` below a folder that a killed process left.

    age: seconds since a file was changed; another process may still write a younger one.
    """
    for path in folder.rglob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            ours = re.search(r"\.[0-9a-f]{12}\.part$", path.name)
            if ours and time.time() - path.stat().st_mtime >= age:
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically."""
    text = json.dumps(value, indent=1, default=str) + "\n"
    atomically(path, lambda part: part.write_text(text))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of one table, atomically; the columns are all keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(part: Path) -> None:
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    atomically(path, write)
