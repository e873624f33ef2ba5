"""README.md: its blocks are the generator's, its messages are the code's, its links and commands
exist.
"""

import re

import nbformat
import pytest

from nbkit.cli import main
from nbkit.config import ROOT
from nbkit.errors import NbkitError
from tools import readme

TEXT = readme.README.read_text()
SOURCES = "\n".join(p.read_text() for p in sorted((ROOT / "nbkit").rglob("*.py")))


def test_the_blocks_are_what_the_generator_writes():
    assert TEXT == readme.filled(TEXT), "run python -m tools.readme"
    assert {
        found[0] for found in re.findall(r"<!-- ((results:\w+)|notebooks|tables) -->", TEXT)
    } >= {"results:demo_table4", "notebooks"}


def test_every_notebook_is_listed():
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert f"(notebooks/{path.name})" in TEXT
        assert readme.goal(nbformat.read(path, as_version=4)), (
            f"{path.name} has no **Goal.** in its first cells"
        )


MESSAGES = [
    m
    for row in re.findall(
        r"^\| (`.+?) \|", TEXT.split("## Troubleshooting")[1].split("##")[0], re.M
    )
    for m in re.findall(r"`([^`]+)`", row)
]


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_of_the_troubleshooting_is_in_the_code(message):
    """Messages are put together from neighbouring string literals: joined here as Python joins
    them.
    """
    joined = re.sub(r'"\s*\n\s*f?r?"', "", SOURCES)
    assert message in joined


def test_there_are_messages():
    assert len(MESSAGES) > 12


def test_links_and_commands_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert link.startswith("http") or (ROOT / link).exists(), link
    verbs = set(re.findall(r"nbkit (\w[\w-]*) [a-z]", TEXT))
    assert {"run", "export", "cost", "check-data"} <= verbs
    for verb in verbs & {*re.findall(r"bin/nbkit (\S+)", TEXT)}:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
    for script in re.findall(r"tools/\w+\.py", TEXT):
        assert (ROOT / script).exists(), script
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z]+)", re.sub(r"Python.*make and git", "", TEXT))) <= rules


def test_minutes_come_from_executed_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "MINUTES", tmp_path / "minutes.csv")
    with pytest.raises(NbkitError, match="make demo"):
        readme.measure(tmp_path)
    notebook = nbformat.v4.new_notebook(
        metadata={"papermill": {"duration": 90.0, "end_time": "2026-01-01", "exception": None}}
    )
    nbformat.write(notebook, tmp_path / "03_vca.ipynb")
    readme.measure(tmp_path)
    block = readme.notebooks_block()
    assert "| 1.5 |" in next(x for x in block.splitlines() if "03_vca" in x)
    assert "| – |" in next(x for x in block.splitlines() if "02_stcl" in x)
