"""Which stages runs share: a stage's key changes with every field that the stage reads, and with
no other.
"""

from typing import Literal, get_args, get_origin

import pytest
import torch

from nbkit.config import Section
from nbkit.config.recognition import RunConfig
from nbkit.methods import method_class
from nbkit.methods.base import Step
from nbkit.train.recognition import prepare, stage_key
from nbkit.train.steps import make_optimizer

ALWAYS = {"data", "model", "optim"}
# Sections beyond ALWAYS that stages 1, 2 and 3 read, by the fields that make the row.
ROWS = {
    "source only": ({"method": "source_only"}, (set(), set(), set())),
    "adabn": ({"method": "adabn"}, (set(), set(), set())),
    "target only": ({"method": "target_only"}, (set(), set(), set())),
    "mmd": ({"method": "mmd"}, (set(), set(), {"comparison"})),
    "mmd, no weight": ({"method": "mmd", "trade_off": 0.0}, (set(), set(), set())),
    "daaa": ({"method": "daaa"}, (set(), set(), {"comparison"})),
    "ta3n": ({"method": "ta3n"}, (set(), set(), {"comparison"})),
    "mm_sada": ({"method": "mm_sada"}, (set(), {"comparison"}, {"comparison"})),
    "stcl": ({"beta": 0.0}, ({"stcl"}, {"stcl"}, {"stcl"})),
    "vca": ({"alpha": 0.0}, (set(), set(), {"vca"})),
    "stcda": ({}, ({"stcl"}, {"stcl"}, {"stcl", "vca"})),
    "adversary": (
        {"alignment": "adversarial"},
        ({"stcl"}, {"stcl"}, {"stcl", "vca", "comparison"}),
    ),
}
# Other values that are valid for every row, where the type of the field does not give one.
OTHER = {
    "clips_at_once": 4,
    "benchmark": "ucf_olympic",
    "source": "beach",
    "target": "beach",
    "method": None,
    "weights": "random",
    "demo_shift": 0.5,
    "lr": (0.1, 0.2, 0.3),
    "epochs": (2, 3, 4),
    "lr_steps": (7,),
    "batch": 18,
    "crop": 16,
    "video_neg": "clip",
    "clips": 2,
    "profile": "demo",
    "data_root": "elsewhere",
    "runs_dir": "elsewhere",
    "device": "cpu",
}


def other_value(name, value, field):
    """A valid value of a field that differs from `value`."""
    if name in OTHER:
        return OTHER[name]
    if get_origin(field.annotation) is Literal:
        return next(choice for choice in get_args(field.annotation) if choice != value)
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2 + 0.15


def fields_of(cfg):
    """(section, flat name, another value) of every field."""
    for name, section in cfg.places().items():
        owner = getattr(cfg, section) if section else cfg
        value = getattr(owner, name)
        if name != "method" and not isinstance(value, Section):
            yield section, name, other_value(name, value, type(owner).model_fields[name])


def keys(cfg, data):
    method = method_class(cfg.method)(cfg, data)
    return {s: stage_key(method, s, "data") for s in (1, 2, 3) if not method.skips(s)}


@pytest.mark.parametrize("row", ROWS)
def test_every_field_changes_the_key_of_the_stages_that_read_it_and_of_no_other(tiny, row):
    given, sections = ROWS[row]
    cfg = tiny(epochs=(1, 1, 1), **given)
    data = prepare(cfg).domains.training
    before = keys(cfg, data)
    for section, name, value in fields_of(cfg):
        switches_a_term_off = name in ("alpha", "beta", "trade_off") and name in given
        if switches_a_term_off:
            continue
        after = keys(cfg.replace(**{name: value}), data)
        assert set(after) == set(before)
        changed = {stage for stage in before if before[stage] != after[stage]}
        read = {s for s in before if any(section in sections[e - 1] for e in before if e <= s)}
        if name == "aggregation" and row == "ta3n":  # its network has TRN whatever the field says
            read = set()
        elif section in ALWAYS or name == "threads" or (section == "" and name != "method"):
            read = set(before)
        assert changed == read, f"{name} of section {section!r}"


class Watched:
    """A configuration that records which of its sections are read."""

    def __init__(self, cfg):
        self.cfg, self.read = cfg, set()

    def __getattr__(self, name):
        value = getattr(self.cfg, name)
        if isinstance(value, Section):
            self.read.add(name)
        return value


@pytest.mark.parametrize("row", ROWS)
def test_a_stage_reads_no_section_that_its_key_does_not_hold(tiny, row):
    given, sections = ROWS[row]
    fabric, method, _ = prepare(tiny(epochs=(1, 1, 1), **given))
    declared = set()
    for stage in (1, 2, 3):
        if method.skips(stage):
            continue
        declared |= sections[stage - 1]
        plain, watched = method.cfg, Watched(method.cfg)
        replace_configuration(method, plain, watched)
        make_optimizer(method, stage)
        method.train()
        method.start_stage(stage)
        method.start_epoch(stage, 0)
        first, second = method.batches(stage, 0)[0]
        views = method.views(stage)
        source = method.data.train[method.labelled[0]].batch(first, **views)
        target = method.data.train["target"].batch(second, **views) if method.uses_target else None
        method(source, target, Step(stage, 0, 0.5, torch.Generator().manual_seed(0)))
        replace_configuration(method, watched, plain)
        looked = {"vca"} if row == "stcl" and stage == 3 else set()  # at beta, which is zero
        assert watched.read - {"watch"} <= ALWAYS | declared | looked, f"stage {stage}"


def replace_configuration(method, old, new):
    """Hand `new` to all modules of the method that hold `old`."""
    for module in method.modules():
        if getattr(module, "cfg", None) is old:
            module.cfg = new


def test_a_changed_class_shares_no_stage_with_its_older_version(tiny, monkeypatch):
    from nbkit import methods

    cfg = tiny(method="mmd")
    data = prepare(cfg).domains.training
    before = keys(cfg, data)
    newer = methods.METHODS["mmd"]._replace(version=2)
    monkeypatch.setitem(methods.METHODS, "mmd", newer)
    after = keys(cfg, data)
    assert before[2] == after[2]  # cross-entropy alone: not of this class
    assert before[3] != after[3]


def test_the_smoke_profile_is_what_the_rows_above_start_from():
    cfg = RunConfig.make(profile="smoke")
    assert cfg.stcl.alpha > 0 and cfg.vca.beta > 0 and cfg.comparison.trade_off > 0
