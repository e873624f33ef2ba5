"""Olympic Sports: class folders of clips and ``train_test_split/{train,test}/<class>.txt`` (one
name a line).

The dataset ships ``.seq`` files; they have to be converted to a format FFmpeg reads, with the same
names.
"""

from __future__ import annotations

from pathlib import Path

from nbkit.benchmarks.layouts.common import (
    VIDEO_SUFFIXES,
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
from nbkit.benchmarks.split_lists import parse_name_list


class Options(LayoutOptions):
    """videos: folder names tried for the class folders; lists: folder of the split lists."""

    videos: tuple[str, ...] = ("videos", "clips", ".")
    lists: str = "train_test_split"


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Clips named in the lists. Every clip is its own group: the dataset publishes no recording
    groups.
    """
    listing, options = Listing(), Options.model_validate(spec.options)
    base = find_base(spec, root, [options.lists], listing)
    videos = first_folder(base, options.videos, listing, "video") if base else None
    if videos is None:
        return listing
    for own, (common, folder) in class_folders(videos, spec, listing).items():
        index = folder_index(folder)
        for split in ("train", "test"):
            path = base / options.lists / split / f"{own}.txt"
            if not path.is_file():
                listing.problem("split list missing", path, f"get the lists from {spec.homepage}")
                continue
            for name in parse_name_list(read_text(path)):
                _add(name, folder, index, common, split, listing)
    return listing


def _add(
    name: str, folder: Path, index: dict[str, Path], common: str, split: str, listing: Listing
) -> None:
    stem = composed(name.rsplit("/", 1)[-1])
    for suffix in (".seq", ".txt", *VIDEO_SUFFIXES):
        stem = stem.removesuffix(suffix)
    found = next((index[stem + s] for s in VIDEO_SUFFIXES if stem + s in index), None)
    if found is not None:
        listing.rows.append(row(found, common, split, stem))
    elif f"{stem}.seq" in index:
        listing.problem(
            "not converted",
            folder / f"{stem}.seq",
            "convert it to .avi or .mp4 under the same name",
        )
    else:
        listing.problem("listed but absent", folder / stem, "extract the archive again")
