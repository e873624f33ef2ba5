"""Where a table row's pixels and flow come from: a video file, or folders of images."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nbkit.data import decode
from nbkit.data.arrays import fingerprint, key_of
from nbkit.errors import NbkitError

# EPIC-Kitchens: the only frames that are read by number
SEGMENT_FRAME = "frame_{:010d}.jpg"
# relative difference of width / height between pictures and their flow that rounding explains
ASPECT = 0.02
NUMBERED = re.compile(r"(.*?)(\d*)(\.(?:jpe?g|png))", re.IGNORECASE)
# flow images that may be missing after the last one of a video
LAST_IMAGES = 4
# bytes that may follow the end of a JPEG picture, and hold it
JPEG_TAIL = 1 << 12


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


# --- folders of pictures -------------------------------------------------------------------------
def video_images(folder: str | Path) -> list[Path]:
    """A video's pictures in the order of their numbers, without the flow images beside them.

    Raises:
        NbkitError: no picture, or a number missing in between.
    """
    found = []
    for name, series in sorted(_numbered(Path(folder)).items()):
        if name.startswith("flow_"):
            continue
        numbers = sorted(series)
        for before, number in zip(numbers, numbers[1:]):
            if number != before + 1:
                raise NbkitError(
                    f"{folder}: frame {before + 1} missing after {series[before].name}; "
                    "was the archive extracted completely?"
                )
        found += [series[number] for number in numbers]
    if not found:
        raise NbkitError(f"{folder}: no frames in the folder")
    return found


def one_by_one(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Image files of one size as uint8 (H, W, 3) RGB each; NbkitError names a bad one."""
    for image in _images(paths, cv2.IMREAD_COLOR):
        yield np.ascontiguousarray(image[..., ::-1])  # OpenCV reads BGR


def _numbered(folder: Path) -> dict[str, dict[int, Path]]:
    """Images of a folder by what stands before their number: {'img_': {1: path, ...}, ...}."""
    series: dict[str, dict[int, Path]] = {}
    for entry in os.scandir(folder):
        match = NUMBERED.fullmatch(entry.name)
        if match and not entry.name.startswith("."):
            number = int(match.group(2) or 0)
            series.setdefault(match.group(1), {})[number] = folder / entry.name
    return series


def _images(paths: Sequence[Path], mode: int) -> Iterator[np.ndarray]:
    size = None
    for path in paths:
        try:
            # imdecode, not imread: names may hold any character
            data = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise NbkitError(
                f"{path}: frame missing; was the archive extracted completely?"
            ) from error
        image = cv2.imdecode(data, mode) if data.size else None
        # OpenCV paints the rest of a JPEG without an end grey
        jpeg = data[:2].tobytes() == b"\xff\xd8"
        if image is None or (jpeg and b"\xff\xd9" not in data[-JPEG_TAIL:].tobytes()):
            raise NbkitError(f"{path}: broken image ({data.size} bytes); extract it again")
        size = size or image.shape[:2]
        if image.shape[:2] != size:
            sizes = sorted([size, image.shape[:2]])
            raise NbkitError(f"{path.parent}: frames differ in size: {sizes}")
        yield image


# --- folders of flow images: a u and a v series ---------------------------------------------------
@dataclass(frozen=True)
class FlowImages:
    """The flow images of a video.

    Attributes:
        u, v: `str.format` patterns of their paths.
        first: number of the first image, 0 or 1.
        count: how many images there are.
    """

    u: str
    v: str
    first: int
    count: int


def find_flow(folder: str | Path) -> FlowImages:
    """The two series of a flow folder.

    They are sub-folders `u` and `v` (EPIC-Kitchens), or `flow_x_*` and `flow_y_*` (TSN).

    Raises:
        NbkitError: a series is missing.
    """
    folder = Path(folder)
    places = [place for place in (folder, folder / "u", folder / "v") if place.is_dir()]
    return _find_flow(folder, tuple(place.stat().st_mtime_ns for place in places))


