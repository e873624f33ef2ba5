"""Videos stored as folders of JPEG frames: RGB, and optical flow as a ``u`` and a ``v`` folder (TSN
convention).
"""

from __future__ import annotations

import functools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nbkit.errors import NbkitError


def read_frame_folder(folder: str | Path, pattern: str, start: int, stop: int) -> np.ndarray:
    """Read frames start..stop (both included) of a frame folder.

    Args:
        folder: e.g. ``rgb/train/P08/P08_01``.
        pattern: ``str.format`` or printf pattern of the file name, e.g. ``frame_{:010d}.jpg``
            or ``frame_%010d.jpg``.
        start, stop: first and last frame number as written in the file names.

    Returns:
        (N, H, W, 3) uint8 RGB with N = stop - start + 1.

    Raises:
        NbkitError: an empty range, or a frame that is absent, broken or of another size.
    """
    _check_range(folder, start, stop)
    images = [_read(frame_path(folder, pattern, i), cv2.IMREAD_COLOR) for i in range(start, stop + 1)]
    return np.ascontiguousarray(_stack(images, folder)[..., ::-1])  # OpenCV reads BGR


def read_images(folder: str | Path, names: list[str]) -> np.ndarray:
    """The images of a folder by name: (N, H, W, 3) uint8 RGB; errors as in `read_frame_folder`."""
    images = [_read(Path(folder) / name, cv2.IMREAD_COLOR) for name in names]
    return np.ascontiguousarray(_stack(images, folder)[..., ::-1])


def video_images(folder: str | Path) -> list[str]:
    """File names of a video's pictures in the order of their numbers; flow images beside them are
    left out.

    Raises:
        NbkitError: no picture, or a number missing in between (an archive that was not
            extracted completely).
    """
    series = {k: v for k, v in numbered(folder).items() if not k.startswith("flow_")}
    if not series:
        raise NbkitError(f"{folder}: no frames in the folder")
    for found in series.values():
        numbers = sorted(found)
        gap = next((a + 1 for a, b in zip(numbers, numbers[1:]) if b != a + 1), None)
        if gap is not None:
            raise NbkitError(f"{folder}: frame {gap} missing after {found[gap - 1]}; was the archive extracted completely?")
    return [found[n] for _, found in sorted(series.items()) for n in sorted(found)]


def numbered(folder: str | Path) -> dict[str, dict[int, str]]:
    """Images of a folder by what stands before their number: {'img_': {1: 'img_00001.jpg', ...},
    'flow_x_': {...}}.
    """
    series: dict[str, dict[int, str]] = {}
    for entry in os.scandir(folder):
        match = _NUMBERED.fullmatch(entry.name)
        if match and not entry.name.startswith("."):
            series.setdefault(match.group(1), {})[int(match.group(2) or 0)] = entry.name
    return series


@dataclass(frozen=True)
class FlowImages:
    """Where the flow images of a video are: a folder and a name pattern for u and for v, the number
    of the first image (0 or 1) and how many there are.
    """

    u_dir: str
    v_dir: str
    u: str
    v: str
    first: int
    count: int


def find_flow(folder: str | Path) -> FlowImages:
    """The two series of a flow folder: sub-folders `u` and `v` (EPIC-Kitchens), or `flow_x_*` and
    `flow_y_*` (TSN).

    Raises:
        NbkitError: neither is there, or one side is.
    """
    folder = Path(folder)
    stamps = tuple(p.stat().st_mtime_ns for p in (folder, folder / "u", folder / "v") if p.is_dir())
    return _find_flow(folder, stamps)


# the segments of a long video share its flow folder; a changed folder has other stamps
@functools.lru_cache(maxsize=64)
def _find_flow(folder: Path, stamps: tuple[int, ...]) -> FlowImages:
    if len(stamps) == 3:
        places = [(folder / side, numbered(folder / side)) for side in ("u", "v")]
        found = [(place, next(iter(sorted(series.items())), None)) for place, series in places]
    elif folder.is_dir():
        series = numbered(folder)
        names = [("flow_x_", "flow_y_"), ("flow_x", "flow_y")]
        pair = next((p for p in names if any(k in series for k in p)), ("", ""))
        found = [(folder, (name, series[name]) if name in series else None) for name in pair]
    else:
        found = [(folder, None)] * 2
    if any(series is None for _, series in found):
        raise NbkitError(f"{folder}: no flow images; expected folders u/ and v/, or flow_x_*.jpg and flow_y_*.jpg")
    (u_dir, (_, us)), (v_dir, (_, vs)) = found
    first = min(min(us), min(vs), 1)  # numbers start at 0 or 1
    return FlowImages(str(u_dir), str(v_dir), _pattern(us), _pattern(vs), first, len(us) + len(vs))


