"""The page docs/ADDING_A_METHOD.md, followed to the letter: its class trains, and at weight 0 it is source only."""

import re

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
    assert {"ce", "coral"} <= set(found.history.columns) and (found.history["coral"] > 0).all()
    plain = trained_method(smoke(method="source_only", epochs=(0, 1, 1)))[0].model.state_dict()
    zero = trained_method(smoke(method="coral", epochs=(0, 1, 1), trade_off=0.0))[0].model.state_dict()
    source = [k for k in plain if "running" not in k]
    assert all(torch.equal(plain[k], zero[k]) for k in source)
