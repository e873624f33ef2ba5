"""The walk from the notebook to the losses stays short, and the tool that shows it works."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from nbkit.methods import METHODS

TOOL = Path(__file__).parents[1] / "tools" / "trace.py"
# At most: files on the way, calls to the loss that lies deepest.
SHORT = {"stcda": (8, 6), "daaa": (7, 6)}


@pytest.fixture(scope="module")
def tool():
    # By path, because the standard library has a module of the same name.
    spec = importlib.util.spec_from_file_location("trace_of_a_step", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("method", SHORT)
def test_the_way_from_the_notebook_to_the_losses_is_short(tool, smoke, method):
    cfg = smoke(method=method, device="cpu", epochs=(0, 0, 1), demo_train=2, demo_test=2)
    tracer = tool.trace(cfg)
    files, calls = SHORT[method]
    assert len(tracer.on_the_way()) <= files and tracer.depth() <= calls
    walk = [code.co_qualname for code in tracer.walks["cross_entropy"]]
    assert walk[0] == "run" and walk[-1] == "cross_entropy"
    names = [Path(file).name for file in tracer.files]
    assert (
        f"{METHODS[method].path.split('.')[-2]}.py" in names
        and "two_stream.py" in names
        and "clips.py" in names
    )
    assert tool.report(method, tracer).startswith(f"{method}: ")
