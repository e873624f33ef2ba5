"""Actor boxes in the datasets' own formats, read into one form.

A box is [x1, y1, x2, y2] in pixels as float64, with x2 and y2 just outside the last pixel, so that
the width is x2 - x1. A NaN row means that the frame has no annotated actor.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbkit.data.safe_pickle import load_plain_pickle
from nbkit.demo.render import boxes_of
from nbkit.demo.write import read_boxes
from nbkit.errors import NbkitError

# no dots at the start of a part: names become paths
VIDEO_NAME = re.compile(r"[^/\\.][^/\\]*/[^/\\.][^/\\]*")
# a box with more than half of its area outside the frame is an error, not a rounding matter
MAX_OUTSIDE = 0.5
# bytes that the masks of a video may take: 40 frames of 320x240 take 3 million
LARGEST_MASK = 1 << 28
# of an annotation file; a small one may name the same boxes again and again
MOST_BOXES = 1 << 22
# corrected UCF101-24: one file in 260 has a frame more than its annotation counts
SPARE = 1


class AnnotatedTube(NamedTuple):
    """One actor through time: boxes (N, 4) of the frames start .. start + N - 1 (from 0)."""

    class_name: str
    start: int
    boxes: np.ndarray


class VideoTubes(NamedTuple):
    """All tubes of a video of `n_frames` frames; `spare` more at its end may have none."""

    n_frames: int
    tubes: list[AnnotatedTube]
    spare: int = 0


def tubes_of(row: Mapping[str, Any]) -> VideoTubes:
    """The annotated tubes of a table row (`boxes`, `path`, `class_name`), whatever the dataset.

    Tubes carry the common class name of the row and never hold NaN: where a dataset stores one box
    per frame, every run of annotated frames is a tube. Boxes are not clipped: use `clean_boxes`.
    """
    if not row["boxes"]:
        raise NbkitError(f"{row['video']}: this video has no boxes")
    file = Path(row["boxes"])
    own = row["class_name"]
    if file.suffix == ".pkl":
        name = str(row["video"]).partition("/")[2]  # without the domain
        videos = ucf101_24_tubes(file)
        if name not in videos:
            raise NbkitError(f"{file}: has no entry for {name}")
        found = videos[name]
        return found._replace(tubes=[tube._replace(class_name=own) for tube in found.tubes])
    readers = {".mat": jhmdb_boxes, ".npz": demo_boxes}
    boxes = readers.get(file.suffix, ucfsports_boxes)(file)
    known = np.concatenate([[False], ~np.isnan(boxes).any(axis=1), [False]])
    edges = np.flatnonzero(known[1:] != known[:-1]).tolist()
    tubes = [AnnotatedTube(own, a, boxes[a:b]) for a, b in zip(edges[::2], edges[1::2])]
    return VideoTubes(len(boxes), tubes)


def fitting_tubes(row: Mapping[str, Any], n_frames: int) -> VideoTubes:
    """`tubes_of` a video of `n_frames` frames.

    Raises:
        NbkitError: the annotation counts other frames, so that its boxes lie on other moments.
    """
    found = tubes_of(row)
    ends = [tube.start + len(tube.boxes) for tube in found.tubes]
    outside = max(ends, default=0) > n_frames or min((t.start for t in found.tubes), default=0) < 0
    if outside or not found.n_frames <= n_frames <= found.n_frames + found.spare:
        raise NbkitError(
            f"{row['video']}: {n_frames} frames, but {row['boxes']} annotates {found.n_frames} "
            f"with boxes up to frame {max(ends, default=0)}. They are of different copies: get "
            "both again from one place, or move the video away and pass ALLOW_PARTIAL = True"
        )
    return found


def clean_boxes(boxes: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    """Check boxes (N, 4) against the frame; a small overhang is clipped.

    NaN rows pass. Raises NbkitError, naming `name`, for a wrong shape, a partly missing box, no
    area, or a box that loses more than half of its area by clipping.
    """
    boxes = np.array(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise NbkitError(f"{name}: boxes have shape {boxes.shape}, expected (frames, 4)")
    known = ~np.isnan(boxes).all(axis=1)  # (N,)
    empty = known & ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    for frame in np.flatnonzero(empty):
        raise NbkitError(f"{name}: frame {frame} has a box without area: {boxes[frame].tolist()}")
    clipped = np.clip(boxes, 0, [width, height, width, height])
    lost = known & ~(_area(clipped) >= (1 - MAX_OUTSIDE) * _area(boxes))
    for frame in np.flatnonzero(lost):
        raise NbkitError(
            f"{name}: the box of frame {frame}, {boxes[frame].tolist()}, lies mainly outside the "
            f"{width}x{height} frame; annotations and video do not belong together"
        )
    return clipped


def jhmdb_boxes(path: str | Path) -> np.ndarray:
    """J-HMDB: the extent of the puppet mask in every frame, (T, 4); NaN where it is empty."""
    boxes = mask_extent(jhmdb_masks(path))
    if np.isnan(boxes).all():
        raise NbkitError(f"{path}: the mask is empty in every frame")
    return boxes


def jhmdb_masks(path: str | Path) -> np.ndarray:
    """J-HMDB: the puppet mask of every frame, (T, H, W) bool; NbkitError where there is none."""
    from scipy.io import loadmat  # slow to import, and only J-HMDB needs it

    try:
        _refuse_bomb(Path(path).read_bytes())
        mask = np.asarray(loadmat(path, variable_names=["part_mask"])["part_mask"])
    except Exception as error:  # scipy raises many types for a broken .mat file
        raise NbkitError(
            f"{path}: no readable puppet mask (key part_mask): {error!r}. Extract it again."
        ) from error
    if mask.ndim == 2:
        mask = mask[:, :, None]  # MATLAB drops the last axis of a one-frame clip
    if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.number):
        raise NbkitError(f"{path}: part_mask has shape {mask.shape}, expected (H, W, T)")
    return np.moveaxis(mask, 2, 0) > 0


def _refuse_bomb(data: bytes) -> None:
    """Raise ValueError where a part of a .mat file unpacks to more than any mask takes."""
    position, packed = 128, 15  # behind the header; the type of a compressed part
    while position + 8 <= len(data):
        kind, length = struct.unpack("<II", data[position : position + 8])
        start, position = position + 8, position + 8 + length
        if kind == packed:
            unpacker = zlib.decompressobj()
            unpacker.decompress(data[start:position], LARGEST_MASK)
            if unpacker.unconsumed_tail:
                raise ValueError(f"it unpacks to more than {LARGEST_MASK} bytes")


def read_actor_masks(path: str | Path, video: str = "this video") -> np.ndarray:
    """The actor's pixels in every frame of a demo or J-HMDB video, (T, H, W) bool."""
    suffix = Path(path).suffix
    if suffix == ".npz":
        return read_boxes(path)["masks"]
    if suffix == ".mat":
        return jhmdb_masks(path)
    raise NbkitError(
        f"{video}: no actor masks beside it; the demo domains and some classes of J-HMDB have them"
    )


