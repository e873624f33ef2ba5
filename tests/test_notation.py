"""docs/NOTATION.md against the code: every name exists, every shape is documented, every equation
has one function.
"""

import ast
import importlib
import inspect
import re

import pytest

from nbkit.config import ROOT

PAGE = (ROOT / "docs" / "NOTATION.md").read_text()
RECOGNITION, LOCALIZATION = PAGE.split("## Action localization")
REFERENCE = re.compile(r"`([a-z_]+(?:\.\w+)+)(?:\((\w+)\))?`")
STCDA_FILES = ("contrastive", "alignment", "objective")


def rows(text):
    """Cells of every table row that names something of the package."""
    lines = [
        [c.strip() for c in line.strip()[1:-1].split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return [cells for cells in lines if REFERENCE.search(" ".join(cells))]


def load(path):
    """`losses.contrastive.theta` -> the object, or the class whose field it names."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["nbkit", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            fields = {**getattr(found, "model_fields", {}), **getattr(found, "__annotations__", {})}
            if name in fields:
                return found
            found = getattr(found, name)
        return found
    raise AssertionError(f"{path} is not in nbkit")


def equations(files):
    """{number: [functions]} of the docstrings that start with Eq. (number)."""
    found = {}
    for file in files:
        for node in ast.walk(ast.parse((ROOT / "nbkit" / "losses" / f"{file}.py").read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                start = re.match(r"Eq\. \((\d+)\)", ast.get_docstring(node) or "")
                if start:
                    found.setdefault(int(start[1]), []).append(f"losses.{file}.{node.name}")
    return found


ROWS = rows(PAGE)
REFERENCES = sorted({match for cells in ROWS for match in REFERENCE.findall(" ".join(cells))})


@pytest.mark.parametrize("path, parameter", REFERENCES)
def test_every_name_exists(path, parameter):
    found = load(path)
    if parameter:
        assert parameter in inspect.signature(found).parameters, (
            f"{path} has no parameter {parameter}"
        )


@pytest.mark.parametrize(
    "text, files, numbers",
    [(RECOGNITION, STCDA_FILES, range(1, 11)), (LOCALIZATION, ("adversarial",), range(1, 8))],
)
def test_every_published_equation_has_one_function_and_the_table_names_it(text, files, numbers):
    found = equations(files)
    assert sorted(found) == list(numbers)
    assert all(len(functions) == 1 for functions in found.values()), found
    table = {
        int(n): path
        for n, path in re.findall(r"^\| Eq\. \((\d+)\) \|.*\| `([\w.]+)` \|$", text, re.M)
    }
    assert table == {n: functions[0] for n, functions in found.items()}


def test_no_other_file_of_the_losses_claims_an_equation():
    files = {p.stem for p in (ROOT / "nbkit" / "losses").glob("*.py")} - {
        *STCDA_FILES,
        "adversarial",
        "__init__",
    }
    assert not equations(sorted(files))


@pytest.mark.parametrize("cells", [c for c in ROWS if len(c) == 5 and c[2]], ids=lambda c: c[0])
def test_every_shape_stands_in_a_docstring(cells):
    shape = cells[2].strip("`")
    squeezed = re.sub(r"\s", "", shape)
    for path, _ in REFERENCE.findall(cells[3]):
        text = inspect.getdoc(load(path)) or ""
        assert squeezed in re.sub(r"\s", "", text), f"{path}: {shape} is not in its docstring"


def test_rows_have_five_cells():
    """A bar inside a formula would break the table."""
    assert all(len(cells) in (3, 5) for cells in ROWS) and len(ROWS) > 50
