"""Checkpoint files: a full disk, a damaged file, a file that may not be read, and who may read what
was written.
"""

import os
import resource
import signal

import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.files import atomically
from nbkit.train.checkpoint import read_checkpoint, write_checkpoint


def test_what_is_written_is_read_and_nothing_is_none(tmp_path):
    write_checkpoint(tmp_path / "a.pt", {"epoch": 3, "w": torch.arange(4.0)})
    state = read_checkpoint(tmp_path / "a.pt")
    assert state["epoch"] == 3 and torch.equal(state["w"], torch.arange(4.0))
    assert read_checkpoint(tmp_path / "b.pt") is None


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path):
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"epoch": 1})
    old, limits = (
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1 << 16, limits[1])
    )  # the system itself refuses to write on, as a full disk does
    try:
        with pytest.raises(NbkitError, match=f"{path}: could not be written .*the disk is full"):
            write_checkpoint(path, {"epoch": 2, "w": torch.zeros(1 << 16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert read_checkpoint(path)["epoch"] == 1 and [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    "harm", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a checkpoint"]
)
def test_a_damaged_file_is_named(tmp_path, harm):
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"w": torch.zeros(100)})
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(
        NbkitError, match=f"(?s){path}: not a readable checkpoint.*Move the file away"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "error, raised, words",
    [
        (
            PermissionError(13, "Permission denied"),
            NbkitError,
            "cannot be read now.*Permission denied.*may be good",
        ),
        (MemoryError(), MemoryError, None),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            RuntimeError,
            "^DefaultCPUAllocator",
        ),
    ],
)
def test_a_good_file_is_not_called_damaged(tmp_path, monkeypatch, error, raised, words):
    def fails(*args, **how):
        raise error

    write_checkpoint(tmp_path / "a.pt", {})
    monkeypatch.setattr("nbkit.train.checkpoint.torch.load", fails)
    with pytest.raises(raised, match=words):
        read_checkpoint(tmp_path / "a.pt")


def test_files_have_the_rights_that_the_user_gives_new_files(tmp_path):
    old = os.umask(0o027)
    try:
        atomically(tmp_path / "a.txt", lambda p: p.write_text("x"))
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
