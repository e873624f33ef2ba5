"""What all layouts share: the listing of a domain, and folders that are found or named."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nbkit.benchmarks.manifest import DomainSpec

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg")


@dataclass(frozen=True)
class Problem:
    """Something missing or broken: ``kind`` (a short word), ``name`` (file or folder), ``advice``.

    ``expected``: the published data has this fault, so that a run goes on without the video.
    """

    kind: str
    name: str
    advice: str = ""
    expected: bool = False

    def __str__(self) -> str:
        text = f"{self.kind}: {self.name}"
        return f"{text} ({self.advice})" if self.advice else text


@dataclass
class Listing:
    """The videos of one domain (rows of the table) and the problems met on the way."""

    rows: list[dict] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(
        self, video: str, path: Path, class_name: str, split: str, group: str, **extra: object
    ) -> None:
        """Append one row; ``video`` is unique in its domain, ``extra`` are further columns."""
        row = {"video": video, "path": str(path.absolute()), "class_name": class_name}
        self.rows.append({**row, "split": split, "group": group, **extra})

    def problem(self, kind: str, name: object, advice: str = "", expected: bool = False) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, str(name), advice, expected))


@dataclass(frozen=True)
class ClassFolder:
    """The folder of one of the dataset's own classes."""

    common: str  # common class
    path: Path
    entries: dict[str, Path]  # by composed name (NFC): lists and disks may spell an accent apart

    def find(self, name: str) -> Path | None:
        """The video of this name, also with another suffix, or as a folder of frames."""
        stem = unicodedata.normalize("NFC", name)
        for suffix in (".seq", ".txt", *VIDEO_SUFFIXES):
            stem = stem.removesuffix(suffix)
        for suffix in (*VIDEO_SUFFIXES, ""):
            if stem + suffix in self.entries:
                return self.entries[stem + suffix]
        return None

    def videos(self) -> list[Path]:
        """Video files, or where there are none the folders of frames, sorted by name."""
        paths = self.entries.values()
        return video_files(paths) or sorted(p for p in paths if p.is_dir())


def video_files(paths: Iterable[Path]) -> list[Path]:
    """The videos among these paths, sorted by name; hidden files are left out."""
    visible = (p for p in paths if not p.name.startswith("."))
    return sorted(p for p in visible if p.suffix.lower() in VIDEO_SUFFIXES)


def find_base(
    spec: DomainSpec, root: Path, markers: Sequence[str], listing: Listing
) -> Path | None:
    """The dataset folder: the first of ``spec.folder`` below root that holds one of ``markers``."""
    for name in [*spec.folder, "."]:
        if _holds(root / name, markers):
            return root / name
    folders = ", ".join(name for name in spec.folder if name != ".")
    advice = (
        f"looked for {' or '.join(markers[:4])} in it and in its folders {folders}; "
        f"{_elsewhere(root, markers)} Download it from {spec.homepage} and give its folder as the "
        "root"
    )
    listing.problem("dataset not found", f"{spec.dataset} in {root}", advice)
    return None


def _holds(base: Path, markers: Sequence[str]) -> bool:
    return any((base / marker).exists() for marker in markers)


def _elsewhere(root: Path, markers: Sequence[str]) -> str:
    """Where the data seems to be, or what is there instead, for a person who gave a wrong root."""
    entries = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    for near in [root.parent, *entries]:
        if _holds(near, markers):
            return f"it seems to be in {near}."
    if not entries:
        return "the folder is empty."
    names = [p.name for p in entries[:6]] + ["..."] * (len(entries) > 6)
    return f"the folder holds {', '.join(names)}."


def first_folder(base: Path, names: Sequence[str], listing: Listing, what: str) -> Path | None:
    """The first existing folder of ``names`` below base, else a problem."""
    for name in names:
        if (base / name).is_dir():
            return base / name
    others = ", ".join(names[1:])
    listing.problem(f"{what} folder missing", base / names[0], f"also looked for {others}")
    return None


def locate(
    spec: DomainSpec, root: Path, markers: Sequence[str], videos: Sequence[str], listing: Listing
) -> tuple[Path, dict[str, ClassFolder]]:
    """The dataset folder, and the folders of the mapped classes below the first of ``videos``.

    A missing class folder is a problem; there are none at all where the dataset is missing.
    """
    base = find_base(spec, root, markers, listing)
    parent = base and first_folder(base, videos, listing, "video")
    if parent is None:
        return root, {}
    present = [p.name for p in sorted(parent.iterdir()) if p.is_dir()]
    found = {}
    for own, common in spec.common_class.items():
        path = parent / own
        if own in present:
            entries = {unicodedata.normalize("NFC", p.name): p for p in path.iterdir()}
            found[own] = ClassFolder(common, path, entries)
        else:
            listing.problem("class folder missing", path, _folder_advice(path, present))
    return base, found


def _folder_advice(path: Path, present: Sequence[str]) -> str:
    """The archive to extract, or the closest existing name (case and underscores ignored)."""
    for suffix in (".rar", ".zip", ".tar", ".tar.gz"):
        archive = path.with_name(path.name + suffix)
        if archive.is_file():
            return f"extract {archive.name}, which is there"
    by_key = {_folded(name): name for name in present}
    close = difflib.get_close_matches(_folded(path.name), by_key, n=1, cutoff=0.7)
    return "".join(f"found '{by_key[key]}': rename it to '{path.name}'" for key in close)


def _folded(name: str) -> str:
    return re.sub("[ _-]", "", name.casefold())


def attach_flow(spec: DomainSpec, root: Path, listing: Listing) -> None:
    """Fill the column ``flow_path`` where the option ``flow_images`` is set.

    A video's flow lies in ``<class>/<video>`` or ``<video>``; a video without it is a problem.
    """
    name = spec.options.flow_images
    if not name or not listing.rows:
        return
    bases = [root / folder / name for folder in [*spec.folder, "."]]
    base = next((b for b in bases if b.is_dir()), None)
    if base is None:
        listing.problem("flow folder missing", bases[0], "named by the option flow_images")
        return
    for row in listing.rows:
        tried = [base / row["video"], base / Path(row["video"]).name]
        found = [str(p.absolute()) for p in tried if p.is_dir()]
        if not found:
            listing.problem("flow folder missing", tried[0], f"also looked for {tried[1]}")
        row["flow_path"] = "".join(found[:1])
