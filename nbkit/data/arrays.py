"""One array file per video: written whole, found again by its name, read by memory map."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import mmap
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from nbkit.errors import NbkitError
from nbkit.files import atomically, held, remove_parts

# bytes read from each end of a file for its fingerprint
EDGE = 1 << 15
# broken videos named in one message
MOST_NAMED = 20
# array files kept open for reading
OPEN = 128
# seconds after which nobody writes a half-written file any more
ABANDONED = 3600.0


def fingerprint(path: str | Path) -> str:
    """Digest of a file's size and of its first and last 32 KiB: cheap for large files."""
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(EDGE))
        file.seek(max(size - EDGE, 0))
        digest.update(file.read(EDGE))
    return digest.hexdigest()


def key_of(settings: Any) -> str:
    """16 hexadecimal digits that stand for a JSON-able description."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class DamagedArray(NbkitError):
    """A file whose content is not the array that its name stands for."""


class VideoArrays:
    """Arrays (N, *shape) of one dtype, one .npy file per video.

    `names` gives each video the name of its file, which stands for the video's content and for the
    settings. So a file that is there is done: an interrupted job goes on with the others.
    """

    def __init__(self, folder: Path, names: Mapping[str, str], shape: tuple[int, ...], dtype: type):
        self.folder, self.shape, self.dtype = Path(folder), shape, np.dtype(dtype)
        self.paths = {video: self.folder / f"{name}.npy" for video, name in names.items()}
        self.lengths: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, video: str) -> np.ndarray:
        """A read-only view of a video's file, (N, *shape)."""
        shape = (self.n_frames(video), *self.shape)
        return _mapped(self.paths[video], shape, self.dtype)

    def n_frames(self, video: str) -> int:
        """The length N of a video's array."""
        if video not in self.lengths:
            raise NbkitError(f"video {video!r} is not in {self.folder}. Build it with that video.")
        return self.lengths[video]

    def missing(self) -> list[str]:
        """Videos without a file; a damaged file is named, and counts as missing."""
        found = []
        for video, path in self.paths.items():
            try:
                self.lengths[video] = len(open_array(path, self.shape, self.dtype))
            except FileNotFoundError:
                found.append(video)
            except DamagedArray as error:
                warnings.warn(f"{error}: it is made again", stacklevel=2)
                found.append(video)
        return found

    def write(self, video: str, array: np.ndarray) -> None:
        """Store a video's array; raise NbkitError where the disk is full or read-only."""
        path = self.paths[video]
        array = np.ascontiguousarray(array, self.dtype)

        def save(part: Path) -> None:
            with open(part, "wb") as file:
                np.save(file, array)

        atomically(path, save)
        self.lengths[video] = len(array)

    def make_missing(
        self,
        rows: Callable[[str], int],
        work: Callable[[str], np.ndarray],
        *,
        title: str,
        workers: int = 1,
        progress: bool = True,
    ) -> None:
        """Compute and store the arrays of the videos without a file, in `workers` threads.

        Args:
            rows: the N of a video, asked of all before any is computed.

        Raises:
            NbkitError: too little space, or naming every video whose `work` failed; the others are
                stored.
        """
        videos = self.missing()
        if not videos:
            return
        row = math.prod(self.shape) * self.dtype.itemsize
        require_space(self.folder.parent, row * sum(answers_of(rows, videos).values()))

        def attempt(video: str) -> str:
            try:
                array = work(video)
            except NbkitError as error:
                return str(error)
            self.write(video, array)
            return ""

        remove_parts(self.folder, ABANDONED)
        pool = ThreadPoolExecutor(workers)
        results = map(attempt, videos) if workers == 1 else pool.map(attempt, videos)
        done = len(self) - len(videos)
        bar = tqdm(results, title, len(self), initial=done, disable=not progress)
        try:
            problems = [problem for problem in bar if problem]
        finally:
            pool.shutdown(cancel_futures=True)
        raise_all(problems, "the others are kept for the next attempt")


def open_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map a .npy file that must hold (N, *shape).

    Raises:
        FileNotFoundError: there is none.
        DamagedArray: it holds something else.
        NbkitError: it cannot be read just now; it is left as it is.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # a broken header may fail in many ways
        raise DamagedArray(f"{path}: damaged ({error})") from error
    if array.dtype != dtype or array.shape[1:] != shape or not array.flags.c_contiguous:
        raise DamagedArray(f"{path}: damaged (holds {array.dtype} {array.shape})")
    if path.stat().st_size != array.offset + array.nbytes:
        raise DamagedArray(f"{path}: damaged (its size does not fit its header)")
    return array


@functools.lru_cache(maxsize=OPEN)
def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`open_array` of a file that was checked before, in a third of the time."""
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise NbkitError(f"{path}: was deleted. Run again to make it.") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    # the array is all that follows the header
    header = len(content) - math.prod(shape) * dtype.itemsize
    return np.frombuffer(content, dtype, offset=header).reshape(shape)


def _unreadable(path: Path, error: Exception) -> NbkitError:
    return NbkitError(
        f"{path}: cannot be read just now ({error}). It was left as it is: check its permissions "
        "and the disk or network it lies on, and run again."
    )


def answers_of(
    question: Callable[[Any], Any], videos: Iterable, kept: str = "nothing was written"
) -> dict[Any, Any]:
    """question(video) of every video, by video, or one NbkitError naming all that fail."""
    answers, problems = {}, []
    for video in videos:
        try:
            answers[video] = question(video)
        except (NbkitError, OSError) as error:
            problems.append(str(error))
    raise_all(problems, kept)
    return answers


def raise_all(problems: list[str], kept: str) -> None:
    """Raise one NbkitError for many problems; none where there are none."""
    if not problems:
        return
    lines = problems[:MOST_NAMED]
    if len(problems) > MOST_NAMED:
        lines.append(f"... and {len(problems) - MOST_NAMED} more")
    raise NbkitError(f"these videos cannot be used ({kept}):\n" + "\n".join(lines))


def require_space(folder: str | Path, needed: int) -> None:
    """Raise NbkitError where the disk of `folder` has fewer than `needed` bytes free."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NbkitError(
            f"{folder}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free. "
            "Free some space, choose another folder or a smaller size."
        )


@contextlib.contextmanager
def one_at_a_time(data_root: str | Path, benchmark: str) -> Iterator[None]:
    """Hold the lock on what is made of a benchmark: rendered videos, caches, features.

    A second process waits, and after a few seconds says for what.
    """
    root = Path(data_root)
    if root.exists() and not os.access(root, os.W_OK):
        raise NbkitError(
            f"{root}: cannot be written. Caches of the decoded videos are made there. Give a "
            "folder of your own as DATA_ROOT, with a link to the videos in it: "
            f"ln -s /the/share/{benchmark} DATA_ROOT/{benchmark}"
        )
    with held(root / f".making-{benchmark}.lock", f"the data of {benchmark}"):
        yield
