"""docs/ARCHITECTURE.md against the code: arrows point down, no circle, no public name twice."""

import ast
import subprocess
import sys
from collections import defaultdict

import pytest

from nbkit.config import ROOT

# From the bottom to the top; a module imports from its own room or from one further left.
ROOMS = [
    "errors",
    "files",
    "config",
    "losses",
    "evaluate",
    "demo",
    "data",
    "benchmarks",
    "models",
    "methods",
    "train",
    "explain",
    "tables",
    "figures",
    "cli",
]
# What two rooms may both call by the same name: the entry of a module that is used by its module's
# name (`write.VERSION`), or one meaning in two tasks (`run`).
SHARED = {"VERSION", "run"}


def modules():
    """{dotted name: syntax tree} of the package."""
    found = {}
    for path in sorted((ROOT / "nbkit").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imported(tree, everywhere):
    """Modules of ours that a tree imports; those of functions and of TYPE_CHECKING on request."""
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nbkit"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_arrows_point_down():
    for name, tree in MODULES.items():
        if not room(name):
            continue
        for other in imported(tree, everywhere=True):
            if room(other) in ("", room(name)):
                continue
            assert ROOMS.index(room(other)) < ROOMS.index(room(name)), f"{name} imports {other}"


def test_no_import_circle():
    graph = {name: set(imported(tree, everywhere=False)) - {name} for name, tree in MODULES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {' > '.join([*path[path.index(name) :], name])}"
        if name in done or name not in graph:
            return
        path.append(name)
        for other in sorted(graph[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_no_public_name_is_defined_twice():
    homes = defaultdict(list)
    for name, tree in MODULES.items():
        for node in tree.body:
            named = []
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                named = [node.name]
            elif isinstance(node, ast.Assign):
                named = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for each in named:
                if not each.startswith("_"):
                    homes[each].append(name)
    twice = {each: places for each, places in homes.items() if len(places) > 1}
    assert set(twice) <= SHARED, {k: v for k, v in twice.items() if k not in SHARED}


@pytest.mark.parametrize(
    "module", ["nbkit.tables.table", "nbkit.tables.cost", "nbkit.train.store", "nbkit.cli"]
)
def test_reading_a_table_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_room_and_every_test_that_the_page_names_exists():
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    for name in ROOMS:
        place = ROOT / "nbkit" / name
        assert place.is_dir() or place.with_suffix(".py").is_file()
        assert name in page
    for word in page.replace("`", " ").replace(",", " ").split():
        if word.startswith("test_") and word != "test_figures_*":
            assert (ROOT / "tests" / f"{word.removesuffix('.py')}.py").is_file(), word
