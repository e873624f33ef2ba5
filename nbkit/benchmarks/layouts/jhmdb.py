"""J-HMDB: ``ReCompressed_Videos/<class>/*.avi``, ``splits/<class>_test_split<N>.txt``,
``puppet_mask/``.

The mark ``nm`` / ``cm`` in a file name says that the camera does not / does move; with the option
``mark`` a domain keeps only one of the two. ``Rename_Images/<class>/<video>/%05d.png`` can replace
the videos.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from nbkit.benchmarks.layouts.common import (
    LayoutOptions,
    Listing,
    class_folders,
    find_base,
    read_text,
    row,
    video_files,
)
from nbkit.benchmarks.manifest import DomainSpec
from nbkit.benchmarks.split_lists import hmdb_title, parse_hmdb_list

_MARK = re.compile(r"_(nm|cm)_np\d")


class Options(LayoutOptions):
    """mark: keep only static ('nm') or moving ('cm') clips; frames: read Rename_Images instead of
    the videos; merge_parts: 'Film_1' and 'Film_2' are one recording group; boxes: videos must have
    a puppet mask.
    """

    mark: Literal["nm", "cm"] | None = None
    frames: bool = False
    merge_parts: bool = True
    boxes: bool = False


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """All clips of the mapped classes; adds ``boxes`` (path of puppet_mask.mat, '' when absent)."""
    listing, options = Listing(), Options.model_validate(spec.options)
    top = "Rename_Images" if options.frames else "ReCompressed_Videos"
    base = find_base(spec, root, [top], listing)
    if base is None:
        return listing
    for own, (common, folder) in class_folders(base / top, spec, listing).items():
        paths = (
            sorted(p for p in folder.iterdir() if p.is_dir())
            if options.frames
            else video_files(folder)
        )
        parts = (
            _official(base, own, spec.split.number, paths, listing)
            if spec.split.rule == "official"
            else {}
        )
        for path in (p for p in paths if options.mark in (None, camera_mark(p.name))):
            _add(path, own, common, base, parts, spec, options, listing)
    return listing


def camera_mark(name: str) -> str | None:
    """'nm' (no camera motion), 'cm' (camera motion) or None, from a HMDB51/J-HMDB file name."""
    match = _MARK.search(name)
    return match.group(1) if match else None


def _add(path, own, common, base, parts, spec, options, listing) -> None:
    stem = path.name if options.frames else path.stem
    split = parts.get(stem, "unused") if spec.split.rule == "official" else "train"
    if split == "unused":
        return
    mask = base / "puppet_mask" / own / stem / "puppet_mask.mat"
    if options.boxes and not mask.is_file():
        listing.problem("boxes missing", mask, "extract puppet_mask.zip beside the videos")
    title = hmdb_title(stem, own, options.merge_parts)
    item = row(path, common, split, title, boxes=str(mask.absolute()) if mask.is_file() else "")
    listing.rows.append({**item, "video": f"{own}/{stem}"})


def _official(
    base: Path, own: str, number: int, paths: list[Path], listing: Listing
) -> dict[str, str]:
    path = base / "splits" / f"{own}_test_split{number}.txt"
    if not path.is_file():
        listing.problem("split list missing", path, "extract splits.zip beside the videos")
        return {}
    parts = {Path(file).stem: part for file, part in parse_hmdb_list(read_text(path), str(path))}
    present = {p.stem if p.suffix.lower() in (".avi", ".mp4") else p.name for p in paths}
    for stem in sorted(set(parts) - present):
        listing.problem(
            "listed but absent",
            paths[0].parent / f"{stem}.avi" if paths else f"{own}/{stem}.avi",
            "",
        )
    return parts
