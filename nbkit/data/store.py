"""Folders that are either complete or absent: the ground on which the video and feature caches
stand.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np

from nbkit.errors import NbkitError

EDGE = 1 << 15  # bytes read from each end of a video file for its fingerprint


def fingerprint(path):
    """Digest of a file's size and of its first and last 32 KiB: tells two renderings apart, cheap
    for large files.
    """
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(EDGE))
        file.seek(max(size - EDGE, 0))
        digest.update(file.read(EDGE))
    return digest.hexdigest()


def key_of(settings):
    """16 hexadecimal digits that stand for a JSON-able description."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _clear_abandoned(final):
    """Remove what killed runs on this machine left of this folder; a run still alive keeps its own.
    """
    host = socket.gethostname()
    for folder in final.parent.glob(f".{final.name}.tmp-{host}-*"):
        if not _alive(int(folder.name.rsplit("-", 1)[1])):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(final):
    """A temporary folder that becomes `final` when the block ends, and vanishes when the block
    fails.

    Raises NbkitError naming `final` where the disk is full or may not be written.
    """
    final = Path(final)
    temporary = final.parent / f".{final.name}.tmp-{socket.gethostname()}-{os.getpid()}"
    try:
        with disk_errors(final, "nothing was kept"):
            final.parent.mkdir(parents=True, exist_ok=True)
            _clear_abandoned(final)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            with contextlib.suppress(FileExistsError):
                os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(final, kept):
    """Turn what the disk answers into an NbkitError that names `final` and says what was kept."""
    try:
        yield
    except OSError as error:
        # another process finished the same folder first: it holds the same bytes
        if error.errno == errno.ENOTEMPTY:
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NbkitError(f"{final}: the disk is full; {kept}. Free some space or choose another folder.") from error
        raise NbkitError(f"{final}: could not be written ({error}); {kept}.") from error


def require_space(folder, needed):
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


class GrowingArray:
    """A .npy file written piece by piece along its first axis, whose final length is not known
    beforehand.

    The .npy format pads its header so that the first axis may grow in place.  `length` goes on with
    a file that holds at least so many pieces already; what it holds beyond them is cut off.
    """

    def __init__(self, path, shape, dtype, length=0):
        self.shape, self.dtype, self.length = tuple(shape), np.dtype(dtype), length
        self.file = open(path, "r+b" if length else "wb")
        self._header()
        if length:
            self.file.seek(length * int(np.prod(self.shape)) * self.dtype.itemsize, os.SEEK_CUR)
            self.file.truncate()

    def _header(self):
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(
            self.file,
            {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
             "shape": (self.length, *self.shape)},
        )

    def append(self, piece):
        """Add piece (n, *shape)."""
        self.file.write(np.ascontiguousarray(piece, self.dtype).data)
        self.length += len(piece)

    def sync(self):
        """Wait until everything so far is on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self, whole=True):
        """Finish the file (or, with whole=False, only let go of it)."""
        if whole:
            self.file.flush()
            self._header()
        self.file.close()


def whole_pieces(path):
    """How many pieces the file of a GrowingArray holds, whatever its header says; OSError or
    ValueError when it is none.
    """
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return (os.path.getsize(path) - file.tell()) // (dtype.itemsize * int(np.prod(shape[1:])))


def write_json(path, value):
    """Readable, sorted JSON."""
    Path(path).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
