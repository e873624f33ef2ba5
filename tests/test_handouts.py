"""Hand-outs: no solution, no output, every exercise and every derivation still there."""

import re

import nbformat
import pytest

from nbkit.config import ROOT
from tools import handouts

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def text_of(notebook):
    return "\n".join(c.source for c in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_handout_asks_everything_and_answers_nothing(path):
    full = nbformat.read(path, as_version=4)
    before = text_of(full)
    bare = handouts.handout(full)
    after = text_of(bare)
    assert text_of(full) == before, "the committed notebook is left as it is"
    assert not re.search(r"<summary>\s*(Solution|Answer)", after)
    for name in re.findall(r"^graders\.\w+\((\w+)\);?$", before, re.M):
        # the function is defined once, by the stub that returns nothing yet
        assert len(re.findall(rf"^def {name}\(", after, re.M)) == 1
    for pattern in (
        r"^graders\..*$",
        r"^\*\*\d\.\d .*$",
        r"<summary>(?!Solution|Answer).*</summary>",
    ):
        assert re.findall(pattern, after, re.M) == re.findall(pattern, before, re.M)
    assert not any(c.get("outputs") for c in bare.cells)
    assert sum("parameters" in c.metadata.get("tags", []) for c in bare.cells) == 1
    nbformat.validate(bare)


def test_they_are_written_beside_what_they_import(tmp_path):
    written = handouts.write(tmp_path / "class")
    assert [p.name for p in written] == [p.name for p in NOTEBOOKS]
    modules = {p.name for p in (ROOT / "notebooks").glob("*.py")}
    assert "graders.py" in modules and modules <= {p.name for p in (tmp_path / "class").iterdir()}