def _pattern(names: dict[int, str]) -> str:
    """The `str.format` pattern of a series of names, its padding taken from the shortest number."""
    match = _NUMBERED.fullmatch(names[min(names)])
    before, digits, after = (text.replace("{", "{{").replace("}", "}}") for text in match.groups())
    return f"{before}{{:0{len(digits)}d}}{after}"


def read_flow_images(flow: FlowImages, start: int, stop: int, rate: float = 1.0, *, clip: float = 20.0) -> np.ndarray:
    """Read the flow that belongs to frames start..stop (both included, 1-based).

    Frame i takes the flow image number ceil(i * rate), counted from 1; with ``rate=0.5``
    (EPIC-Kitchens-55) two frames share one image. A JPEG value q in 0..255 stands for q / 255 * 2 *
    clip - clip pixels (TSN), so no motion, stored as 128, reads as 0.08 pixels for clip = 20. At
    the end of a video up to four flow images may not exist, because flow spans several frames: the
    last image that exists is repeated there.

    Returns:
        (N, H, W, 2) float32 in pixels, in [-clip, clip]: horizontal u, then vertical v.

    Raises:
        NbkitError: an empty range, rate outside (0, 1], or an image that is absent, broken or
            of another size.
    """
    _check_range(flow.u_dir, start, stop)
    if not 0 < rate <= 1 or clip <= 0:
        raise NbkitError(f"flow rate {rate} must lie in (0, 1] and flow clip {clip} must be positive")
    numbers = [max(1, math.ceil(i * rate)) - 1 + flow.first for i in range(start, stop + 1)]
    sides = []
    for folder, pattern in ((flow.u_dir, flow.u), (flow.v_dir, flow.v)):
        last = _last_existing(folder, pattern, numbers)
        wanted = [min(n, last) for n in numbers]
        images = {n: _read(frame_path(folder, pattern, n), cv2.IMREAD_GRAYSCALE) for n in sorted(set(wanted))}
        sides.append(_stack([images[n] for n in wanted], folder))
    if sides[0].shape != sides[1].shape:
        raise NbkitError(f"{flow.u_dir} and {flow.v_dir}: images differ in size {sides[0].shape[1:]} and {sides[1].shape[1:]}")
    return np.stack(sides, axis=-1).astype(np.float32) * np.float32(2 * clip / 255) - np.float32(clip)


def frame_path(folder: str | Path, pattern: str, number: int) -> Path:
    """Path of frame ``number``; accepts both ``{:05d}`` and ``%05d`` patterns."""
    return Path(folder) / (pattern % number if "%" in pattern else pattern.format(number))


_NUMBERED = re.compile(r"(.*?)(\d*)(\.(?:jpe?g|png))", re.IGNORECASE)
_TAIL = 4  # flow images that may be missing after the last one of a video


def _last_existing(folder: str | Path, pattern: str, numbers: list[int]) -> int:
    last = numbers[-1]
    if any(frame_path(folder, pattern, last + i).is_file() for i in range(1, _TAIL + 1)):
        return last  # not the end of the video: a missing image is a gap
    for number in range(last, max(last - _TAIL - 1, 0), -1):
        if frame_path(folder, pattern, number).is_file():
            return number
    return last  # reading it will name the missing file


def _check_range(folder: str | Path, start: int, stop: int) -> None:
    if start < 0 or stop < start:
        raise NbkitError(f"{folder}: frames {start}..{stop} are no valid range")


def _read(path: Path, mode: int) -> np.ndarray:
    try:
        # imdecode, not imread: names may hold any character
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise NbkitError(f"{path}: frame missing; was the archive extracted completely?") from error
    image = cv2.imdecode(data, mode) if data.size else None
    if image is None:
        raise NbkitError(f"{path}: broken image ({data.size} bytes); extract it again")
    return image


def _stack(images: list[np.ndarray], folder: str | Path) -> np.ndarray:
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise NbkitError(f"{folder}: frames differ in size: {sorted(sizes)}")
    return np.stack(images)
