"""What all layouts share: the listing of a domain, and folders that are found or named."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nbkit.benchmarks.manifest import DomainSpec

VIDEO_SUFFIXES = tuple(
    ".avi .mp4 .mkv .mov .webm .mpg .mpeg .m4v .wmv .asf .flv .f4v .3gp .3g2 .ts .mts .m2ts .vob "
    ".ogv .mxf .dv .divx .gif".split()
)
# lists name videos with these, or with none
LISTED_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, VIDEO_SUFFIXES))}|\.seq|\.txt)$", re.I)
# files that are looked through for one that is not in its place
MOST_STRAYS = 200_000


@dataclass(frozen=True)
class Problem:
    """What is wrong: ``kind`` (a short word), ``name`` (file or folder), ``advice``.

    ``level``: 'fatal' stops every run; 'blocking' those on whole data; 'gap' those in a direction
    that needs it; a run goes on in spite of a 'warning' and tells it; a 'note' is for
    ``nbkit check-data`` alone.
    """

    kind: str
    name: str
    advice: str = ""
    level: Literal["fatal", "blocking", "gap", "warning", "note"] = "blocking"

    def __str__(self) -> str:
        text = f"{self.kind}: {self.name}"
        if self.advice:
            text += f" ({self.advice})"
        # names that are not UTF-8 cannot be printed
        return text.encode("utf-8", "backslashreplace").decode()


def walk(base: Path) -> Iterator[Path]:
    """All visible folders and files below a folder, sorted; no folder twice, whatever the links.

    Raises OSError for a folder that cannot be read.
    """
    seen = set()

    def stop(error: OSError) -> None:
        raise error

    for folder, below, files in os.walk(base, followlinks=True, onerror=stop):
        status = os.stat(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if (status.st_dev, status.st_ino) in seen:
            below[:] = []
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in [*below, *sorted(files)]:
            if not name.startswith("."):
                yield Path(folder, name)


def _stem(name: str) -> str:
    """A name by which spellings of one video meet: composed, lower case, without suffix."""
    return LISTED_SUFFIX.sub("", unicodedata.normalize("NFC", name)).casefold()


class ClassFolder:
    """The folder of one of the dataset's own classes, and the name of the common class."""

    def __init__(self, common: str, path: Path):
        self.common, self.path = common, path
        # by _stem: lists and disks may spell an accent apart
        self.entries: dict[str, list[Path]] = {}
        for entry in sorted(path.iterdir()):
            if is_video(entry) or entry.is_dir():
                self.entries.setdefault(_stem(entry.name), []).append(entry)

    def find(self, name: str) -> Path | None:
        """The video of this name, also with another suffix, or as a folder of frames."""
        wanted = unicodedata.normalize("NFC", name)

        def distance(path: Path) -> tuple[bool, bool, bool, int]:
            found = unicodedata.normalize("NFC", path.name)
            same_case = LISTED_SUFFIX.sub("", found) == LISTED_SUFFIX.sub("", wanted)
            known = VIDEO_SUFFIXES.index(path.suffix.lower()) if is_video(path) else 99
            return not same_case, path.is_dir(), found != wanted, known

        return min(self.entries.get(_stem(name), []), key=distance, default=None)

    def videos(self) -> list[Path]:
        """Video files, or where there are none the folders of frames, sorted by name."""
        paths = [path for group in self.entries.values() for path in group]
        return video_files(paths) or sorted(p for p in paths if p.is_dir())


