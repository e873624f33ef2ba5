"""Whole frames, decoded and resized once, for localization: no crop, because a crop cuts actors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nbkit.data.arrays import VideoArrays, answers_of, key_of
from nbkit.data.cache import sources_of
from nbkit.data.sources import Source, frames_of, look, read_frames

# raise it when the same videos would give other bytes
_VERSION = 2


class FrameCache:
    """The frames of the videos of a table.

    Attributes:
        key: stands for the content of all videos and for the size.
        size: (height, width) in pixels of what is stored.
    """

    def __init__(self, arrays: VideoArrays, sources: dict[str, Source], key: str):
        self.arrays, self.sources, self.key = arrays, sources, key
        self.size: tuple[int, int] = arrays.shape[:2]
        self.n_frames = arrays.n_frames
        self.frames = arrays.read  # uint8 (N, H, W, 3), a read-only view of the file

    def native_size(self, video: str) -> tuple[int, int]:
        """(height, width) in pixels of the file, which its boxes refer to."""
        return read_frames(self.sources[video], 1).shape[1:3]


def build_frame_cache(
    table: pd.DataFrame, cache_dir: str | Path, *, size: tuple[int, int], progress: bool = True
) -> FrameCache:
    """Decode the videos of a table and resize them to `size` = (height, width).

    Videos that an earlier call has stored with the same size are not decoded again.

    Args:
        table: columns `video`, `path` (a video file, or a folder of frames) and, where a layout
            has it, `frames_by`.
        cache_dir: the files become cache_dir/frames-<size>/<video>.npy.

    Raises:
        NbkitError: naming every file that is missing or cannot be decoded.
    """
    sources, prints = sources_of(table)
    settings = {"version": _VERSION, "size": list(size)}
    names = {video: key_of({"video": video, "content": p}) for video, p in prints.items()}
    folder = Path(cache_dir) / f"frames-{key_of(settings)}"
    arrays = VideoArrays(folder, names, (*size, 3), np.uint8)

    def rows(video: str) -> int:
        return look(sources[video]).frames

    def work(video: str) -> np.ndarray:
        # the whole video at its own size may not fit the memory
        return np.concatenate([resize(x[None], size) for x in frames_of(sources[video])])

    arrays.make_missing(rows, work, title="frames", progress=progress)
    return FrameCache(arrays, sources, key_of({"files": sorted(prints.items()), **settings}))


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, h, w, 3) -> (N, H, W, 3) uint8."""
    height, width = size
    if frames.shape[1:3] == (height, width):
        return frames
    how = cv2.INTER_AREA if height < frames.shape[1] else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def scale_boxes(boxes: np.ndarray, native: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) of a native (height, width) frame in the coordinates of the resized one."""
    y, x = size[0] / native[0], size[1] / native[1]
    return boxes * [x, y, x, y]
