"""The option ``groups``: which videos are of one recording, where their names do not say it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from nbkit.benchmarks.listing import LISTED_SUFFIX
from nbkit.benchmarks.split_lists import read_text
from nbkit.errors import NbkitError

# (the dataset's own class, "<class>/<video>") -> recording group, "" for none
GroupReader = Callable[[str, str], str]
GROUP_COLUMNS = ("video", "group")


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
        return match["group"] or "" if match else ""

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