def is_video(path: Path) -> bool:
    """Whether a name is that of a video; hidden files are none."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def video_files(paths: Iterable[Path]) -> list[Path]:
    """The videos among these paths, sorted by name; hidden files are left out."""
    return sorted(p for p in paths if is_video(p))


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


def _flat(parent: Path, own: str) -> str:
    """What to say where the videos of a class lie beside the class folders."""
    here = [p for p in video_files(parent.iterdir()) if folded(own) in folded(p.name)]
    if not here:
        return ""
    return f"{len(here)} of its videos lie directly in {parent}, as {here[0].name}: move them there"


def _folder_advice(path: Path, present: Sequence[str]) -> str:
    """The archive to extract, or the closest existing name (case and underscores ignored)."""
    for suffix in (".rar", ".zip", ".tar", ".tar.gz"):
        archive = path.with_name(path.name + suffix)
        if archive.is_file():
            return f"extract {archive.name}, which is there"
    by_key = {folded(name): name for name in present}
    close = difflib.get_close_matches(folded(path.name), by_key, n=1, cutoff=0.7)
    return "".join(f"found '{by_key[key]}': rename it to '{path.name}'" for key in close)


def folded(name: str) -> str:
    """A class name by which its spellings meet."""
    return re.sub("[ _-]", "", name.casefold())


@dataclass
class Listing:
    """The videos of one domain (rows of the table) and the problems met on the way.

    ``base`` is the dataset folder, once `find_base` has found it below ``root``.
    """

    spec: DomainSpec
    root: Path
    rows: list[dict] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    base: Path | None = None
    _places: dict[str, Path] | None = None

    def add(
        self, video: str, path: Path, class_name: str, split: str, group: str, **extra: object
    ) -> None:
        """Append one row; ``video`` is unique in its domain, ``extra`` are further columns."""
        path = path.absolute()
        try:
            f"{path}{video}".encode()
        except UnicodeEncodeError:
            self.problem("name is not UTF-8", path, "rename it; its bytes are shown as \\udcXX")
            return
        if not group:
            advice = "neither its name nor the option `groups` says of which recording it is"
            self.problem("no recording group", path, advice)
            return
        row = {"video": video, "path": str(path), "class_name": class_name}
        self.rows.append({**row, "split": split, "group": group, **extra})

    def problem(self, kind: str, name: object, advice: str = "", level: str = "blocking") -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, str(name), advice, level))

    def elsewhere(self, path: Path) -> str:
        """Where in the dataset a file or folder lies that should be ``path``; '' for nowhere."""
        if self._places is None:
            self._places = {}
            with contextlib.suppress(OSError):
                for entry in itertools.islice(walk(self.base), MOST_STRAYS):
                    self._places[_stem(entry.name)] = entry
        found = self._places.get(_stem(path.name))
        if found in (None, path):
            return ""
        return f"there is {found}: move or rename it"

    def note_unused(self, what: str, where: Path, names: Sequence[str]) -> None:
        """Say what lies on the disk and is not used, with three names."""
        shown = ", ".join([*names[:3], *["..."] * (len(names) > 3)])
        self.problem("not used", f"{what} of {where}", shown, "note")

    def note_unused_videos(self, folders: Iterable[ClassFolder], why: str) -> None:
        """Count the videos of class folders that are in no row."""
        used = {row["path"] for row in self.rows}
        found = [path for folder in folders for path in folder.videos()]
        left = [str(p.relative_to(self.base)) for p in found if str(p.absolute()) not in used]
        if left:
            self.note_unused(f"{len(left)} videos ({why})", self.base, left)

    # --- folders that are found or named -----------------------------------------------------
    def find_base(self, markers: Sequence[str]) -> bool:
        """Find the dataset: the first of ``spec.folder`` that holds one of ``markers``."""
        for name in [*self.spec.folder, "."]:
            if _holds(self.root / name, markers):
                self.base = self.root / name
                return True
        folders = ", ".join(name for name in self.spec.folder if name != ".")
        advice = (
            f"looked for {' or '.join(markers[:4])} in it and in its folders {folders}; "
            f"{_elsewhere(self.root, markers)} Download it from {self.spec.homepage} and give its "
            "folder as the root"
        )
        self.problem("dataset not found", f"{self.spec.dataset} in {self.root}", advice)
        return False

    def first_folder(self, names: Sequence[str], what: str) -> Path | None:
        """The first existing folder of ``names`` in the dataset, else a problem."""
        for name in names:
            if (self.base / name).is_dir():
                return self.base / name
        others = ", ".join(names[1:])
        self.problem(f"{what} folder missing", self.base / names[0], f"also looked for {others}")
        return None

    def locate(self, markers: Sequence[str], videos: Sequence[str]) -> dict[str, ClassFolder]:
        """The folders of the mapped classes below the first of ``videos``.

        A missing class folder is a problem; there are none at all where the dataset is missing.
        """
        parent = self.find_base(markers) and self.first_folder(videos, "video")
        if not parent:
            return {}
        present = [p.name for p in sorted(parent.iterdir()) if p.is_dir()]
        found = {}
        for own, common in self.spec.common_class.items():
            path = parent / own
            if own in present:
                found[own] = ClassFolder(common, path)
            else:
                advice = _folder_advice(path, present) or self.elsewhere(path)
                self.problem("class folder missing", path, advice or _flat(parent, own))
        others = [name for name in present if name not in found and not name.startswith(".")]
        if found and others:
            self.note_unused(f"{len(others)} other folders", parent, others)
        return found

    def attach_flow(self) -> None:
        """Fill the column ``flow_path`` where the option ``flow_images`` is set.

        A video's flow lies in ``<class>/<video>`` or ``<video>``; a video without it is a problem.
        """
        # EPIC's tables name the flow of each segment
        if self.spec.layout == "epic" or not self.spec.options.flow_images or not self.rows:
            return
        folders = [*self.spec.folder, "."]
        bases = [self.root / folder / self.spec.options.flow_images for folder in folders]
        base = next((b for b in bases if b.is_dir()), None)
        if base is None:
            self.problem("flow folder missing", bases[0], "named by the option flow_images")
            return
        for row in self.rows:
            tried = [base / row["video"], base / Path(row["video"]).name]
            found = [str(p.absolute()) for p in tried if p.is_dir()]
            if not found:
                self.problem("flow folder missing", tried[0], f"also looked for {tried[1]}")
            row["flow_path"] = "".join(found[:1])
