"""Layout of the rendered demo domains: UCF101 style, one folder per domain.

``<domain>/videos/<ClassName>/v_<ClassName>_gXX_cYY.avi``,
``<domain>/splits/{train,val,test}list01.txt`` and actor boxes in
``<domain>/boxes/<ClassName>/<video>.npz``.
"""

from __future__ import annotations

from pathlib import Path

from nbkit.benchmarks.layouts.common import (
    LayoutOptions,
    Listing,
    class_folders,
    find_base,
    folded,
    read_text,
    row,
)
from nbkit.benchmarks.manifest import DomainSpec
from nbkit.benchmarks.split_lists import parse_ucf_list, ucf_group


class Options(LayoutOptions):
    """The demo layout has no options."""


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Videos named in the split lists; adds the column ``boxes`` (path of the .npz, '' when
    absent).
    """
    listing = Listing()
    base = find_base(spec, root, ["videos/*/*.avi"], listing)
    if base is None:
        return listing
    folders = class_folders(base / "videos", _as_on_disk(spec, base / "videos"), listing)
    for split in ("train", "val", "test"):
        path = base / "splits" / f"{split}list{spec.split.number:02d}.txt"
        if not path.is_file():
            if split != "val":
                listing.problem("split list missing", path, "render the demo data again")
            continue
        for entry, _ in parse_ucf_list(read_text(path), str(path)):
            _add(entry, split, base, folders, listing)
    return listing


def _as_on_disk(spec: DomainSpec, videos: Path) -> DomainSpec:
    """Class names as the folders spell them: ``JumpingJack`` and ``jumping_jack`` are the same
    rendered class.
    """
    present = {folded(p.name): p.name for p in videos.iterdir() if p.is_dir()}
    classes = {
        c: [present.get(folded(own), own) for own in members] for c, members in spec.classes.items()
    }
    return spec.model_copy(update={"classes": classes})


def _add(entry: str, split: str, base: Path, folders: dict, listing: Listing) -> None:
    own, file = entry.rsplit("/", 1)
    if own not in folders:
        return  # a class the benchmark does not use, or a folder already reported as missing
    common, folder = folders[own]
    video = folder / file
    if not video.is_file():
        listing.problem("listed but absent", video, "render the demo data again")
        return
    boxes = base / "boxes" / own / f"{video.stem}.npz"
    group = f"{own}/{ucf_group(video.stem)}"
    listing.rows.append(
        row(video, common, split, group, boxes=str(boxes.absolute()) if boxes.is_file() else "")
    )
