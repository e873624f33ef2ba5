"""The Makefile's memory settings: freed memory is kept, counted in page faults of a process."""

import os
import platform
import re
import subprocess
import sys

import pytest

from nbkit.config import ROOT

PAGES = """
import resource, torch
from nbkit.models.small import SmallEncoder
torch.set_num_threads(1)
network, x = SmallEncoder("rgb").eval(), torch.rand(64, 3, 8, 40, 40)
def passes(n):
    with torch.no_grad():
        for _ in range(n):
            network(x)
passes(4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes(8)
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(pages * resource.getpagesize() // 2**20)
"""


def settings():
    return dict(
        re.findall(r"^export (MALLOC_\w+) \?= (\d+)$", (ROOT / "Makefile").read_text(), re.M)
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_mapped_once():
    plain = {name: value for name, value in os.environ.items() if name not in settings()}
    mapped = {}
    for kept, environment in ((False, plain), (True, plain | settings())):
        words = [sys.executable, "-c", PAGES]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        mapped[kept] = int(done.stdout.split()[-1])  # MiB
    assert len(settings()) == 2 and mapped[True] < mapped[False] / 4


def test_snakemake_sets_the_same():
    text = (ROOT / "Snakefile").read_text()
    assert dict(re.findall(r'setdefault\("(MALLOC_\w+)", "(\d+)"\)', text)) == settings()
