"""UCF101: ``UCF-101/<Class>/v_<Class>_gXX_cYY.avi`` and
``ucfTrainTestlist/{train,test}list0N.txt``.
"""

from __future__ import annotations

from pathlib import Path

from nbkit.benchmarks.layouts.common import (
    LayoutOptions,
    Listing,
    class_folders,
    composed,
    find_base,
    first_folder,
    folder_index,
    read_text,
    row,
)
from nbkit.benchmarks.manifest import DomainSpec
from nbkit.benchmarks.split_lists import parse_ucf_list, ucf_group


class Options(LayoutOptions):
    """videos: folder names tried for the class folders; lists: folder of the split lists."""

    videos: tuple[str, ...] = ("UCF-101", "UCF101", "videos")
    lists: str = "ucfTrainTestlist"


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Videos of the mapped classes that the official lists name; the group is ``'<Class>/gXX'``."""
    listing, options = Listing(), Options.model_validate(spec.options)
    base = find_base(spec, root, [options.lists, *options.videos], listing)
    videos = first_folder(base, options.videos, listing, "video") if base else None
    if videos is None:
        return listing
    folders = {
        own: (c, folder_index(f)) for own, (c, f) in class_folders(videos, spec, listing).items()
    }
    for split in ("train", "test"):
        path = base / options.lists / f"{split}list{spec.split.number:02d}.txt"
        if not path.is_file():
            listing.problem("split list missing", path, f"get the split lists from {spec.homepage}")
            continue
        for entry, _ in parse_ucf_list(read_text(path), str(path)):
            own, file = entry.rsplit("/", 1)
            if own in folders:
                common, index = folders[own]
                _add(index.get(composed(file)), videos / own / file, common, own, split, listing)
    return listing


def _add(
    found: Path | None, wanted: Path, common: str, own: str, split: str, listing: Listing
) -> None:
    if found is None:
        listing.problem("listed but absent", wanted, "extract the archive again")
    else:
        listing.rows.append(row(found, common, split, f"{own}/{ucf_group(found.stem)}"))
