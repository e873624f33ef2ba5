"""Freed memory is kept: counted in page faults, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from nbkit import memory

PAGES = """
import resource, torch
from nbkit.memory import keep_freed_memory
from nbkit.models.small import SmallEncoder
torch.set_num_threads(1)
if {kept}:
    assert keep_freed_memory() and keep_freed_memory()
network, x = SmallEncoder("rgb").eval(), torch.rand(64, 3, 8, 40, 40)
def passes(n):
    with torch.no_grad():
        for _ in range(n):
            network(x)
passes(4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes(8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() // 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_mapped_once():
    mapped = {}
    for kept in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", PAGES.format(kept=kept)],
            capture_output=True,
            text=True,
            check=True,
        )
        mapped[kept] = int(done.stdout.split()[-1])  # MiB
    assert mapped[True] < mapped[False] / 4


def test_nothing_happens_on_other_systems(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())  # a C library without mallopt
    assert memory.keep_freed_memory() is False
