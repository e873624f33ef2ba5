"""Where a table row's pixels and flow come from: a video file, or a folder of frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbkit.data import decode
from nbkit.data.arrays import fingerprint, key_of
from nbkit.data.frame_folders import (
    LAST_IMAGES,
    FlowImages,
    find_flow,
    flow_numbers,
    one_by_one,
    read_flow_images,
    video_images,
)
from nbkit.errors import NbkitError

# EPIC-Kitchens: the only frames that are read by number
SEGMENT_FRAME = "frame_{:010d}.jpg"
# relative difference of width / height between pictures and their flow that rounding explains
ASPECT = 0.02


@dataclass(frozen=True)
class Source:
    """One video of a table.

    Attributes:
        path: a video file or a folder of frames.
        start, stop: first and last frame number of a segment of such a folder, as written in the
            file names (from 1, both included); 0 means the whole video.
        flow_path: a folder of flow images.
        by_time: frames of the file are numbered by their time stamps.
    """

    path: str
    start: int = 0
    stop: int = 0
    flow_path: str = ""
    by_time: bool = False

    @property
    def is_folder(self) -> bool:
        return Path(self.path).is_dir()

    def images(self) -> list[Path]:
        """The image files of a folder or a segment of it."""
        if self.start > 0:
            return [self.image(n) for n in range(self.start, self.stop + 1)]
        return video_images(self.path)

    def image(self, number: int) -> Path:
        """The image file of a frame of a segment."""
        return Path(self.path) / SEGMENT_FRAME.format(number)


def source_of(row: Source | str | Path | Mapping[str, Any]) -> Source:
    """The source of a row of a resolved table; a plain path is a whole video."""
    if isinstance(row, Source):
        return row
    if isinstance(row, (str, Path)):
        return Source(str(row))
    path, flow_path = str(row["path"]), row.get("flow_path") or ""
    # NaN, from another layout, is not > 0
    if row.get("start_frame", 0) > 0:
        return Source(path, int(row["start_frame"]), int(row["stop_frame"]), flow_path)
    return Source(path, flow_path=flow_path, by_time=row.get("frames_by") == "time")


def look(source: Source) -> decode.Look:
    """Number and size of the frames; only the first one is decoded.

    Raises:
        NbkitError: a file that is missing, empty or truncated, or a gap in a folder of frames.
    """
    if not source.is_folder:
        return decode.look_at(source.path, source.by_time)
    images = source.images()
    if source.start > 0:
        for path in images:
            if not path.is_file():
                raise NbkitError(f"{path}: frame missing; was the archive extracted completely?")
    return decode.Look(len(images), *next(one_by_one(images)).shape[:2])


def frames_of(source: Source) -> Iterator[np.ndarray]:
    """The pictures of a source one after the other, uint8 (H, W, 3) RGB."""
    if not source.is_folder:
        return decode.video_frames(source.path, source.by_time)
    return one_by_one(source.images())


def read_frames(source: Source, max_frames: int | None = None) -> np.ndarray:
    """The pictures of a source, uint8 (N, H, W, 3) RGB; NbkitError names what is broken."""
    return np.stack(list(itertools.islice(frames_of(source), max_frames)))


def read_flow(
    source: Source,
    shape: tuple[int, ...],
    rate: float = 1.0,
    clip: float = 20.0,
    whole: bool = False,
) -> np.ndarray:
    """The stored flow of a source's first N frames.

    Args:
        shape: (N, H, W, ...) of the frames it belongs to; the images may be larger or smaller,
            of the same aspect.
        rate: flow images per frame, in (0, 1]; frame i (from 1) takes image ceil(i * rate).
        clip: the displacement in pixels (of the flow images) that byte 255 stands for.
        whole: N is the length of the video, so that there must not be many more images.

    Returns:
        (N, h, w, 2) float32, pixels of the flow images, (right, down).

    Raises:
        NbkitError: no flow folder, an image missing or broken, or another aspect or length than
            the frames.
    """
    n, height, width = shape[:3]
    first, stored = max(source.start, 1), _stored_flow(source)
    pairs, wanted = stored.count // 2, math.ceil(n * rate)
    if whole and source.start == 0 and pairs > wanted + LAST_IMAGES:
        raise NbkitError(
            f"{source.flow_path}: {pairs} pairs of flow images for {n} frames, which need "
            f"{wanted}; they were made of another copy, or at another rate than the manifest's"
        )
    flow = read_flow_images(stored, first, first + n - 1, rate, clip)
    h, w = flow.shape[1:3]
    if not math.isclose(w / h, width / height, rel_tol=ASPECT):
        raise NbkitError(
            f"{source.flow_path}: flow of {w}x{h} pixels does not fit frames of {width}x{height}; "
            "both must be cut alike, or they are out of place"
        )
    return flow


def _stored_flow(source: Source) -> FlowImages:
    if not source.flow_path:
        raise NbkitError(
            f"{source.path}: flow='precomputed', but the table names no flow folder; set "
            "`flow_images` in the options of its domain (docs/MANIFESTS.md), or compute the flow "
            "with flow='dis'"
        )
    return find_flow(source.flow_path)


def source_print(source: Source, with_flow: bool = False, flow_rate: float = 1.0) -> str:
    """Digest of a source's content.

    A file is known by its size and both ends, a folder by the names and sizes of its images, a
    segment by its place and its first, middle and last frame. `with_flow` adds the images that its
    flow begins with; of a segment the first, middle and last one.
    """
    numbers = [1]
    if not source.is_folder:
        found = fingerprint(source.path)
        if source.by_time:
            found = key_of([found, "by time"])
    elif source.start == 0:
        found = _names_and_sizes(source.images())
    else:
        numbers = [source.start, (source.start + source.stop) // 2, source.stop]
        found = _names_and_sizes([source.image(number) for number in numbers])
    if not with_flow:
        return found
    flow = _stored_flow(source)
    sizes = []
    for number in flow_numbers(flow, numbers, flow_rate):
        for pattern in (flow.u, flow.v):
            path = Path(pattern.format(number))
            sizes.append(path.is_file() and path.stat().st_size)
    return key_of([found, flow.count, *map(int, sizes)])


def _names_and_sizes(paths: list[Path]) -> str:
    return key_of([[path.name, path.stat().st_size] for path in paths])
