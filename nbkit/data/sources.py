"""Where a table row's pixels and flow come from: a video file, a folder of frames, a segment of
one, stored flow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbkit.data.decode import probe, read_video
from nbkit.data.frame_folders import (
    FlowImages,
    find_flow,
    frame_path,
    read_flow_images,
    read_frame_folder,
    read_images,
    video_images,
)
from nbkit.data.store import fingerprint, key_of
from nbkit.errors import NbkitError

SEGMENT_FRAME = "frame_{:010d}.jpg"  # EPIC-Kitchens: the only frames that are read by number
# relative difference of width / height between pictures and their flow that rounding explains
ASPECT = 0.02


@dataclass(frozen=True)
class Source:
    """One video of a table.

    path: a video file or a folder of frames. start, stop: first and last frame number of a segment
    of such a folder, as written in the file names (1-based, both included); 0 means the whole
    video. flow_path: a folder of flow images.
    """

    path: str
    start: int = 0
    stop: int = 0
    flow_path: str = ""

    @property
    def is_folder(self) -> bool:
        return Path(self.path).is_dir()


def source_of(row: Source | str | Path | Mapping[str, Any]) -> Source:
    """The source of a row of a resolved table (a dict or a Series); a plain path is a whole video.
    """
    if isinstance(row, Source):
        return row
    if isinstance(row, (str, Path)):
        return Source(str(row))
    start = row.get("start_frame", 0)
    # NaN, from another layout, is not > 0
    segment = (int(start), int(row["stop_frame"])) if start > 0 else (0, 0)
    return Source(str(row["path"]), *segment, row.get("flow_path") or "")


def count_frames(source: Source) -> int:
    """Number of frames, found without decoding.

    Raises NbkitError naming the file: missing, empty, truncated, or a gap in a folder of frames.
    """
    if source.start > 0:
        numbers = range(source.start, source.stop + 1)
        missing = next((p for n in numbers if not (p := frame_path(source.path, SEGMENT_FRAME, n)).is_file()), None)
        if missing:
            raise NbkitError(f"{missing}: frame missing; was the archive extracted completely?")
        return len(numbers)
    return len(video_images(source.path)) if source.is_folder else probe(source.path).frames


def read_frames(source: Source, max_frames: int | None = None) -> np.ndarray:
    """The pictures of a source: uint8 (N, H, W, 3) RGB; NbkitError names what is missing or broken.
    """
    if source.start > 0:
        stop = source.stop if max_frames is None else min(source.stop, source.start + max_frames - 1)
        return read_frame_folder(source.path, SEGMENT_FRAME, source.start, stop)
    if source.is_folder:
        return read_images(source.path, video_images(source.path)[:max_frames])
    return read_video(source.path, max_frames)


def read_flow(source: Source, shape: tuple[int, ...], rate: float = 1.0, clip: float = 20.0) -> np.ndarray:
    """The stored flow of a source's first N frames.

    Args:
        shape: (N, H, W, ...) of the frames it belongs to; the images may be larger or smaller,
            of the same aspect.
        rate: flow images per frame, in (0, 1]; frame i (1-based) takes image ceil(i * rate).
        clip: the displacement in pixels (of the flow images) that byte 255 stands for.

    Returns:
        (N, h, w, 2) float32, pixels of the flow images, (right, down).

    Raises:
        NbkitError: no flow folder, an image missing or broken, or another aspect than the frames.
    """
    n, height, width = shape[:3]
    first = max(source.start, 1)
    # (N, h, w, 2)
    flow = read_flow_images(stored_flow(source), first, first + n - 1, rate, clip=clip)
    h, w = flow.shape[1:3]
    if not math.isclose(w / h, width / height, rel_tol=ASPECT):
        raise NbkitError(f"{source.flow_path}: flow of {w}x{h} pixels does not fit frames of {width}x{height}; both must "
                         "be cut alike, or they are out of place")
    return flow


def stored_flow(source: Source) -> FlowImages:
    """The flow images of a source; NbkitError where the table names no folder for them."""
    if not source.flow_path:
        raise NbkitError(f"{source.path}: flow='precomputed', but the table names no flow folder; set `flow_images` in "
                         "the options of its domain (docs/MANIFESTS.md), or compute the flow with flow='dis'")
    return find_flow(source.flow_path)


def source_print(source: Source, with_flow: bool = False, flow_rate: float = 1.0) -> str:
    """Digest of a source's content.

    A file is known by its size and both ends, a folder by the names and sizes of its images, a
    segment by its place and its first, middle and last frame. `with_flow` adds the images that its
    flow begins with; of a segment the first, middle and last one, at `flow_rate` images a frame.
    """
    if not source.is_folder:
        found = fingerprint(source.path)
    else:
        names = _segment_names(source) if source.start > 0 else video_images(source.path)
        found = key_of([[n, (Path(source.path) / n).stat().st_size] for n in names])
    if not with_flow:
        return found
    flow = stored_flow(source)
    frames = _segment_numbers(source) if source.start > 0 else (1,)
    images = [frame_path(folder, pattern, math.ceil(n * flow_rate) - 1 + flow.first) for n in frames
              for folder, pattern in ((flow.u_dir, flow.u), (flow.v_dir, flow.v))]
    return key_of([found, flow.count, *(p.stat().st_size if p.is_file() else 0 for p in images)])


def _segment_names(source: Source) -> list[str]:
    return [SEGMENT_FRAME.format(n) for n in _segment_numbers(source)]


def _segment_numbers(source: Source) -> tuple[int, int, int]:
    return source.start, (source.start + source.stop) // 2, source.stop
