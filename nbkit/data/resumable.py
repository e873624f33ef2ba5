"""A cache that is written video by video, so that an interrupted job goes on where it stopped.

The pieces lie in `.videos-<key>.part/` beside the finished caches: the growing arrays and a journal
with one line a video, written after the video's bytes are on the disk. What stands beyond the
journal is cut off when the job goes on.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from nbkit.data.store import GrowingArray, disk_errors, whole_pieces, write_json

ARRAYS = {"rgb": 3, "flow": 2}  # name -> channels


class PartialCache:
    """The unfinished folder of `final`; use as a context manager, which holds its lock.

    Args:
        final: the folder that the finished cache gets.
        settings: what the bytes depend on besides the videos; other settings never share a folder.
        files: video -> digest of its content. A video that is done counts only while its digest
            is the same.
        side: pixels of the stored squares.

    Attributes: done (names of the finished videos, in the order they are stored).
    """

    def __init__(self, final: Path, settings: Mapping[str, Any], files: Mapping[str, str], side: int):
        self.final, self.settings, self.files, self.side = final, dict(settings), dict(files), side
        self.folder = final.parent / f".{final.name}.part"
        self.lock = FileLock(_lock_path(self.folder))
        self.rows: list[tuple[str, int, int]] = []  # video, first frame, frames

    @property
    def done(self) -> set[str]:
        return {video for video, *_ in self.rows}

    def __enter__(self) -> PartialCache:
        with disk_errors(self.final, "run it again when that is repaired"):
            self.final.parent.mkdir(parents=True, exist_ok=True)
            # a second build of the same cache waits, and then finds it finished
            self.lock.acquire()
            if not self.final.exists():
                self._open()
        return self

    def __exit__(self, *_error) -> None:
        try:
            for array in getattr(self, "arrays", {}).values():
                # a full disk has been reported; what was not synced is made again
                with contextlib.suppress(OSError):
                    array.close(whole=False)
        finally:
            self.lock.release()

    def add(self, video: str, pieces: Mapping[str, np.ndarray]) -> None:
        """Store a video: uint8 pieces 'rgb' (N, side, side, 3) and 'flow' (N, side, side, 2)."""
        start, frames = self.arrays["rgb"].length, len(pieces["rgb"])
        with disk_errors(self.final, f"the {len(self.rows)} videos that are done are kept: run it again to go on, or "
                                     f"delete {self.folder}"):
            for name, array in self.arrays.items():
                array.append(pieces[name])
                array.sync()
            with open(self.folder / "journal.csv", "a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow((video, start, frames, self.files[video]))
        self.rows.append((video, start, frames))

    def finish(self, settings: Mapping[str, Any]) -> None:
        """Write what is left and give the folder its final name."""
        with disk_errors(self.final, "run it again to go on"):
            for array in self.arrays.values():
                array.close()
            pd.DataFrame(self.rows, columns=["video", "start", "frames"]).to_csv(self.folder / "index.csv", index=False)
            write_json(self.folder / "settings.json", settings)
            os.rename(self.folder, self.final)
            for name in ("journal.csv", "job.json"):
                (self.final / name).unlink()

    def discard(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- going on
    # -------------------------------------------------------------------------------------------------
    def _open(self) -> None:
        if not self.folder.exists():
            self._adopt()
        self.rows = self._usable(self.folder)
        self.folder.mkdir(exist_ok=True)
        write_json(self.folder / "job.json", self.settings)
        length = sum(frames for *_, frames in self.rows)
        self.arrays = {name: GrowingArray(self.folder / f"{name}.npy", (self.side, self.side, c), np.uint8, length)
                       for name, c in ARRAYS.items()}
        with open(self.folder / "journal.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows((*row, self.files[row[0]]) for row in self.rows)

    def _adopt(self) -> None:
        """Take over the pieces of a job that stopped at a broken file: its key was another, its
        good videos are these.
        """
        for other in sorted(self.final.parent.glob(".videos-*.part")):
            lock = FileLock(_lock_path(other))
            try:
                with lock.acquire(timeout=0):
                    if self._usable(other):
                        other.rename(self.folder)
            except (Timeout, OSError):
                continue  # somebody works on it
            if self.folder.exists():
                return

    def _usable(self, folder: Path) -> list[tuple[str, int, int]]:
        """The finished videos of a folder; none where one of them is not of this job, or the job's
        settings differ.
        """
        try:
            if json.loads((folder / "job.json").read_text(encoding="utf-8")) != self.settings:
                return []
            text = (folder / "journal.csv").read_bytes().decode("utf-8")
            stored = min(whole_pieces(folder / f"{name}.npy") for name in ARRAYS)
        except (OSError, ValueError):
            return []
        rows, length = [], 0
        # the last line may be torn
        for video, start, frames, print_ in csv.reader(text.split("\n")[:-1]):
            if self.files.get(video) != print_ or int(start) != length:
                return []
            length += int(frames)
            if length > stored:
                break
            rows.append((video, int(start), int(frames)))
        return rows


def _lock_path(folder: Path) -> str:
    return f"{folder}.lock"
