"""What importing a room costs: a loss and a method stay quick, and lead to few files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nbkit.config import ROOT
from nbkit.methods import METHODS

LOSSES = sorted(
    f"nbkit.losses.{path.stem}"
    for path in (ROOT / "nbkit" / "losses").glob("*.py")
    if path.stem != "__init__"
)
METHOD_MODULES = sorted({entry.path.rpartition(".")[0] for entry in METHODS.values()})


def loaded_by(statement: str) -> list[str]:
    """All modules that a fresh interpreter has after the statement."""
    code = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def ours(modules: list[str]) -> list[str]:
    return [name for name in modules if name.split(".")[0] == "nbkit"]


@pytest.mark.parametrize("module", LOSSES)
def test_a_loss_loads_at_most_five_modules_of_ours(module):
    found = ours(loaded_by(f"import {module}"))
    assert len(found) <= 5, found


@pytest.mark.parametrize("module", METHOD_MODULES)
def test_a_method_loads_at_most_twenty_two_modules_of_ours(module):
    found = ours(loaded_by(f"import {module}"))
    assert len(found) <= 22, found


def test_the_registry_of_methods_loads_no_torch():
    assert "torch" not in loaded_by("import nbkit.methods")
