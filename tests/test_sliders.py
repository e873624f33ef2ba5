"""Sliders still work after Run All: what they redraw from is not overwritten by a later cell."""

import ast

import nbformat
import pytest

from nbkit.config import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SLIDERS = ("stepper", "clip_viewer")


def code_cells(path):
    """Syntax trees of the code cells; IPython's % lines are left out."""
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    return [
        ast.parse("\n".join(x for x in source.splitlines() if not x.startswith(("%", "!"))))
        for source in cells
    ]


def bound(nodes):
    """Names that statements bind at the top level of a notebook, inside loops and blocks too."""
    found = set()
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        for part in ast.walk(node):
            if isinstance(part, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
                part.generators = []  # its variables are its own
        found |= {
            n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
    return found


def reads(function, functions, seen=()):
    """Names a function takes from the notebook, through the notebook's own functions as well."""
    own = {a.arg for a in ast.walk(function) if isinstance(a, ast.arg)}
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
    own |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    found = {n.id for n in names if isinstance(n.ctx, ast.Load)} - own
    for name in found & functions.keys() - {*seen}:
        found |= reads(functions[name], functions, (*seen, name))
    return found


def overwritten(cells):
    """{slider's function: names that a later cell binds again}."""
    functions = {n.name: n for cell in cells for n in cell.body if isinstance(n, ast.FunctionDef)}
    problems = {}
    for i, cell in enumerate(cells):
        for call in ast.walk(cell):
            if not isinstance(call, ast.Call):
                continue
            if getattr(call.func, "id", getattr(call.func, "attr", "")) not in SLIDERS:
                continue
            for name in {a.id for a in call.args if isinstance(a, ast.Name)} & functions.keys():
                later = bound([n for c in cells[i + 1 :] for n in c.body])
                if clash := reads(functions[name], functions) & later:
                    problems[name] = clash
    return problems


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_later_cell_overwrites_what_a_slider_redraws_from(path):
    assert overwritten(code_cells(path)) == {}


def test_a_clash_is_found_through_a_helper_and_not_inside_a_comprehension():
    first = (
        "data = [1]\nscale = 2\n"
        "def helper():\n    return data\n"
        "def draw(t):\n    return helper(), scale, t"
    )
    rest = (
        "stepper(draw, [1], 't')",
        "x = [scale for scale in range(3)]",
        "for data in x:\n    pass",
    )
    cells = [ast.parse(text) for text in (first, *rest)]
    assert overwritten(cells) == {"draw": {"data"}}


def test_parameters_that_matter_have_a_slider():
    found = {}
    for path in NOTEBOOKS:
        calls = [n for cell in code_cells(path) for n in ast.walk(cell) if isinstance(n, ast.Call)]
        calls = [call for call in calls if getattr(call.func, "id", "") == "stepper"]
        found[path.name[:2]] = {call.args[2].value for call in calls}
    assert found["02"] == {"temperature"} and found["03"] == {"assignment"}
    assert found["04"] == {"β"} and found["05"] == {"γ", "IoU"}
    assert found["06"] == {"perplexity"} and found["08"] == {"seeds"}
