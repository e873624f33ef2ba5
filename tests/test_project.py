"""The project's own papers: environment files agree, notebooks keep their form, nothing private
slipped in.
"""

import ast
import re
import subprocess
import tomllib

import nbformat
import pytest
import yaml

from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def test_environment_and_pyproject_name_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = set(project["dependencies"]) | set(project["optional-dependencies"]["test"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(
        next(d for d in environment["dependencies"] if isinstance(d, dict))["pip"]
    ) == wanted | {"-e ."}


def test_every_dependency_is_locked_to_one_version_and_no_address_is_named():
    lines = [
        x
        for x in (ROOT / "requirements.lock").read_text().splitlines()
        if x and not x.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", x) for x in lines)
    locked = {x.split("==")[0].lower().replace("_", "-") for x in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {re.split(r"[<>=]", n)[0].lower() for n in names} <= locked


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
