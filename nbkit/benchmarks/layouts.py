"""The folder layouts: one function per layout, which fills the listing of a domain.

One reader is for all datasets with class folders and split lists; `LIST_LAYOUTS` says where each
keeps what.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbkit.benchmarks.epic import list_segments
from nbkit.benchmarks.listing import (
    LISTED_SUFFIX,
    ClassFolder,
    Listing,
    folded,
    is_video,
    video_files,
    walk,
)
from nbkit.benchmarks.split_lists import (
    HMDB_LINE,
    NAME_LINE,
    UCF_LINE,
    GroupReader,
    ListEntry,
    arid_group,
    camera_mark,
    film_title,
    group_reader,
    read_list,
    ucf_group,
)
from nbkit.data.boxes import ucf101_24_tubes

EXTRACT = "extract the archive again"
UCF24_VIDEOS = ("UCF-101", "rgb-images", "../UCF-101", "../ucf101/UCF-101")


@dataclass(frozen=True)
class ListLayout:
    """Where a dataset keeps its videos and split lists, and what their names mean.

    videos: folder names tried for the class folders, '.' is the dataset folder.
    group: (the dataset's own class, name of a video without suffix) -> recording group.
    lists: the list files; {own} is the dataset's own class. '' for a dataset without lists.
    line: what a line of a list looks like.
    splits: the values of {split}.
    optional: another split rule than 'official' takes all videos of the class folders.
    boxes: file of a video's boxes; '' for a dataset without boxes.
    get_lists, get_videos: what to do where one is missing.
    """

    videos: tuple[str, ...]
    group: Callable[[str, str], str]
    lists: str = ""
    line: str = UCF_LINE
    splits: tuple[str, ...] = ("train", "test")
    optional: bool = False
    boxes: str = ""
    get_lists: str = "get the split lists from {homepage}"
    get_videos: str = EXTRACT


LIST_LAYOUTS = {
    "ucf101": ListLayout(
        videos=("UCF-101", "UCF101", "videos"),
        group=ucf_group,
        lists="ucfTrainTestlist/{split}list{number:02d}.txt",
    ),
    "demo": ListLayout(
        videos=("videos",),
        group=ucf_group,
        lists="splits/{split}list{number:02d}.txt",
        splits=("train", "val", "test"),
        boxes="boxes/{own}/{stem}.npz",
        get_lists="render the demo data again",
        get_videos="render the demo data again",
    ),
    "hmdb51": ListLayout(
        videos=("hmdb51_org", "videos", "."),
        group=film_title,
        lists="testTrainMulti_7030_splits/{own}_test_split{number}.txt",
        line=HMDB_LINE,
        get_lists="get test_train_splits.rar from {homepage}",
    ),
    "jhmdb": ListLayout(
        videos=("ReCompressed_Videos", "Rename_Images"),
        group=film_title,
        lists="splits/{own}_test_split{number}.txt",
        line=HMDB_LINE,
        optional=True,
        boxes="puppet_mask/{own}/{stem}/puppet_mask.mat",
        get_lists="extract splits.zip beside the videos",
    ),
    # no published recording groups: every clip is its own
    "olympic": ListLayout(
        videos=("videos", "clips", "."),
        group=lambda own, stem: stem,
        lists="train_test_split/{split}/{own}.txt",
        line=NAME_LINE,
    ),
    "arid": ListLayout(videos=(".",), group=arid_group, optional=True),
}


def list_videos(listing: Listing) -> None:
    """The videos that the split lists name; without lists, all videos of the class folders.

    Raises:
        NbkitError: a list with a wrong line.
    """
    spec, layout = listing.spec, LIST_LAYOUTS[listing.spec.layout]
    # folders that show where the dataset is; "splits" may belong to any
    markers = [layout.lists.split("/")[0], *layout.videos]
    markers = [m for m in markers if m not in ("", ".", "splits")] or list(spec.common_class)
    folders = listing.locate(markers, layout.videos)
    if not folders:
        return
    if layout.optional and spec.split.rule != "official":
        every = [(own, path) for own, folder in folders.items() for path in folder.videos()]
        entries = [ListEntry(own, path.name, "train") for own, path in every]
        why = "another camera mark, or broken"
    else:
        entries, why = _listed_videos(folders, listing), "in no list"
    spelt, named = {folded(own): own for own in folders}, set()
    group_of = group_reader(spec.options.groups, listing.base, layout.group)
    for entry in entries:
        # UCF101 itself mixes HandstandPushups and HandStandPushups
        own = entry.own if entry.own in folders else spelt.get(folded(entry.own), "")
        named.add(own or entry.own)
        # lists also name classes that the benchmark does not use
        if own and spec.options.mark in (None, camera_mark(entry.file)):
            _add(entry._replace(own=own), folders[own], group_of, listing)
    if named:
        names = ", ".join(sorted(named - set(folders))[:5])
        for own in sorted(set(folders) - named):
            listing.problem("in no list", folders[own].path, f"the lists name {names} ...")
    listing.note_unused_videos(folders.values(), why)


def _listed_videos(folders: dict[str, ClassFolder], listing: Listing) -> Iterator[ListEntry]:
    spec, layout = listing.spec, LIST_LAYOUTS[listing.spec.layout]
    # one file per class, per split, per both, or for all
    classes = list(folders) if "{own}" in layout.lists else [""]
    splits = layout.splits if "{split}" in layout.lists else [""]
    for list_own, list_split in itertools.product(classes, splits):
        name = layout.lists.format(own=list_own, split=list_split, number=spec.split.number)
        path = listing.base / name
        if path.is_file():
            for own, file, split in read_list(path, layout.line):
                if split != "unused":
                    yield ListEntry(own or list_own, file, split or list_split)
        elif list_split != "val":
            advice = layout.get_lists.format(homepage=spec.homepage)
            listing.problem("split list missing", path, listing.elsewhere(path) or advice)


def _add(entry: ListEntry, folder: ClassFolder, group_of: GroupReader, listing: Listing) -> None:
    layout, own = LIST_LAYOUTS[listing.spec.layout], entry.own
    path = _find(entry.file, folder, listing, layout.get_videos)
    if path is None:
        return
    stem = path.name if path.is_dir() else path.stem
    group = group_of(own, f"{own}/{stem}")
    extra, boxes = {}, listing.base / layout.boxes.format(own=own, stem=stem)
    if layout.boxes:
        extra["boxes"] = ""
        if boxes.is_file():
            extra["boxes"] = str(boxes.absolute())
    if listing.spec.options.boxes and not boxes.is_file():
        listing.problem("boxes missing", boxes, "those of J-HMDB are in puppet_mask.zip")
    listing.add(f"{own}/{stem}", path, folder.common, entry.split, group, **extra)


def _find(file: str, folder: ClassFolder, listing: Listing, advice: str = EXTRACT) -> Path | None:
    path = folder.find(file)
    if path is None:
        # Olympic Sports ships its videos in a format of its own
        unread = folder.path / f"{Path(file).stem}.seq"
        if unread.is_file():
            advice = "convert it to .avi or .mp4 under the same name"
            listing.problem("not converted", unread, advice)
        else:
            wanted = folder.path / file
            advice = listing.elsewhere(wanted) or advice
            listing.problem("listed but absent", wanted, advice)
    return path


def list_ucf24(listing: Listing) -> None:
    """The annotated videos of UCF101-24: UCF101 videos, ``pyannot.pkl`` and one test list.

    Annotated videos that the list does not name are training videos.
    """
    folders = listing.locate(["pyannot.pkl"], UCF24_VIDEOS)
    if not folders:
        return
    annotations, tests = listing.base / "pyannot.pkl", listing.base / "testlist01.txt"
    if not tests.is_file():
        listing.problem("split list missing", tests, f"get it from {listing.spec.homepage}")
        return
    tested = {
        (folded(own), LISTED_SUFFIX.sub("", file)) for own, file, _ in read_list(tests, UCF_LINE)
    }
    # the boxes count the frames of the file, also those that FFmpeg does not hand out
    extra = {"boxes": str(annotations.absolute()), "frames_by": "time"}
    group_of = group_reader(listing.spec.options.groups, listing.base, ucf_group)
    for name in sorted(ucf101_24_tubes(annotations)):
        own, _, stem = name.partition("/")
        path = own in folders and _find(f"{stem}.avi", folders[own], listing)
        if path:
            split = "test" if (folded(own), stem) in tested else "train"
            group = group_of(own, name)
            listing.add(name, path, folders[own].common, split, group, **extra)
    listing.note_unused_videos(folders.values(), "not annotated")


def list_ucfsports(listing: Listing) -> None:
    """The sequences of UCF Sports, ``<View>/<id>/`` with boxes in ``gt/*.txt``; all are training.

    The folder names the class; the label inside the box files is unreliable (a golf swing is called
    ArmSwing) and is not read. Published sequences without pixels or boxes are left out.
    """
    for own, folder in listing.locate(list(listing.spec.common_class), ["."]).items():
        for sequence in sorted(p for p in folder.path.iterdir() if p.is_dir()):
            boxes, videos = sequence / "gt", video_files(sequence.iterdir())
            if not videos and not any(sequence.glob("*.jpg")):
                advice = "neither an .avi nor .jpg frames in the folder: left out"
                listing.problem("no pixels", sequence, advice, "warning")
            elif not any(boxes.glob("*.txt")):
                advice = "some published sequences have none: left out"
                listing.problem("boxes missing", boxes, advice, "warning")
            else:
                name = f"{own}/{sequence.name}"
                path = next(iter(videos), sequence)
                boxes = str(boxes.absolute())
                listing.add(name, path, folder.common, "train", name, boxes=boxes)


def list_folders(listing: Listing) -> None:
    """Anybody's videos: ``<class>/<anything>`` with sub-folders, no lists.

    Without the option ``groups`` every file is a recording group of its own, which is told: parts
    of one recording may then be on both sides of the split.
    """
    groups = listing.spec.options.groups
    folders = listing.locate(list(listing.spec.common_class), ["."])
    if not folders:
        return
    group_of = group_reader(groups or "file", listing.base, ucf_group)
    others = []
    for own, folder in folders.items():
        for path in sorted(p for p in walk(folder.path) if not p.is_dir()):
            name = path.relative_to(listing.base).as_posix()
            if is_video(path):
                listing.add(name, path, folder.common, "train", group_of(own, name))
            else:
                others.append(name)
    if others:
        listing.note_unused(f"{len(others)} files that are no videos", listing.base, others)
    if listing.rows and not groups:
        advice = (
            "a test video may be a piece of a recording that is trained on, and accuracy then says "
            "little; name the recordings in the domain's option `groups`, or set it to file where "
            "every file is a recording of its own"
        )
        listing.problem("every file is its own group", listing.base, advice, "warning")


LAYOUTS: dict[str, Callable[[Listing], None]] = {
    **dict.fromkeys(LIST_LAYOUTS, list_videos),
    "epic": list_segments,
    "folders": list_folders,
    "ucf101_24": list_ucf24,
    "ucfsports": list_ucfsports,
}
