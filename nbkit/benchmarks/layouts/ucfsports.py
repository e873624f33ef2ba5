"""UCF Sports: ``<View>/<id>/`` with an .avi or .jpg frames, and boxes in ``<View>/<id>/gt/*.txt``.

An action is spread over view folders (Golf-Swing-Back, -Front, -Side). The folder names the class;
the label inside the box files is unreliable (a golf swing is called ArmSwing) and is not read.
"""

from __future__ import annotations

from pathlib import Path

from nbkit.benchmarks.layouts.common import (
    LayoutOptions,
    Listing,
    class_folders,
    find_base,
    refuse_official,
    video_files,
)
from nbkit.benchmarks.manifest import DomainSpec


class Options(LayoutOptions):
    """skip_without_boxes: leave a sequence without gt or pixels out and say so (a few published
    ones lack them) instead of refusing the dataset.
    """

    skip_without_boxes: bool = True


def list_videos(spec: DomainSpec, root: Path) -> Listing:
    """Sequences with boxes, all of them training videos; adds ``boxes`` (the gt folder)."""
    listing = Listing()
    options = Options.model_validate(spec.options)
    refuse_official(spec)
    names = [own for members in spec.classes.values() for own in members]
    base = find_base(spec, root, names, listing)
    if base is None:
        return listing
    for own, (common, folder) in class_folders(base, spec, listing).items():
        for sequence in sorted(p for p in folder.iterdir() if p.is_dir()):
            _add(sequence, own, common, options, listing)
    return listing


def _add(sequence: Path, own: str, common: str, options: Options, listing: Listing) -> None:
    videos = video_files(sequence)
    frames = any(sequence.glob("*.jpg"))
    if not videos and not frames:
        listing.problem(
            "no pixels",
            sequence,
            "neither an .avi nor .jpg frames in the folder",
            options.skip_without_boxes,
        )
        return
    truth = sequence / "gt"
    has_boxes = truth.is_dir() and any(truth.glob("*.txt"))
    if not has_boxes:
        listing.problem(
            "boxes missing", truth, "some published sequences have none", options.skip_without_boxes
        )
        if options.skip_without_boxes:
            return
    path = videos[0] if videos else sequence
    listing.rows.append(
        {
            "video": f"{own}/{sequence.name}",
            "path": str(path.absolute()),
            "class_name": common,
            "split": "train",
            "group": f"{own}/{sequence.name}",
            "boxes": str(truth.absolute()) if has_boxes else "",
        }
    )
