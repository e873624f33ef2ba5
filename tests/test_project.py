"""The project's own papers: environment files agree, notebooks keep their form, nothing private
slipped in.
"""

import ast
import re
import subprocess

import nbformat
import pytest

from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_form(path):
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    tagged = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for node in ast.parse(tagged[0].source).body:
        assert isinstance(node, ast.Assign), "the parameters cell holds plain assignments only"
        ast.literal_eval(node.value)
    assert all(len(c.source.splitlines()) <= 30 for c in code)
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert any(c.outputs for c in code), "committed executed"
    assert path.stat().st_size < 1_500_000
    assert notebook.metadata.kernelspec.name == "python3"


def test_every_parameter_of_notebook_04_is_a_field():
    notebook = nbformat.read(ROOT / "notebooks" / "04_full_adaptation.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    names = [t.id for node in ast.parse(cell.source).body for t in node.targets]
    assert {n.lower() for n in names} <= set(RunConfig.places())


def test_source_files_speak_of_the_project_only():
    files = subprocess.run(
        ["git", "ls-files", "nbkit", "docs", "README.md", "notebooks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if files.returncode:
        pytest.skip("not a git checkout")
    for name in files.stdout.split():
        if name.endswith(".png"):
            continue
        text = (ROOT / name).read_text()
        assert not re.search(r"\.\./shared|/work/(main|shared|plan)", text), name
