"""The page docs/ADDING_A_METHOD.md, followed to the letter.

Its class trains, and at weight 0 it is source only.
"""

from __future__ import annotations

import re
import sys
import textwrap

import pandas as pd
import pytest
import torch

import nbkit.methods
from nbkit.config import ROOT
from nbkit.methods import METHODS, Entry
from nbkit.train.recognition import run, trained_method

PAGE = (ROOT / "docs" / "ADDING_A_METHOD.md").read_text()


@pytest.fixture
def coral(tmp_path, monkeypatch):
    """The page's file beside the other methods, and its line in `METHODS`."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    (tmp_path / "coral.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(nbkit.methods, "__path__", [*nbkit.methods.__path__, str(tmp_path)])
    line = re.search(r'`("coral": Entry\(.*?\))`', PAGE).group(1)
    monkeypatch.setitem(METHODS, "coral", eval(f"{{{line}}}", {"Entry": Entry})["coral"])
    yield
    sys.modules.pop("nbkit.methods.coral", None)


def test_the_pages_method_trains_and_vanishes_at_weight_zero(smoke, coral):
    found = run(smoke(method="coral", epochs=(0, 1, 1)))
    own = found.history.set_index("stage")["coral"]
    assert own[3] > 0 and pd.isna(own[2])  # the loss enters in stage 3
    finished = []
    for name, how in (("source_only", {}), ("coral", {"trade_off": 0.0})):
        cfg = smoke(method=name, epochs=(0, 1, 1), dropout=0.3, **how)
        network = trained_method(cfg).method.model.state_dict()
        finished.append((network, pd.read_csv(run(cfg).folder / "predictions.csv")))
    (plain, read_plain), (zero, read_zero) = finished
    assert plain.keys() == zero.keys() and all(torch.equal(plain[k], zero[k]) for k in plain)
    assert read_plain.equals(read_zero)
