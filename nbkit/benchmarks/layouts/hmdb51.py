"""HMDB51: class folders of .avi files and ``testTrainMulti_7030_splits/<class>_test_split<N>.txt``.

The class of a clip is its folder, never its name; names hold brackets, ``&``, ``;``, ``!`` and
``#``.
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
from nbkit.benchmarks.split_lists import hmdb_title, parse_hmdb_list


class Options(LayoutOptions):
    """videos: folder names tried for the class folders; lists: folder of the split lists;
    merge_parts: 'Film_1' and 'Film_2' are one recording group."""

    videos: tuple[str, ...] = ("hmdb51_org", "videos", ".")
    lists: str = "testTrainMulti_7030_splits"
    merge_parts: bool = True


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Clips marked 1 (train) or 2 (test) in the official lists; the group is the film title."""
    listing, options = Listing(), Options.model_validate(spec.options)
    base = find_base(spec, root, [options.lists, *options.videos[:-1]], listing)
    videos = first_folder(base, options.videos, listing, "video") if base else None
    if videos is None:
        return listing
    for own, (common, folder) in class_folders(videos, spec, listing).items():
        path = base / options.lists / f"{own}_test_split{spec.split.number}.txt"
        if not path.is_file():
            listing.problem(
                "split list missing", path, f"get test_train_splits.rar from {spec.homepage}"
            )
            continue
        index = folder_index(folder)
        for file, split in parse_hmdb_list(read_text(path), str(path)):
            if split == "unused":
                continue
            found = index.get(composed(file))
            if found is None:
                listing.problem(
                    "listed but absent", folder / file, "extract the class archive again"
                )
            else:
                title = hmdb_title(found.stem, own, options.merge_parts)
                listing.rows.append(row(found, common, split, title))
    return listing
