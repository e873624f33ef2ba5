"""EPIC-Kitchens-55 with the MM-SADA segment tables: a row is a segment of a long video.

``<rgb>/<Pxx>/<Pxx_yy>/frame_%010d.jpg``, ``<flow>/<Pxx>/<Pxx_yy>/{u,v}/frame_%010d.jpg`` at half
rate, and ``D1_train.pkl`` (or ``.csv`` with the same columns) in a tables folder.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd

from nbkit.benchmarks.listing import Listing
from nbkit.benchmarks.manifest import EpicOptions
from nbkit.benchmarks.split_lists import read_text
from nbkit.data.safe_pickle import load_plain_pickle
from nbkit.data.sources import SEGMENT_FRAME
from nbkit.errors import NbkitError

WHOLE_NUMBERS = ["start_frame", "stop_frame", "verb_class"]
VIDEO_ID = re.compile(r"\w+")  # it becomes a path
SEGMENT_COLUMNS = ["uid", "participant_id", "video_id", *WHOLE_NUMBERS]


def list_segments(listing: Listing) -> None:
    """Segments of one kitchen.

    Adds start_frame, stop_frame (1-based, both included) and flow_path ('' where flow is not
    needed).
    """
    options = listing.spec.options
    if not listing.find_base(_table_paths(options, "train")):
        return
    rgb = listing.first_folder(options.rgb, "RGB frames")
    flow = options.flow and listing.first_folder(options.flow, "flow")
    if rgb is None or flow is None:
        return
    for split in ("train", "test"):
        table = _find_table(split, listing)
        if table is not None:
            for video, segments in table.groupby("video_id", sort=True):
                _add_video(str(video), segments, split, (rgb, flow), listing)


def read_segments(path: Path) -> pd.DataFrame:
    """A segment table from .pkl (nothing in it is run) or .csv.

    Returns:
        Columns ``SEGMENT_COLUMNS``; frames are int64 with 1 <= start_frame <= stop_frame.

    Raises:
        NbkitError: unreadable, columns missing, or a segment that ends before it starts.
    """
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(io.StringIO(read_text(path)))
        else:
            table = load_plain_pickle(path)
        missing = [c for c in SEGMENT_COLUMNS if c not in table]
        if missing:
            raise NbkitError(f"columns missing: {', '.join(missing)}")
        table = table[SEGMENT_COLUMNS]
        whole = table.astype(dict.fromkeys(WHOLE_NUMBERS, "int64"))
        if not (whole[WHOLE_NUMBERS] == table[WHOLE_NUMBERS].astype(float)).all(axis=None):
            raise NbkitError(f"{', '.join(WHOLE_NUMBERS)} must be whole numbers")
        names = whole["video_id"].fillna("").astype(str)
        strange = [name for name in names if not VIDEO_ID.fullmatch(name)]
        if strange:
            raise NbkitError(f"video_id {strange[0]!r} is not of the form P01_01")
        table = whole
    except (OSError, ValueError, TypeError) as error:
        raise NbkitError(f"{path}: not a table of segments: {error}") from error
    bad = table[(table["start_frame"] < 1) | (table["stop_frame"] < table["start_frame"])]
    if len(bad):
        raise NbkitError(
            f"{path}: segment uid {bad['uid'].iloc[0]} ends before it starts, or starts before "
            "frame 1"
        )
    return table


def _table_paths(options: EpicOptions, split: str) -> list[str]:
    paths = []
    for folder in options.tables:
        for suffix in ("pkl", "csv"):
            paths.append(f"{folder}/{options.domain}_{split}.{suffix}".removeprefix("./"))
    return paths


def _find_table(split: str, listing: Listing) -> pd.DataFrame | None:
    paths = [listing.base / path for path in _table_paths(listing.spec.options, split)]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        listing.problem("segment table missing", paths[0], "get it from the MM-SADA repository")
        return None
    try:
        return read_segments(path)
    except NbkitError as error:
        listing.problem("segment table unreadable", path, str(error))
        return None


def _add_video(
    video: str,
    segments: pd.DataFrame,
    split: str,
    folders: tuple[Path, Path | None],
    listing: Listing,
) -> None:
    rgb, flow = folders
    part = Path(video.split("_")[0], video)
    frames, flow_path = rgb / part, ""
    last = frames / SEGMENT_FRAME.format(int(segments["stop_frame"].max()))
    needed = [
        (frames, "frames folder missing", f"extract {video}.tar into it"),
        (last, "frames missing", "the archive was not extracted completely"),
    ]
    if flow:
        flow_path = str((flow / part).absolute())
        for side in ("u", "v"):
            needed.append((flow / part / side, "flow folder missing", "extract the flow archive"))
    for path, kind, advice in needed:
        if not path.exists():
            listing.problem(kind, path, advice)
            return
    common_class = listing.spec.common_class
    for segment in segments.itertuples():
        common = common_class.get(str(segment.verb_class))
        if common is not None:
            listing.add(
                f"{video}/{segment.uid}",
                frames,
                common,
                split,
                group=video,
                start_frame=int(segment.start_frame),
                stop_frame=int(segment.stop_frame),
                flow_path=flow_path,
            )
