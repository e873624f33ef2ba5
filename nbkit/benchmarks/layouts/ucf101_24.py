"""UCF101-24 (localization): UCF101 videos, ``pyannot.pkl`` (corrected boxes) and
``testlist01.txt``.
"""

from __future__ import annotations

from pathlib import Path

from nbkit.benchmarks.layouts.common import (
    LayoutOptions,
    Listing,
    class_folders,
    find_base,
    first_folder,
    read_text,
    row,
)
from nbkit.benchmarks.manifest import DomainSpec
from nbkit.benchmarks.split_lists import parse_name_list, ucf_group
from nbkit.data.boxes import ucf101_24_tubes


class Options(LayoutOptions):
    """videos: folder names tried for the class folders (videos, or folders of frames); annotations:
    the pickle; test_list: videos of the test part, one ``Class/video`` a line; every other
    annotated video is training.
    """

    videos: tuple[str, ...] = ("UCF-101", "rgb-images", "../UCF-101", "../ucf101/UCF-101")
    annotations: str = "pyannot.pkl"
    test_list: str = "testlist01.txt"


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Annotated videos of the mapped classes; adds ``boxes`` (path of the annotation pickle)."""
    listing, options = Listing(), Options.model_validate(spec.options)
    base = find_base(spec, root, [options.annotations], listing)
    videos = first_folder(base, options.videos, listing, "video") if base else None
    if videos is None:
        return listing
    lists = base / options.test_list
    if not lists.is_file():
        listing.problem("split list missing", lists, f"get it from {spec.homepage}")
        return listing
    test = set(parse_name_list(read_text(lists)))
    folders = class_folders(videos, spec, listing)
    for name in sorted(ucf101_24_tubes(base / options.annotations)):
        own, _, stem = name.partition("/")
        if own in folders:
            common, folder = folders[own]
            _add(
                name,
                stem,
                folder,
                common,
                "test" if name in test else "train",
                base / options.annotations,
                listing,
            )
    return listing


def _add(
    name, stem, folder: Path, common: str, split: str, annotations: Path, listing: Listing
) -> None:
    found = next(
        (p for p in (folder / f"{stem}.avi", folder / f"{stem}.mp4", folder / stem) if p.exists()),
        None,
    )
    if found is None:
        listing.problem("listed but absent", folder / f"{stem}.avi", "extract the archive again")
        return
    group = f"{folder.name}/{ucf_group(stem)}"
    item = row(found, common, split, group, boxes=str(annotations.absolute()))
    listing.rows.append({**item, "video": name})
