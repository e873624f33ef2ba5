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
        assert readme.header(nbformat.read(path, as_version=4), "Goal"), (
            f"{path.name} has no **Goal.** in its first cells"
        )


def test_a_newcomer_reads_it_in_five_minutes():
    words = re.sub(r"<!--.*?-->|[|]|---", " ", TEXT).split()
    assert len(words) <= 1200, f"{len(words)} words; the rest belongs into docs/"


def test_the_heads_of_the_course_say_what_a_reader_needs():
    for number in ("00", "01", "02", "03", "04", "06", "07"):
        (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
        notebook = nbformat.read(path, as_version=4)
        for name in ("Goal", "Question", "Before this notebook", "Afterwards you can", "Time"):
            assert readme.header(notebook, name), f"{path.name}: {name}"
        assert readme.hours(notebook).isdigit(), path.name


PAGE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text().split("## Before")[0]
MESSAGES = [
    m for row in re.findall(r"^\| (`.+?) \|", PAGE, re.M) for m in re.findall(r"`([^`]+)`", row)
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


@pytest.mark.parametrize(
    "name", ["README", *(p.stem for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_exist(name):
    path = ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md"
    for link in re.findall(r"\]\(([^)#\s]+)\)", path.read_text()):
        assert link.startswith("http") or (path.parent / link).resolve().exists(), link


def test_commands_exist():
    text = TEXT + (ROOT / "docs" / "RESULTS.md").read_text()
    for verb in {*re.findall(r"bin/nbkit (\S+)", text)}:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
    for script in re.findall(r"tools/\w+\.py", text):
        assert (ROOT / script).exists(), script
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z]+)", TEXT)) <= rules


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
