"""Actor boxes in the datasets' own formats, read into one form.

A box is ``[x1, y1, x2, y2]`` in pixels as float64, with x2 and y2 just outside the last pixel, so
that the width is x2 - x1. A NaN row means that the frame has no annotated actor.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from nbkit.benchmarks.safe_pickle import load_plain_pickle
from nbkit.errors import NbkitError

# a box with more than half of its area outside the frame is an error, not a rounding matter
_MAX_OUTSIDE = 0.5


@dataclass(frozen=True)
class Tube:
    """One actor through time: ``boxes`` (N, 4) for frames start .. start + N - 1 (0-based)."""

    class_name: str
    start: int
    boxes: np.ndarray


@dataclass(frozen=True)
class VideoTubes:
    """All tubes of a video of ``n_frames`` frames."""

    n_frames: int
    tubes: tuple[Tube, ...]


def clean_boxes(boxes: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    """Check boxes against the frame; a small overhang is clipped, anything worse is an error.

    Rule: NaN rows (no actor) pass; width and height must be positive; a box that loses at most half
    of its area by clipping to the frame is clipped; one that loses more is refused, because it
    belongs to another frame size.

    Args:
        boxes: (N, 4) xyxy in pixels.
        height, width: frame size in pixels.
        name: file named in error messages.

    Returns:
        (N, 4) float64.

    Raises:
        NbkitError: wrong shape, a partly missing box, zero area, or a box mainly outside the frame.
    """
    boxes = np.array(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise NbkitError(f"{name}: boxes have shape {boxes.shape}, expected (frames, 4)")
    known = ~np.isnan(boxes).all(axis=1)  # (N,)
    area = _area(boxes)
    empty = known & ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    if empty.any():
        raise NbkitError(f"{name}: frame {_first(empty)} has a box without area: {boxes[_first(empty)].tolist()}")
    clipped = np.clip(boxes, 0, [width, height, width, height])
    lost = known & ~(_area(clipped) >= (1 - _MAX_OUTSIDE) * area)
    if lost.any():
        raise NbkitError(
            f"{name}: the box of frame {_first(lost)}, {boxes[_first(lost)].tolist()}, lies mainly outside the "
            f"{width}x{height} frame; annotations and video do not belong together"
        )
    return clipped


def jhmdb_boxes(mask_path: str | Path) -> np.ndarray:
    """J-HMDB: the extent of the puppet mask in every frame.

    Args:
        mask_path: ``puppet_mask/<class>/<video>/puppet_mask.mat`` with ``part_mask`` (H, W, T),
            > 0 on the actor.

    Returns:
        (T, 4) float64; NaN where the mask of a frame is empty.

    Raises:
        NbkitError: unreadable file, no ``part_mask``, or no actor in any frame.
    """
    boxes = mask_extent(jhmdb_masks(mask_path))
    if np.isnan(boxes).all():
        raise NbkitError(f"{mask_path}: the mask is empty in every frame")
    return boxes


def jhmdb_masks(mask_path: str | Path) -> np.ndarray:
    """J-HMDB: the puppet mask of every frame, (T, H, W) bool.  Raises NbkitError: unreadable file
    or no ``part_mask``.
    """
    from scipy.io import loadmat

    path = Path(mask_path)
    try:
        mask = np.asarray(loadmat(path, variable_names=["part_mask"])["part_mask"])
    except Exception as error:  # scipy raises many types for a broken .mat file
        raise NbkitError(f"{path}: no readable puppet mask (key part_mask): {error!r}. Extract it again.") from error
    if mask.ndim == 2:
        mask = mask[:, :, None]  # MATLAB drops the last axis of a one-frame clip
    if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.number):
        raise NbkitError(f"{path}: part_mask has shape {mask.shape}, expected (H, W, T)")
    return np.moveaxis(mask, 2, 0) > 0


def read_actor_masks(path: str | Path, video: str = "this video") -> np.ndarray:
    """The actor's pixels in every frame of a demo (.npz) or J-HMDB (.mat) video, (T, H, W) bool at
    the file's own size.

    Raises NbkitError where there are none, or for a broken file.
    """
    from nbkit.demo.write import read_boxes

    suffix = Path(path).suffix if path else ""
    if suffix not in (".npz", ".mat"):
        raise NbkitError(f"{video}: no actor masks beside it; the demo domains and some classes of J-HMDB have them")
    return read_boxes(path)["masks"] if suffix == ".npz" else jhmdb_masks(path)


def mask_extent(masks: np.ndarray) -> np.ndarray:
    """(T, H, W) bool -> (T, 4) float64 xyxy; an empty mask gives a NaN row."""
    boxes = np.full((len(masks), 4), np.nan)
    for t, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            boxes[t] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def ucf101_24_tubes(pyannot_path: str | Path) -> dict[str, VideoTubes]:
    """UCF101-24, corrected annotations: ``'Class/video'`` -> tubes; frames 0-based, end exclusive
    in the file.

    The file stores [x, y, w, h] as uint8 or uint16 to save space: x + w would overflow, so cast
    first.

    Raises:
        NbkitError: not a plain pickle, or an entry without the expected fields.
    """
    path = Path(pyannot_path)
    if not path.is_file():
        raise NbkitError(f"{path}: no such annotation file")
    return _ucf101_24(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=2)
def _ucf101_24(pyannot_path: Path, _mtime: int, _size: int) -> dict[str, VideoTubes]:
    """The file is read once as long as it does not change: every video of the dataset asks for it.
    """
    table = load_plain_pickle(pyannot_path)
    if not isinstance(table, dict) or not table:
        raise NbkitError(f"{pyannot_path}: expected a table of videos, found {type(table).__name__}")
    try:
        return {str(name): _ucf_video(name, entry) for name, entry in table.items()}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise NbkitError(f"{pyannot_path}: not the UCF101-24 annotation layout: {error!r}") from error


def _ucf_video(name: str, entry: dict) -> VideoTubes:
    class_name = str(name).split("/")[0]
    tubes = []
    for item in entry["annotations"]:
        xywh = np.asarray(item["boxes"]).astype(np.float64).reshape(-1, 4)
        start, end = int(item["sf"]), int(item["ef"])
        if end - start != len(xywh):
            raise NbkitError(f"{name}: {len(xywh)} boxes for frames {start}..{end - 1}")
        tubes.append(Tube(class_name, start, _xywh_to_xyxy(xywh)))
    return VideoTubes(int(entry["numf"]), tuple(tubes))


def ucfsports_boxes(gt_dir: str | Path) -> np.ndarray:
    """UCF Sports: one ``x y w h label`` text file a frame, in the order of the number in the file
    name.

    Returns:
        (N, 4) float64 xyxy; an empty file gives a NaN row. The label in the file is ignored.

    Raises:
        NbkitError: no files, a number left out (later boxes would move to earlier frames), or a
            line without four numbers.
    """
    files = sorted(Path(gt_dir).glob("*.txt"), key=_frame_number)
    if not files:
        raise NbkitError(f"{gt_dir}: no gt/*.txt files; some published UCF Sports sequences have none")
    for i, path in enumerate(files):
        if _frame_number(path)[0] != _frame_number(files[0])[0] + i:
            raise NbkitError(f"{gt_dir}: no file for the frame before {path.name}; extract the archive again")
    boxes = np.full((len(files), 4), np.nan)
    for i, path in enumerate(files):
        fields = path.read_text(encoding="latin-1").split()
        if fields:
            try:
                boxes[i] = [float(f) for f in fields[:4]]
            except ValueError as error:
                raise NbkitError(f"{path}: expected 'x y w h label', found {' '.join(fields)!r}") from error
    return _xywh_to_xyxy(boxes)


def demo_boxes(path: str | Path) -> np.ndarray:
    """Demo videos: boxes (N, 4) float64 of the frames in which the action happens; NaN rows
    elsewhere.

    The file holds ``boxes`` (zeros where nobody is seen) and ``action`` (N,), True while the named
    action goes on.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            boxes, action = np.asarray(data["boxes"], dtype=np.float64), np.asarray(data["action"], dtype=bool)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise NbkitError(f"{path}: not a readable box file ({error}); render the demo data again") from error
    boxes[~action | (_area(boxes) <= 0)] = np.nan
    return boxes


