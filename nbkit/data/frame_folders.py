"""Videos stored as folders of JPEG frames: RGB, and optical flow as a ``u`` and a ``v`` folder (TSN convention)."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from nbkit.errors import NbkitError


def read_frame_folder(folder: str | Path, pattern: str, start: int, stop: int) -> np.ndarray:
    """Read frames start..stop (both included) of a frame folder.

    Args:
        folder: e.g. ``rgb/train/P08/P08_01``.
        pattern: ``str.format`` or printf pattern of the file name, e.g. ``frame_{:010d}.jpg`` or ``frame_%010d.jpg``.
        start, stop: first and last frame number as written in the file names.

    Returns:
        (N, H, W, 3) uint8 RGB with N = stop - start + 1.

    Raises:
        NbkitError: an empty range, or a frame that is absent, broken or of another size.
    """
    _check_range(folder, start, stop)
    images = [_read(folder, pattern, i, cv2.IMREAD_COLOR) for i in range(start, stop + 1)]
    return np.ascontiguousarray(_stack(images, folder)[..., ::-1])  # OpenCV reads BGR


def read_flow_folders(
    u_dir: str | Path,
    v_dir: str | Path,
    start: int,
    stop: int,
    rate: float = 1.0,
    *,
    pattern: str = "frame_{:010d}.jpg",
    clip: float = 20.0,
) -> np.ndarray:
    """Read the flow that belongs to RGB frames start..stop (both included, 1-based).

    RGB frame i takes flow image ceil(i * rate); with ``rate=0.5`` (EPIC-Kitchens-55) two RGB frames share one flow
    image. A JPEG value q in 0..255 stands for q / 255 * 2 * clip - clip pixels (TSN), so no motion, stored as 128,
    reads as 0.08 pixels for clip = 20. At the end of a video up to four flow images may not exist, because
    flow spans several frames: the last image that exists is repeated there.

    Returns:
        (N, H, W, 2) float32 in pixels, in [-clip, clip]: horizontal u, then vertical v.

    Raises:
        NbkitError: an empty range, rate outside (0, 1], or an image that is absent, broken or of another size.
    """
    _check_range(u_dir, start, stop)
    if not 0 < rate <= 1 or clip <= 0:
        raise NbkitError(f"flow rate {rate} must lie in (0, 1] and flow clip {clip} must be positive")
    numbers = [max(1, math.ceil(i * rate)) for i in range(start, stop + 1)]
    sides = []
    for folder in (u_dir, v_dir):
        last = _last_existing(folder, pattern, numbers)
        wanted = [min(n, last) for n in numbers]
        images = {n: _read(folder, pattern, n, cv2.IMREAD_GRAYSCALE) for n in sorted(set(wanted))}
        sides.append(_stack([images[n] for n in wanted], folder))
    if sides[0].shape != sides[1].shape:
        raise NbkitError(f"{u_dir} and {v_dir}: images differ in size {sides[0].shape[1:]} and {sides[1].shape[1:]}")
    return np.stack(sides, axis=-1).astype(np.float32) * np.float32(2 * clip / 255) - np.float32(clip)


def frame_path(folder: str | Path, pattern: str, number: int) -> Path:
    """Path of frame ``number``; accepts both ``{:05d}`` and ``%05d`` patterns."""
    return Path(folder) / (pattern % number if "%" in pattern else pattern.format(number))


def count_frames(folder: str | Path, suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png")) -> int:
    """Number of images directly in a folder."""
    return sum(p.suffix.lower() in suffixes for p in Path(folder).iterdir())


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


def _read(folder: str | Path, pattern: str, number: int, mode: int) -> np.ndarray:
    path = frame_path(folder, pattern, number)
    try:
        data = np.fromfile(path, dtype=np.uint8)  # imdecode, not imread: names may hold any character
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