# the segments of a long video share its flow folder; a changed folder has other stamps
@functools.lru_cache(maxsize=64)
def _find_flow(folder: Path, stamps: tuple[int, ...]) -> FlowImages:
    sides: list[dict[int, Path]] = []
    if len(stamps) == 3:
        for side in ("u", "v"):
            series = _numbered(folder / side)
            sides += [series[name] for name in sorted(series)[:1]]
    elif stamps:
        series = _numbered(folder)
        for u, v in (("flow_x_", "flow_y_"), ("flow_x", "flow_y")):
            sides = sides or [series[name] for name in (u, v) if name in series]
    if len(sides) != 2:
        raise NbkitError(
            f"{folder}: no flow images; expected folders u/ and v/, or flow_x_*.jpg and "
            "flow_y_*.jpg"
        )
    us, vs = sides
    first = min(min(us), min(vs), 1)  # numbers start at 0 or 1
    return FlowImages(_pattern(us), _pattern(vs), first, len(us) + len(vs))


def flow_numbers(flow: FlowImages, frames: Sequence[int], rate: float) -> list[int]:
    """Numbers of the flow images of some frames: frame i (from 1) has the ceil(i * rate)-th."""
    return [max(1, math.ceil(i * rate)) - 1 + flow.first for i in frames]


def read_flow_images(
    flow: FlowImages, start: int, stop: int, rate: float = 1.0, clip: float = 20.0
) -> np.ndarray:
    """Read the flow that belongs to frames start..stop (both included, from 1).

    With rate=0.5 (EPIC-Kitchens-55) two frames share one image. A value q in 0..255 stands for
    q / 255 * 2 * clip - clip pixels (TSN), so no motion, stored as 128, reads as 0.08 pixels for
    clip = 20. Flow spans several frames, so up to four images may not exist at the end of a
    video: the last one that exists is repeated there.

    Returns:
        (N, H, W, 2) float32 in pixels, in [-clip, clip]: horizontal u, then vertical v.

    Raises:
        NbkitError: rate outside (0, 1], or an image that is absent, broken or of another size.
    """
    if not 0 < rate <= 1 or clip <= 0:
        raise NbkitError(f"flow rate {rate} must lie in (0, 1] and flow clip {clip} above 0")
    numbers = flow_numbers(flow, range(start, stop + 1), rate)
    sides = []
    for pattern in (flow.u, flow.v):
        last = _last_existing(pattern, numbers[-1])
        wanted = [min(number, last) for number in numbers]
        each = sorted(set(wanted))
        paths = [Path(pattern.format(n)) for n in each]
        images = np.stack(list(_images(paths, cv2.IMREAD_GRAYSCALE)))
        sides.append(images[np.searchsorted(each, wanted)])  # (N, H, W)
    u, v = sides
    if u.shape != v.shape:
        raise NbkitError(f"{flow.u} and {flow.v}: sizes differ, {u.shape[1:]} and {v.shape[1:]}")
    scaled = np.stack([u, v], axis=-1).astype(np.float32) * np.float32(2 * clip / 255)
    return scaled - np.float32(clip)


def _pattern(series: dict[int, Path]) -> str:
    """The pattern of a series' paths, its padding taken from the shortest number."""
    path = series[min(series)]
    before, digits, after = NUMBERED.fullmatch(path.name).groups()
    # braces of the path itself are doubled
    before = f"{path.parent}/{before}".replace("{", "{{").replace("}", "}}")
    return f"{before}{{:0{len(digits)}d}}{after}"


def _last_existing(pattern: str, last: int) -> int:
    """`last`, or the image before the end of the video that stands in for it."""
    if any(os.path.isfile(pattern.format(last + i)) for i in range(1, LAST_IMAGES + 1)):
        return last  # not the end of the video: a missing image is a gap
    for number in range(last, max(last - LAST_IMAGES - 1, 0), -1):
        if os.path.isfile(pattern.format(number)):
            return number
    return last  # reading it will name the missing file
