"""EPIC-Kitchens-55 with the MM-SADA segment tables: a row is a segment of a long video.

``<rgb>/<Pxx>/<Pxx_yy>/frame_%010d.jpg``, ``<flow>/<Pxx>/<Pxx_yy>/{u,v}/frame_%010d.jpg`` at half
rate, and ``D1_train.pkl`` (or ``.csv`` with the same columns) in a tables folder.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nbkit.benchmarks.layouts.common import LayoutOptions, Listing, find_base, first_folder
from nbkit.benchmarks.manifest import DomainSpec
from nbkit.benchmarks.safe_pickle import load_plain_pickle
from nbkit.errors import NbkitError

COLUMNS = ["uid", "participant_id", "video_id", "start_frame", "stop_frame", "verb_class"]
FRAME_NAME = "frame_{:010d}.jpg"


class Options(LayoutOptions):
    """domain: D1, D2 or D3; tables, rgb, flow: folder names tried in order; need_flow: report
    missing flow.
    """

    domain: str
    tables: tuple[str, ...] = ("Annotations", "MM_SADA_Domain_Adaptation_Splits", "tables", ".")
    rgb: tuple[str, ...] = ("frames_rgb_flow/rgb/train", "frames_rgb_flow/rgb", "rgb/train", "rgb")
    flow: tuple[str, ...] = (
        "frames_rgb_flow/flow/train",
        "frames_rgb_flow/flow",
        "flow/train",
        "flow",
    )
    need_flow: bool = True


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Segments of one kitchen; adds start_frame, stop_frame (1-based, both included) and flow_path."""
    listing, options = Listing(), Options.model_validate(spec.options)
    markers = [
        f"{t}/{options.domain}_train.{s}".removeprefix("./")
        for t in options.tables
        for s in ("pkl", "csv")
    ]
    base = find_base(spec, root, markers, listing)
    if base is None:
        return listing
    rgb = first_folder(base, options.rgb, listing, "RGB frames")
    flow = first_folder(base, options.flow, listing, "flow") if options.need_flow else None
    if rgb is None or (options.need_flow and flow is None):
        return listing
    commons = {own: common for common, members in spec.classes.items() for own in members}
    for split in ("train", "test"):
        table = _find_table(base, options, split, listing)
        if table is not None:
            _add_split(table, split, rgb, flow, commons, listing)
    return listing


def read_segments(path: Path) -> pd.DataFrame:
    """A segment table from .pkl (nothing in it is run) or .csv.

    Returns:
        Columns ``COLUMNS``; frames are int64 with 1 <= start_frame <= stop_frame.

    Raises:
        NbkitError: unreadable, columns missing, or a segment that ends before it starts.
    """
    if path.suffix == ".csv":
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise NbkitError(f"{path}: not a readable CSV table: {error}") from error
    else:
        table = load_plain_pickle(path)
    if not isinstance(table, pd.DataFrame):
        raise NbkitError(f"{path}: holds a {type(table).__name__}, expected a table of segments")
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise NbkitError(f"{path}: columns missing: {', '.join(missing)}")
    try:
        table = table[COLUMNS].astype(
            {"start_frame": "int64", "stop_frame": "int64", "verb_class": "int64"}
        )
    except (ValueError, TypeError) as error:
        raise NbkitError(
            f"{path}: start_frame, stop_frame and verb_class must be whole numbers: {error}"
        ) from error
    bad = table[(table["start_frame"] < 1) | (table["stop_frame"] < table["start_frame"])]
    if len(bad):
        raise NbkitError(
            f"{path}: segment uid {bad['uid'].iloc[0]} ends before it starts, or starts before frame 1"
        )
    return table


def _find_table(base: Path, options: Options, split: str, listing: Listing) -> pd.DataFrame | None:
    names = [
        base / t / f"{options.domain}_{split}.{s}" for t in options.tables for s in ("pkl", "csv")
    ]
    path = next((p for p in names if p.is_file()), None)
    if path is None:
        listing.problem("segment table missing", names[0], "get it from the MM-SADA repository")
        return None
    try:
        return read_segments(path)
    except NbkitError as error:
        listing.problem("segment table unreadable", path, str(error))
        return None


def _add_split(
    table: pd.DataFrame, split: str, rgb: Path, flow: Path | None, commons: dict, listing: Listing
) -> None:
    for video_id, segments in table.groupby("video_id", sort=True):
        frames = rgb / str(video_id).split("_")[0] / str(video_id)
        flows = flow / str(video_id).split("_")[0] / str(video_id) if flow else None
        if not _video_is_there(frames, flows, int(segments["stop_frame"].max()), listing):
            continue
        for segment in segments.itertuples():
            common = commons.get(str(segment.verb_class))
            if common is not None:
                listing.rows.append(_row(segment, split, common, frames, flows))


def _row(segment, split: str, common: str, frames: Path, flows: Path | None) -> dict:
    return {
        "video": f"{segment.video_id}/{segment.uid}",
        "path": str(frames.absolute()),
        "class_name": common,
        "split": split,
        "group": str(segment.video_id),
        "start_frame": int(segment.start_frame),
        "stop_frame": int(segment.stop_frame),
        "flow_path": str(flows.absolute()) if flows else "",
    }


def _video_is_there(frames: Path, flows: Path | None, last: int, listing: Listing) -> bool:
    if not frames.is_dir():
        tar = frames.parent / f"{frames.name}.tar"
        listing.problem(
            "frames folder missing", frames, f"extract {tar.name} into it" if tar.is_file() else ""
        )
        return False
    if not (frames / FRAME_NAME.format(last)).is_file():
        listing.problem(
            "frames missing",
            frames / FRAME_NAME.format(last),
            "the archive was not extracted completely",
        )
        return False
    for side in ("u", "v") if flows else ():
        if not (flows / side).is_dir():
            listing.problem("flow folder missing", flows / side, "extract the flow archive")
            return False
    return True