def tubes_of(row) -> VideoTubes:
    """The annotated tubes of one table row (``boxes``, ``path``, ``class_name``), whatever the
    dataset.

    Tubes carry the common class name of the row and never hold NaN: where a dataset stores one box
    a frame, every run of annotated frames is a tube. Boxes are not clipped: use :func:`clean_boxes`
    with the frame size.
    """
    source = Path(row["boxes"]) if row["boxes"] else None
    if source is None:
        raise NbkitError(f"{row['video']}: this video has no boxes")
    if source.suffix == ".pkl":
        path = Path(row["path"])
        name = f"{path.parent.name}/{path.stem if path.suffix in ('.avi', '.mp4') else path.name}"
        found = ucf101_24_tubes(source).get(name)
        if found is None:
            raise NbkitError(f"{source}: has no entry for {name}")
        return VideoTubes(found.n_frames, tuple(Tube(row["class_name"], t.start, t.boxes) for t in found.tubes))
    reader = {".mat": jhmdb_boxes, ".npz": demo_boxes}.get(source.suffix, ucfsports_boxes)
    boxes = reader(source)
    return VideoTubes(len(boxes), tuple(Tube(row["class_name"], a, boxes[a:b]) for a, b in _runs(boxes)))


def _runs(boxes: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of every run of rows without NaN; stop exclusive."""
    known = np.concatenate([[False], ~np.isnan(boxes).any(axis=1), [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(known))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _first(mask: np.ndarray) -> int:
    return int(np.flatnonzero(mask)[0])


def _frame_number(path: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d+", path.name)
    return (int(numbers[-1]) if numbers else -1, path.name)
