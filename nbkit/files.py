"""Files that are written whole or not at all, locks, and the one reader of YAML."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import yaml
from filelock import FileLock, Timeout
from pydantic import AfterValidator

from nbkit.errors import NbkitError

# Seconds of silent waiting for a lock.
PATIENCE = 5.0


# --- names and places ----------------------------------------------------------------------------
def checked_name(name: str) -> str:
    """A name that becomes a file, a folder or an argument: it leads nowhere else."""
    if not re.fullmatch(r"\w[\w +-]{0,62}", name):
        raise NbkitError(
            f"{name!r} cannot be a name: letters, digits, blanks, '_', '-' and '+' are allowed, 63 "
            "at most, a letter or a digit first. A file of data_manifests/ goes without .yaml"
        )
    return name


Name = Annotated[str, AfterValidator(checked_name)]


def user_path(text: str) -> str:
    """A path as given, '~' written out; NbkitError where no system could have such a file."""
    path = os.path.expanduser(text)
    if not text.strip() or path.startswith("~"):
        raise NbkitError(f"{text!r} is no path (empty, or of an unknown user)")
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (ValueError, OSError) as error:
        raise NbkitError(f"{text[:99]!r} cannot be a path here: {error}") from None
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- writing -------------------------------------------------------------------------------------
def not_written(path: Path, error: OSError) -> NbkitError:
    """What to say of a file that the system does not let us write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "the disk is full. Free some space or choose another folder"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        advice = "a file is where a folder should be, or the reverse. Move it or choose another"
    else:
        advice = "look at the rights of the folder and at its disk, or choose another folder"
    return NbkitError(
        f"{path}: could not be written ({error.strerror or error}): {advice}. What is done is "
        "kept: run again to go on"
    )


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write to a temporary file beside `path`, then rename: a reader never sees half a file.

    Raises NbkitError where the system refuses (a full disk, missing rights, a file in the way).
    """
    # A name of our own: the files of mkstemp can be read by their owner alone.
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # or a power cut leaves an empty file of that name
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise not_written(path, error) from error


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the block; the system frees it when its process ends.

    A second process waits, and after a few seconds says for what.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            print(f"waiting: another process makes {what} ({path})", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise not_written(path, error) from error
    try:
        yield
    finally:
        lock.release()


def remove_parts(folder: Path, age: float = 60.0) -> None:
    """Delete the temporary files of `atomically` below a folder that a killed process left.

    age: seconds since a file was changed; another process may still write a younger one.
    """
    for path in folder.rglob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            ours = re.search(r"\.[0-9a-f]{12}\.part$", path.name)
            if ours and time.time() - path.stat().st_mtime >= age:
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically."""
    text = json.dumps(value, indent=1, default=str) + "\n"
    atomically(path, lambda part: part.write_text(text))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of one table, atomically; the columns are all keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(part: Path) -> None:
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    atomically(path, write)


# --- YAML ----------------------------------------------------------------------------------------
DEEPEST = 20  # levels of lists and mappings


class _Plain(yaml.SafeLoader):
    """Texts, numbers, truth values, lists and mappings; a date or an octal number stays text."""

    yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in known if not tag.endswith(("timestamp", "int"))]
        for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def fetch_more_tokens(self) -> None:
        # Before the nodes are made: a hundred thousand brackets would take half a minute.
        if self.flow_level + len(self.indents) > DEEPEST:
            raise yaml.YAMLError("lists or mappings lie too deep in each other")
        super().fetch_more_tokens()

    def refuse_odd(self, node: yaml.Node, seen: dict[yaml.Node, int], path: tuple = ()) -> int:
        """Number of nodes below `node`, aliases written out; YAMLError for what is not plain."""
        if node in path or len(path) > DEEPEST:
            raise _wrong("lists or mappings lie too deep in each other", node)
        if node.tag.rpartition(":")[2] not in _TAGS:
            raise _wrong(f"a value of the kind {node.tag} is not allowed", node)
        if node not in seen:
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            if isinstance(node, yaml.MappingNode):
                keys = set()
                for key, _ in children:
                    if not isinstance(key, yaml.ScalarNode):
                        raise _wrong("a key must be a text or a number", key)
                    if key.value in keys:
                        raise _wrong(f"the key {key.value!r} is given twice", key)
                    keys.add(key.value)
                children = [child for pair in children for child in pair]
            counts = [self.refuse_odd(child, seen, (*path, node)) for child in children]
            seen[node] = 1 + sum(counts)
            if seen[node] > 100_000:
                raise _wrong("aliases make too many values", node)
        return seen[node]


_TAGS = {"str", "int", "float", "bool", "null", "map", "seq", "merge"}
_Plain.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]{0,30})$"), list("-+0123456789")
)


def _wrong(what: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of plain values.

    Raises NbkitError, which names file and line, for a key that is given twice, a value that is no
    text, number, list or mapping, values without end, and whatever cannot be read.
    """
    try:
        if path.stat().st_size > 1 << 20:
            raise yaml.YAMLError("more than a megabyte, which no table or manifest needs")
        loader = _Plain(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError("lines of `name: value` are expected")
        loader.refuse_odd(node, {})
        return {str(key): value for key, value in loader.construct_document(node).items()}
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise NbkitError(f"{path}: not a readable YAML file: {error}") from None
