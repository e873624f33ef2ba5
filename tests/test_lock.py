"""requirements.lock: every dependency, every file with its hash, three platforms, no address; and
the pages that repeat its commands.
"""

import re
import subprocess
import sys
import tomllib

import pytest

from nbkit.config import ROOT
from tools import lock

TEXT = lock.LOCK.read_text()
BLOCKS = re.split(r"\n(?=\S)", TEXT.removeprefix(lock.HEAD).strip())


def test_every_dependency_is_there_once_with_hashes_and_no_address():
    first = re.compile(r"([a-z0-9.-]+)==[\w.+!]+( ; [^\\]+)? \\")
    names = [first.fullmatch(block.splitlines()[0]).group(1) for block in BLOCKS]
    assert sorted(names) == sorted(set(names)) and len(names) > 150
    for block in BLOCKS:
        hashes = block.splitlines()[1:]
        assert hashes and all(
            re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes
        )
    assert "://" not in TEXT and "index" not in TEXT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {re.split(r"[<>=]", name)[0].lower() for name in asked} | {"uv"} <= set(names)
    assert not {"pip", *lock.EXCLUDED} & set(names)
    assert {name.split("==")[0] for name in lock.WEIGHTS} <= set(names)


def test_what_only_one_system_needs_says_so():
    marked = {block.split("==")[0]: block.splitlines()[0] for block in BLOCKS if " ; " in block}
    assert "sys_platform == 'linux'" in marked["nvidia-cublas"]
    assert "sys_platform == 'win32'" in marked["colorama"] and "darwin" in marked["appnope"]


def test_every_place_that_installs_uses_the_same_words():
    words = "--no-deps --require-hashes -r requirements.lock"
    pages = ["Makefile", "environment.yml", "docs/INSTALL.md", "requirements.lock"]
    for page in pages:
        assert words in (ROOT / page).read_text(), page
    done = subprocess.run(["make", "-n", "setup", "-B"], cwd=ROOT, capture_output=True, text=True)
    assert words in done.stdout and re.search(r"uv==\$\(sed", done.stdout)
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert least == f">={lock.PYTHON}" and "(3, 11, 5)" in (ROOT / "Makefile").read_text()


def test_it_can_be_installed_on_three_platforms():
    problems = lock.check()
    unreachable = ("error sending request", "dns error", "Failed to fetch", "connect")
    if any(word in said for said in problems.values() for word in unreachable):
        pytest.skip("no package index can be reached")
    if any("No module named uv" in said for said in problems.values()):
        pytest.skip(f"uv is not installed beside {sys.executable}")
    assert set(problems.values()) == {""}, problems
