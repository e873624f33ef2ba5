"""The page docs/ADDING_A_METHOD.md, followed to the letter: its class trains, and at weight 0 it is
source only.
"""

import re

import pandas as pd
import torch

from nbkit.config import ROOT
from nbkit.methods import METHODS
from nbkit.train.loop import run, trained_method


def the_pages_class():
    text = (ROOT / "docs" / "ADDING_A_METHOD.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    names: dict = {}
    exec("\n".join(line.removeprefix("   ") for line in code.splitlines()), names)
    return names["Coral"]


def test_the_pages_method_trains_and_vanishes_at_weight_zero(smoke, monkeypatch):
    monkeypatch.setitem(METHODS, "coral", the_pages_class())
    found = run(smoke(method="coral", epochs=(0, 1, 1)))
    own = found.history.set_index("stage")["coral"]
    assert own[3] > 0 and pd.isna(own[2])  # the terms enter in stage 3
    finished = {}
    for name, how in (("source_only", {}), ("coral", {"trade_off": 0.0})):
        cfg = smoke(method=name, epochs=(0, 1, 1), dropout=0.3, **how)
        finished[name] = trained_method(cfg)[0].model.state_dict(), run(cfg).predictions
    (plain, read_plain), (zero, read_zero) = finished.values()
    assert plain.keys() == zero.keys() and all(torch.equal(plain[k], zero[k]) for k in plain)
    assert read_plain.equals(read_zero)
