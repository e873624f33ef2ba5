"""What every layout shares: finding the dataset folder, class folders, and saying what is wrong by
name.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from nbkit.benchmarks.manifest import DomainSpec
from nbkit.errors import NbkitError

VIDEO_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg")


class LayoutOptions(BaseModel):
    """Base of a layout's ``Options``: unknown option names are refused.

    flow_images: folder of precomputed flow below the dataset folder; a video's own folder in it is
    ``<class>/<video>`` or ``<video>`` and holds ``flow_x_*.jpg`` and ``flow_y_*.jpg``, or ``u/``
    and ``v/``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    flow_images: str = ""


@dataclass(frozen=True)
class Problem:
    """Something missing or broken: ``kind`` (a short word), ``name`` (the file or folder),
    ``advice``.

    ``expected``: the published data has this fault, so that a run goes on without the video.
    """

    kind: str
    name: str
    advice: str
    expected: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}" + (f" ({self.advice})" if self.advice else "")


@dataclass
class Listing:
    """Videos found (dicts with video, path, class_name, split, group, ...) and problems met on the
    way.
    """

    rows: list[dict] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, kind: str, name: object, advice: str = "", expected: bool = False) -> None:
        self.problems.append(Problem(kind, str(name), advice, expected))


def find_base(
    spec: DomainSpec, root: Path, markers: Iterable[str], listing: Listing
) -> Path | None:
    """The dataset folder: the first of ``spec.folder`` below root that holds one of ``markers``
    (glob patterns).
    """
    markers = list(markers)
    for name in [*spec.folder, "."]:
        base = root / name
        if _holds(base, markers):
            return base
    listing.problem(
        "dataset not found",
        f"{spec.dataset} in {root}",
        f"looked for {' or '.join(markers[:4])} in it and in its folders "
        f"{', '.join(n for n in spec.folder if n != '.')}; {_elsewhere(root, markers)} "
        f"Download it from {spec.homepage} and give its folder as the root",
    )
    return None


def _holds(base: Path, markers: list[str]) -> bool:
    return base.is_dir() and any(next(base.glob(m), None) is not None for m in markers)


def _elsewhere(root: Path, markers: list[str]) -> str:
    """What a person who gave a wrong root needs to see: where the data is, or what is there
    instead.
    """
    entries = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    for near in [root.parent, *(p for p in entries if p.is_dir())]:
        if _holds(near, markers):
            return f"it seems to be in {near}."
    if not entries:
        return "the folder is empty."
    return f"the folder holds {', '.join(p.name for p in entries[:6])}{', ...' if len(entries) > 6 else ''}."


def class_folders(parent: Path, spec: DomainSpec, listing: Listing) -> dict[str, tuple[str, Path]]:
    """Dataset class -> (common class, folder); a missing folder becomes a problem with the closest
    name there.
    """
    present = {p.name: p for p in sorted(parent.iterdir()) if p.is_dir()} if parent.is_dir() else {}
    found = {}
    for common, members in spec.classes.items():
        for member in members:
            if member in present:
                found[member] = (common, present[member])
            else:
                listing.problem(
                    "class folder missing", parent / member, _folder_advice(parent, member, present)
                )
    return found


def _folder_advice(parent: Path, member: str, present: Iterable[str]) -> str:
    for suffix in (".rar", ".zip", ".tar", ".tar.gz"):
        if (parent / f"{member}{suffix}").is_file():
            return f"extract {member}{suffix}, which is there"
    return did_you_mean(member, present)


def attach_flow(spec: DomainSpec, root: Path, listing: Listing) -> None:
    """Fill the column ``flow_path`` where the option ``flow_images`` is set; a video without a flow
    folder is a problem.
    """
    name = spec.options.get("flow_images")
    if not name or not listing.rows:
        return
    base = next((root / f / name for f in [*spec.folder, "."] if (root / f / name).is_dir()), None)
    if base is None:
        listing.problem(
            "flow folder missing", root / spec.folder[0] / name, "named by the option flow_images"
        )
        return
    for item in listing.rows:
        own, _, stem = item["video"].rpartition("/")
        found = next((p for p in (base / own / stem, base / stem) if p.is_dir()), None)
        if found is None:
            listing.problem(
                "flow folder missing", base / own / stem, f"also looked for {base / stem}"
            )
        item["flow_path"] = str(found.absolute()) if found else ""


def refuse_official(spec: DomainSpec) -> None:
    """NbkitError where the manifest asks for official lists of a dataset that has none."""
    if spec.split.rule == "official":
        raise NbkitError(
            f"{spec.dataset} has no official split lists: set its split rule to 'grouped' or 'all_train'"
        )


def first_folder(base: Path, names: Iterable[str], listing: Listing, what: str) -> Path | None:
    """The first existing folder of ``names`` below base, else a problem."""
    names = list(names)
    for name in names:
        if (base / name).is_dir():
            return base / name
    listing.problem(
        f"{what} folder missing", base / names[0], f"also looked for {', '.join(names[1:])}"
    )
    return None


def folder_index(folder: Path) -> dict[str, Path]:
    """Entries of a folder by Unicode-composed name: lists and disks may spell the same accent
    differently.
    """
    return (
        {unicodedata.normalize("NFC", p.name): p for p in folder.iterdir()}
        if folder.is_dir()
        else {}
    )


def composed(name: str) -> str:
    """A file name in composed Unicode form (NFC), the key used by :func:`folder_index`."""
    return unicodedata.normalize("NFC", name)


def did_you_mean(name: str, present: Iterable[str]) -> str:
    """'found X, rename it to NAME' for the closest existing name (case and underscores ignored), or
    ''.
    """
    by_key = {folded(p): p for p in present}
    close = difflib.get_close_matches(folded(name), by_key, n=1, cutoff=0.7)
    return f"found '{by_key[close[0]]}': rename it to '{name}'" if close else ""


def folded(name: str) -> str:
    """A name without case, blanks, '_' and '-', for comparing spellings."""
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def video_files(folder: Path) -> list[Path]:
    """Video files directly in a folder, sorted by name (hidden files left out)."""
    files = (
        p
        for p in folder.iterdir()
        if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith(".")
    )
    return sorted(files, key=lambda p: p.name)


def read_text(path: Path) -> str:
    """A small text file as UTF-8, falling back to Latin-1 (old lists); NbkitError names a missing
    file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NbkitError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def row(path: Path, class_name: str, split: str, group: str, **extra: object) -> dict:
    """One table row; ``video`` is '<dataset class>/<stem>', made unique by the domain name later."""
    video = f"{path.parent.name}/{path.stem}"
    return {
        "video": video,
        "path": str(path.absolute()),
        "class_name": class_name,
        "split": split,
        "group": group,
        **extra,
    }
