"""Whole frames, decoded once and resized to one size, for localization: no crop, because a crop
cuts actors.
"""
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nbkit.data.sources import count_frames, read_frames, source_of, source_print
from nbkit.data.store import GrowingArray, key_of, new_folder, require_space, write_json
from nbkit.errors import NbkitError

VERSION = 1


class FrameCache:
    """A finished cache folder: frames.npy (all videos, one after another), index.csv,
    settings.json.

    Attributes: size = (height, width) in pixels of what is stored.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.size = tuple(json.loads((self.folder / "settings.json").read_text())["size"])
            index = pd.read_csv(self.folder / "index.csv", dtype={"video": str}, keep_default_na=False)
            self._frames = np.load(self.folder / "frames.npy", mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise NbkitError(f"{self.folder}: not a whole frame cache ({error}). Delete the folder.") from error
        self._rows = {row.video: row for row in index.itertuples(index=False)}

    def _row(self, video: str):
        if video not in self._rows:
            raise NbkitError(f"video {video!r} is not in the frame cache {self.folder}. Build it from the whole table.")
        return self._rows[video]

    def frames(self, video: str) -> np.ndarray:
        """uint8 (N, H, W, 3), a read-only view of the file."""
        row = self._row(video)
        return self._frames[row.start:row.start + row.frames]

    def n_frames(self, video: str) -> int:
        return int(self._row(video).frames)

    def native_size(self, video: str) -> tuple[int, int]:
        """(height, width) in pixels of the file, which its boxes refer to."""
        row = self._row(video)
        return int(row.height), int(row.width)


def build_frame_cache(table: pd.DataFrame, cache_dir: str | Path, *, size: tuple[int, int],
                      progress: bool = True) -> FrameCache:
    """Decode the videos of a table and resize them to `size` = (height, width), both axes for
    themselves.

    table: columns `video`, `path` (a video file, or a folder of frames). The folder is
    `cache_dir/frames-<key>`; a finished cache of the same files and size is reused, an interrupted
    build leaves nothing. Raises NbkitError naming the file that cannot be decoded.
    """
    paths = dict(zip(table["video"], table["path"]))
    gone = [p for p in paths.values() if not Path(p).exists()]
    if gone:
        raise NbkitError(f"{gone[0]}: no such video. Run `nbkit check-data` to see what is missing")
    sources = {video: source_of(path) for video, path in paths.items()}
    files = sorted((v, source_print(s)) for v, s in sources.items())
    key = key_of({"version": VERSION, "size": list(size), "files": files})
    final = Path(cache_dir) / f"frames-{key}"
    if final.exists():
        return FrameCache(final)
    require_space(cache_dir, sum(map(count_frames, sources.values())) * size[0] * size[1] * 3)
    with new_folder(final) as folder:
        array, rows = GrowingArray(folder / "frames.npy", (*size, 3), np.uint8), []
        try:
            for video, source in tqdm(sources.items(), "frames", disable=not progress):
                frames = read_frames(source)
                rows.append((video, array.length, *frames.shape[:3]))
                array.append(resize(frames, size))
        except BaseException:
            array.close(whole=False)
            raise
        array.close()
        columns = ["video", "start", "frames", "height", "width"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "index.csv", index=False)
        write_json(folder / "settings.json", {"version": VERSION, "size": list(size), "key": key})
    return FrameCache(final)


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, h, w, 3) -> (N, H, W, 3) uint8."""
    height, width = size
    if frames.shape[1:3] == (height, width):
        return frames
    how = cv2.INTER_AREA if height < frames.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(f, (width, height), interpolation=how) for f in frames])


def scale_boxes(boxes: np.ndarray, native: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Boxes of a native (height, width) frame in the coordinates of the resized one: (N, 4) -> (N,
    4).
    """
    y, x = size[0] / native[0], size[1] / native[1]
    return boxes * [x, y, x, y]
