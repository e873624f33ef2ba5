"""Published split lists, and which videos are of one recording: by name, table or option."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nbkit.benchmarks.listing import LISTED_SUFFIX
from nbkit.errors import NbkitError

# what a line of a list looks like
UCF_LINE, HMDB_LINE, NAME_LINE = "Class/video.avi [id]", "video.avi 0|1|2", "video"
# names of HMDB51 may hold blanks and brackets: the mark is the last field only
_PATTERNS = {
    UCF_LINE: r"(?P<own>.+)[/\\](?P<file>[^/\\]+?)(\s+\d+)?",
    HMDB_LINE: r"(?P<file>\S.*?)\s+(?P<mark>[012])",
    NAME_LINE: r"(.*/)?(?P<file>[^/]+)",
}
_MARKS = {"": "", "0": "unused", "1": "train", "2": "test"}
# (the dataset's own class, "<class>/<video>") -> recording group, "" for none
GroupReader = Callable[[str, str], str]
GROUP_COLUMNS = ("video", "group")


class ListEntry(NamedTuple):
    """One line of a list; '' stands for what the line leaves to the name of its file."""

    own: str  # the dataset's own class
    file: str
    split: str  # 'train', 'val', 'test' or 'unused'


def read_text(path: Path) -> str:
    """A text in UTF-8 or (old ones) Latin-1, without a byte-order mark."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NbkitError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_list(path: Path, form: str) -> list[ListEntry]:
    """Read a list; see :func:`parse_list`."""
    return parse_list(read_text(path), form, str(path))


def parse_list(text: str, form: str, name: str = "list") -> list[ListEntry]:
    """The entries of a list, whatever its line ends, trailing blanks and byte-order mark.

    Args:
        text: content of the file.
        form: UCF_LINE, HMDB_LINE or NAME_LINE, what a line looks like.
        name: the file's name for messages.

    Raises:
        NbkitError: a line of another form.
    """
    entries = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(_PATTERNS[form], line.strip())
        if not match:
            raise NbkitError(f"{name}, line {number}: expected '{form}', found {line!r}")
        found = match.groupdict()
        mark = _MARKS[found.get("mark", "")]
        own = re.split(r"[/\\]", found.get("own", ""))[-1]  # some lists have longer paths
        entries.append(ListEntry(own, found["file"], mark))
    return entries


# --- recording groups ----------------------------------------------------------------------------
def group_reader(option: str, base: Path, by_name: GroupReader) -> GroupReader:
    """How the recording group of a video is found.

    Args:
        option: "" for the layout's own rule, "file" for one group per video, a .csv file below the
            dataset folder, or a regular expression with a part ``(?P<group>...)``.
        base: the dataset folder.
        by_name: the layout's rule, (own class, name without folders) -> group.

    Raises:
        NbkitError: a table that cannot be read.
    """
    if not option:
        return lambda own, name: by_name(own, name.rpartition("/")[2])
    if option == "file":
        return lambda own, name: name
    if option.endswith(".csv"):
        groups = _read_groups(base / option)
        return lambda own, name: groups.get(_key(name), "")
    pattern = re.compile(option)

    def group_of(own: str, name: str) -> str:
        match = pattern.search(name)
        if match is None:
            return ""
        return match["group"] or ""

    return group_of


def _read_groups(path: Path) -> dict[str, str]:
    text = read_text(path)
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    groups: dict[str, str] = {}
    for line in csv.DictReader(io.StringIO(text), delimiter=delimiter):
        video, group = ((line.get(column) or "").strip() for column in GROUP_COLUMNS)
        if not video or not group:
            raise NbkitError(
                f"{path}: every line needs {' and '.join(GROUP_COLUMNS)}, found {line}"
            )
        if groups.setdefault(_key(video), group) != group:
            raise NbkitError(f"{path}: two groups for {video}")
    return groups


def _key(video: str) -> str:
    """A path below the dataset folder, without suffix; written on Windows or elsewhere."""
    return LISTED_SUFFIX.sub("", video.replace("\\", "/").removeprefix("./"))


def ucf_group(own: str, stem: str) -> str:
    """``'<Class>/gXX'`` of ``v_<Class>_gXX_cYY``; the stem itself in place of an absent gXX."""
    match = re.search(r"_(g\d+)_c\d+$", stem)
    if match is None:
        return f"{own}/{stem}"
    return f"{own}/{match[1]}"


def arid_group(own: str, stem: str) -> str:
    """The recording ``'<Class>_<group>'`` of ``<Class>_<group>_<number>``; '' for another name."""
    match = re.fullmatch(r".+_(\d+)_\d+", stem)
    if match is None:
        return ""
    return f"{own}_{match[1]}"


def film_title(own: str, stem: str) -> str:
    """The film of a HMDB51 or J-HMDB clip: the text before ``_<class>_``, lower case.

    A trailing ``_<number>`` is dropped: ``The_Fugitive_2`` and ``The_Fugitive_3`` are one film.
    """
    title, mark, _ = stem.rpartition(f"_{own}_")
    if not mark:
        title = re.sub(r"_\d+$", "", stem)
    return re.sub(r"_\d+$", "", title).casefold()


def camera_mark(name: str) -> str | None:
    """'nm' (no camera motion), 'cm' (camera motion) or None, from a HMDB51 or J-HMDB name."""
    match = re.search(r"_(nm|cm)_np\d", name)
    return match and match[1]
