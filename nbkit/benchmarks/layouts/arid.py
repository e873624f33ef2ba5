"""ARID (actions in the dark): ``<Class>/<Class>_<group>_<number>.mp4``, class folders possibly
under ``clips_v1``.
"""

from __future__ import annotations

import re
from pathlib import Path

from nbkit.benchmarks.layouts.common import (
    LayoutOptions,
    Listing,
    class_folders,
    find_base,
    refuse_official,
    row,
    video_files,
)
from nbkit.benchmarks.manifest import DomainSpec

_NAME = re.compile(r"(.+)_(\d+)_(\d+)")


class Options(LayoutOptions):
    """ARID has no options."""


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """All clips of the mapped classes. A group is one recording of one class:
    ``'<Class>_<group>'``.
    """
    listing = Listing()
    refuse_official(spec)
    names = [own for members in spec.classes.values() for own in members]
    base = find_base(spec, root, names, listing)
    if base is None:
        return listing
    for own, (common, folder) in class_folders(base, spec, listing).items():
        for path in video_files(folder):
            match = _NAME.fullmatch(path.stem)
            if not match:
                listing.problem(
                    "unexpected file name", path, f"expected {own}_<group>_<number>.mp4"
                )
                continue
            listing.rows.append(row(path, common, "train", f"{own}_{match.group(2)}"))
    return listing
