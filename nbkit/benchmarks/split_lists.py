"""Parsers of the published split lists. Tolerant of CRLF, tabs, trailing blanks and byte-order
marks.
"""

from __future__ import annotations

import re

from nbkit.errors import NbkitError

_HMDB_PART = {0: "unused", 1: "train", 2: "test"}
_UCF_GROUP = re.compile(r"_g(\d+)_c\d+$")


def parse_ucf_list(text: str, name: str = "list") -> list[tuple[str, int | None]]:
    """UCF101 ``trainlist0N.txt`` / ``testlist0N.txt``: lines ``Class/file.avi [1-based id]``.

    Returns:
        (``'Class/file.avi'``, id or None) per non-empty line, in order.

    Raises:
        NbkitError: a line without a class folder.
    """
    rows = []
    for number, line in _lines(text):
        match = re.fullmatch(r"(.+?)(?:\s+(\d+))?", line)
        entry = match.group(1).replace("\\", "/")
        folder, _, file = entry.rpartition("/")
        if not folder or not file:
            raise NbkitError(
                f"{name}, line {number}: expected 'Class/video.avi [id]', found {line!r}"
            )
        rows.append((entry, int(match.group(2)) if match.group(2) else None))
    return rows


def parse_class_index(text: str, name: str = "classInd.txt") -> dict[int, str]:
    """UCF101 ``classInd.txt``: lines ``id ClassName`` -> {1-based id: class name}."""
    table = {}
    for number, line in _lines(text):
        match = re.fullmatch(r"(\d+)\s+(\S.*)", line)
        if not match:
            raise NbkitError(f"{name}, line {number}: expected 'id ClassName', found {line!r}")
        table[int(match.group(1))] = match.group(2)
    return table


def parse_hmdb_list(text: str, name: str = "list") -> list[tuple[str, str]]:
    """HMDB51 and J-HMDB ``<class>_test_split<N>.txt``: lines ``file.avi 0|1|2``.

    File names may hold blanks, brackets, ``&``, ``;``, ``!`` and ``#``: the mark is the last field
    only.

    Returns:
        (file name, 'train' | 'test' | 'unused') per non-empty line; the official marks are 1, 2 and
        0.

    Raises:
        NbkitError: a line that does not end in 0, 1 or 2.
    """
    rows = []
    for number, line in _lines(text):
        match = re.fullmatch(r"(\S.*?)\s+([012])", line)
        if not match:
            raise NbkitError(f"{name}, line {number}: expected 'video.avi 0|1|2', found {line!r}")
        rows.append((match.group(1), _HMDB_PART[int(match.group(2))]))
    return rows


def parse_name_list(text: str) -> list[str]:
    """One video name a line (Olympic Sports ``train_test_split``); blank lines and comments are
    dropped.
    """
    return [line for _, line in _lines(text)]


def ucf_group(stem: str) -> str:
    """Recording group of ``v_<Class>_gXX_cYY``: ``'gXX'``; the stem itself when the name has no
    group.
    """
    match = _UCF_GROUP.search(stem)
    return f"g{match.group(1)}" if match else stem


def hmdb_title(stem: str, class_name: str, merge_parts: bool = True) -> str:
    """The film a HMDB51/J-HMDB clip was cut from: the text before ``_<class>_``, lower case.

    ``merge_parts`` drops a trailing ``_<number>``, so ``The_Fugitive_2`` and ``The_Fugitive_3`` are
    one film.
    """
    title, mark, _ = stem.rpartition(f"_{class_name}_")
    if not mark:
        title = re.sub(r"_\d+$", "", stem)
    if merge_parts:
        title = re.sub(r"_\d+$", "", title)
    return title.casefold()


def _lines(text: str):
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        if line.strip():
            yield number, line.strip()