def mask_extent(masks: np.ndarray) -> np.ndarray:
    """(T, H, W) bool -> (T, 4) float64 xyxy; an empty mask gives a NaN row."""
    boxes = boxes_of(masks).astype(np.float64)
    boxes[~masks.any((1, 2))] = np.nan
    return boxes


def ucf101_24_tubes(path: str | Path) -> dict[str, VideoTubes]:
    """UCF101-24, corrected annotations: 'Class/video' -> tubes."""
    path = Path(path)
    if not path.is_file():
        raise NbkitError(f"{path}: no such annotation file")
    return _ucf101_24(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)  # every video of the dataset asks for the file
def _ucf101_24(path: Path, _changed: int) -> dict[str, VideoTubes]:
    table = load_plain_pickle(path)
    if not isinstance(table, dict) or not table:
        raise NbkitError(f"{path}: expected a table of videos, found {type(table).__name__}")
    most = MOST_BOXES
    found: dict[str, VideoTubes] = {}
    for name, entry in table.items():
        if not VIDEO_NAME.fullmatch(str(name)):
            raise NbkitError(f"{path}: expected names of the form Class/video, found {name!r}")
        try:
            found[name] = _ucf_video(name, entry, most)
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise NbkitError(
                f"{path}, {name}: not the UCF101-24 annotation layout: {error!r}"
            ) from error
        most -= sum(len(tube.boxes) for tube in found[name].tubes)
    return found


def _ucf_video(name: str, entry: Mapping[str, Any], most: int) -> VideoTubes:
    own = name.split("/")[0]
    tubes = []
    for item in entry["annotations"]:
        if not isinstance(item["boxes"], np.ndarray):
            raise TypeError("boxes that are no array")
        most -= item["boxes"].size // 4
        if most < 0:
            raise ValueError(f"more than {MOST_BOXES} boxes")
        # stored as uint8 or uint16, in which x + w would overflow
        xywh = np.asarray(item["boxes"]).astype(np.float64).reshape(-1, 4)
        start, end = int(item["sf"]), int(item["ef"])
        if end - start != len(xywh):
            raise NbkitError(f"{name}: {len(xywh)} boxes for frames {start}..{end - 1}")
        tubes.append(AnnotatedTube(own, start, _xywh_to_xyxy(xywh)))
    return VideoTubes(int(entry["numf"]), tubes, SPARE)


def ucfsports_boxes(folder: str | Path) -> np.ndarray:
    """UCF Sports: one `x y w h label` text file per frame -> (N, 4); an empty file gives NaN.

    A number left out is refused: later boxes would move to earlier frames.
    """
    files = sorted((_last_number(path.name), path) for path in Path(folder).glob("*.txt"))
    if not files:
        raise NbkitError(f"{folder}: no gt/*.txt files; some published UCF Sports videos have none")
    boxes = np.full((len(files), 4), np.nan)
    for i, (number, path) in enumerate(files):
        if number != files[0][0] + i:
            raise NbkitError(
                f"{folder}: no file for the frame before {path.name}; extract the archive again"
            )
        text = path.read_text(encoding="latin-1").strip()
        if text:
            try:
                x, y, w, h = (float(field) for field in text.split()[:4])
                if not np.isfinite([x, y, w, h]).all() or "\n" in text:
                    raise ValueError
            except ValueError:
                raise NbkitError(
                    f"{path}: expected 'x y w h label' of one actor, found {text[:80]!r}"
                ) from None
            boxes[i] = x, y, w, h
    return _xywh_to_xyxy(boxes)


def demo_boxes(path: str | Path) -> np.ndarray:
    """Demo videos: boxes (N, 4) of the frames in which the action happens; NaN elsewhere.

    The file holds `boxes` (zeros where nobody is seen) and `action` (N,), True while the named
    action goes on.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            boxes = np.asarray(data["boxes"], dtype=np.float64)
            action = np.asarray(data["action"], dtype=bool)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NbkitError(
            f"{path}: not a readable box file ({error}); render the demo data again"
        ) from error
    boxes[~action | (_area(boxes) <= 0)] = np.nan
    return boxes


def _last_number(name: str) -> int:
    return int(re.findall(r"\d+", f"0 {name}")[-1])


def _xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
