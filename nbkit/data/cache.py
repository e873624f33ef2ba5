"""Decode every video and compute its flow once; training then reads bytes by memory map."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from nbkit.data.arrays import VideoArrays, answers_of, key_of
from nbkit.data.decode import Look
from nbkit.data.flow import estimator, quantise
from nbkit.data.sources import Source, frames_of, look, read_flow, source_of, source_print
from nbkit.errors import NbkitError

# raise it when the same videos and settings would give other bytes
VERSION = 1
# flow that comes with a dataset
STORED = "precomputed"
RGB, FLOW = 3, 2  # channels
# a whole batch of RAFT's, so that no batch differs from one of the video as a whole
RAFT_PAIRS = 8
LEAST_FRAMES, LEAST_SIDE = 2, 16  # of a video whose flow can be computed


class VideoCache:
    """Pictures and flow of the videos of a table, as bytes.

    Attributes:
        key: stands for the content of all videos and for the settings.
        settings: the keyword arguments of `prepare_video`.
        size: side of the stored squares in pixels.
        flow_clip: displacement in pixels of the stored size that byte 255 means.
        arrays: the files; a frame is a row of them, its RGB bytes and then its flow bytes.
    """

    def __init__(self, arrays: VideoArrays, key: str, settings: dict[str, Any]):
        self.arrays, self.key, self.settings = arrays, key, settings
        self.size, self.flow_clip = settings["size"], settings["flow_clip"]
        self.split = RGB * self.size**2
        self.n_frames = arrays.n_frames

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def videos(self) -> list[str]:
        """Names of the videos, in the order of the table."""
        return list(self.arrays.paths)

    def rgb(self, video: str) -> np.ndarray:
        """uint8 (N, size, size, 3), a read-only view of the file."""
        return self.arrays.read(video)[:, : self.split].reshape(-1, self.size, self.size, RGB)

    def flow(self, video: str) -> np.ndarray:
        """uint8 (N, size, size, 2): flow in pixels of this size, as bytes."""
        return self.arrays.read(video)[:, self.split :].reshape(-1, self.size, self.size, FLOW)


def square(frames: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """Resize the short side to `size` and cut the centre square.

    (N, H, W, C) -> (N, size, size, C), and the scale.
    """
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    tall, wide = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = (tall - size) // 2, (wide - size) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = np.empty((len(frames), size, size, frames.shape[3]), frames.dtype)
    for t, frame in enumerate(frames):
        if (tall, wide) != (height, width):
            frame = cv2.resize(frame, (wide, tall), interpolation=how)
        out[t] = frame[top : top + size, left : left + size]
    return out, scale


def prepare_video(
    video: Source | str | Path,
    size: int,
    flow: str,
    flow_clip: float,
    max_frames: int | None = None,
    flow_rate: float = 1.0,
    image_clip: float = 20.0,
) -> tuple[np.ndarray, np.ndarray]:
    """One video's share of the cache: uint8 rgb (N, size, size, 3) and flow (N, size, size, 2).

    The flow is computed at the video's own resolution, where limbs are still wider than the
    estimator's patches; its vectors shrink with the picture, and so do stored ones.

    Args:
        size: side of the stored square pictures in pixels.
        flow: 'dis' | 'tvl1' | 'raft' | 'precomputed': then `flow_rate` (images per frame) and
            `image_clip` (pixels of byte 255) say how to read the stored images.
        flow_clip: displacement in pixels of the stored size that becomes byte 255 (in a cache
            size / 8 by default: 6 pixels at 48).
        max_frames: keep only the start of long videos.
    """
    cv2.setNumThreads(1)
    source = source_of(video)
    found = look(source)
    require_usable(source.path, found)
    flow_of = None if flow == STORED else estimator(flow, found.height, found.width)
    pairs = RAFT_PAIRS if flow == "raft" else 1
    small, motion, waiting = [], [], []

    def take(vectors: np.ndarray) -> None:
        vectors, scale = square(vectors, size)
        motion.append(quantise(vectors * scale, flow_clip))

    # one after the other: the whole video at its own size may not fit the memory
    for frame in itertools.islice(frames_of(source), max_frames):
        small.append(square(frame[None], size)[0])
        waiting.append(frame)
        if flow_of is None:
            waiting.pop()
        elif len(waiting) > pairs:
            take(flow_of(np.stack(waiting))[:-1])
            waiting = waiting[-1:]
    if flow_of is None:
        shape = (len(small), found.height, found.width)
        take(read_flow(source, shape, flow_rate, image_clip, whole=max_frames is None))
    elif len(waiting) > 1:
        take(flow_of(np.stack(waiting)))
    else:
        require_usable(source.path, found._replace(frames=len(small)))
        motion.append(motion[-1][-1:])  # the last one is repeated
    return np.concatenate(small), np.concatenate(motion)


def require_usable(name: str, found: Look) -> None:
    """Raise NbkitError where a video is too short or too small for flow."""
    if found.frames < LEAST_FRAMES or min(found.height, found.width) < LEAST_SIDE:
        raise NbkitError(
            f"{name}: {found.frames} frame(s) of {found.width}x{found.height} pixels; a clip needs "
            f"{LEAST_FRAMES} frames of {LEAST_SIDE}x{LEAST_SIDE}. Leave the video out."
        )


def build_cache(
    table: pd.DataFrame,
    cache_dir: str | Path,
    *,
    size: int,
    flow: str = "dis",
    flow_clip: float | None = None,
    workers: int = 2,
    progress: bool = True,
    max_frames: int | None = None,
    flow_rate: float = 1.0,
    image_clip: float = 20.0,
) -> VideoCache:
    """Decode all videos of a table and compute (or read) their flow, once.

    Videos that an earlier call has stored with the same settings, for this table or another one,
    are not decoded again.

    Args:
        table: rows of any domains and splits: `video`, `path` (a file or a folder of frames) and,
            where a layout gives them, `start_frame`, `stop_frame`, `flow_path`.
        cache_dir: the files become cache_dir/videos-<settings>/<video>.npy.
        size, flow, flow_clip, max_frames, flow_rate, image_clip: as in `prepare_video`.
        workers: threads; 'raft' fills the GPU from one.

    Raises:
        NbkitError: naming every broken file, or the file where the disk is full.
    """
    flow_clip = size / 8 if flow_clip is None else float(flow_clip)
    if size < 8 or flow_clip <= 0:
        raise NbkitError(
            f"size={size}, flow_clip={flow_clip}: size must be at least 8 and flow_clip above 0."
        )
    twice = table["video"][table["video"].duplicated()]
    if len(twice):
        raise NbkitError(f"video ids must be unique; {twice.iloc[0]!r} is not.")
    how = {"size": int(size), "flow": flow, "flow_clip": flow_clip, "max_frames": max_frames}
    if flow == STORED:
        how |= {"flow_rate": float(flow_rate), "image_clip": float(image_clip)}
    else:
        estimator(flow)  # raises where it cannot work
    if flow == "raft" and workers > 1:
        print(f"flow='raft' fills the GPU from one thread: workers=1 instead of {workers}")
        workers = 1

    sources, prints = sources_of(table, with_flow=flow == STORED, flow_rate=flow_rate)
    settings = {"version": VERSION, **how}
    names = {
        video: key_of({"video": video, "content": p, **settings}) for video, p in prints.items()
    }
    folder = Path(cache_dir) / f"videos-{key_of(settings)}"
    arrays = VideoArrays(folder, names, ((RGB + FLOW) * size**2,), np.uint8)

    def rows(video: str) -> int:
        found = look(sources[video])
        require_usable(sources[video].path, found)
        return min(found.frames, max_frames or found.frames)

    def work(video: str) -> np.ndarray:
        rgb, motion = prepare_video(sources[video], **how)
        n = len(rgb)
        return np.concatenate([rgb.reshape(n, -1), motion.reshape(n, -1)], axis=1)

    arrays.make_missing(rows, work, title="videos", workers=workers, progress=progress)
    key = key_of({"files": sorted(prints.items()), **settings})
    return VideoCache(arrays, f"videos-{key}", how)


def sources_of(table: pd.DataFrame, **how: Any) -> tuple[dict[str, Source], dict[str, str]]:
    """The sources of a table's videos and their `source_print`, by name; `how` as there.

    Raises NbkitError, naming every file that is missing.
    """
    sources = {row["video"]: source_of(row) for row in table.to_dict("records")}
    if not all(Path(source.path).exists() for source in sources.values()):
        answers_of(lambda video: look(sources[video]), sources)  # raises, naming all of them
    return sources, answers_of(lambda video: source_print(sources[video], **how), sources)
