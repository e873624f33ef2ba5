"""The comparison rows: they train everywhere, vanish at weight 0, share stages, and do what their names say."""

import math
import pathlib

import numpy as np
import pytest
import torch

import nbkit.data.features as frame_features
from nbkit.data.domains import get_batch, load_domains
from nbkit.errors import NbkitError
from nbkit.methods import METHODS
from nbkit.methods.adapting import Adapting, adversary, own_random_numbers
from nbkit.methods.base import Step
from nbkit.methods.stcda import STCL_FIELDS, VCA_FIELDS
from nbkit.models.clip_heads import DomainClassifier
from nbkit.train.loop import prepare, run, train, trained_method
from nbkit.train.stages import stage_key

ROWS = sorted(name for name, cls in METHODS.items() if issubclass(cls, Adapting))
ADDS_LOSSES = [name for name in ROWS if name != "ta3n"]  # TA3N also changes the aggregation
SHORT = {"epochs": (0, 1, 1), "demo_train": 2, "demo_test": 2}


@pytest.fixture
def tiny(smoke, monkeypatch):
    """`tiny(**fields)`: a configuration of two short stages; the data of equal ones is loaded once for all tests."""
    def load(cfg, labelled=("source",)):
        key = (cfg.data_root, cfg.backbone, cfg.clips, labelled)
        if key not in LOADED:
            LOADED[key] = load_domains(cfg, labelled)
        return LOADED[key]
    monkeypatch.setattr("nbkit.train.loop.load_domains", load)
    return lambda **fields: smoke(**{**SHORT, **fields})


LOADED: dict = {}


def built(cfg):
    return prepare(cfg)[1]


def batches(method, n=8):
    cfg = method.cfg
    return [get_batch(method.domains.train[d], np.arange(n), cfg, torch.device("cpu"), False) for d in ("source", "target")]


def at(stage=3, progress=0.5):
    return Step(stage, 0, progress, torch.Generator().manual_seed(0))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_rows_are_there():
    assert ROWS == ["daaa", "mcd", "mm_sada", "mmd", "sava", "ta3n", "tcon"]


# --- every row trains -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains_and_tests(tiny, name):
    found = run(tiny(method=name))
    last = found.history.iloc[-1]
    own = set(found.history.columns) - {"stage", "epoch", "ce", "seconds"}
    assert own and last[sorted(own)].notna().all() and 0 <= found.metrics["accuracy"]["fused"] <= 100
    assert set(found.metrics["accuracy"]) == {"rgb", "flow", "fused"}


@pytest.mark.parametrize("fields", [{"modalities": "rgb", "clips": 2, "bn_mode": "shared"},
                                    {"modalities": "flow", "aggregation": "mean", "clips": 4, "cls_on": "clip"}], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_every_row_on_other_streams_and_clips(tiny, name, fields):
    """One step: every term is finite, and each parameter that the stage's optimizer holds gets a gradient or is unused."""
    method = built(tiny(method=name, **fields)).train()
    terms = method(*batches(method), at())
    torch.stack(list(terms.values())).sum().backward()
    assert len(terms) > 1 and all(torch.isfinite(t) for t in terms.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.heads.parameters())


@pytest.mark.parametrize("name", ["mmd", "sava", "tcon"])
def test_one_clip_a_video_is_enough_for_most(tiny, name):
    method = built(tiny(method=name, clips=1)).train()
    assert all(torch.isfinite(t) for t in method(*batches(method), at()).values())


def test_ta3n_says_that_it_needs_two_clips(tiny):
    with pytest.raises(NbkitError, match="METHOD='ta3n'"):
        prepare(tiny(method="ta3n", clips=1))


class Projection:
    """A stand-in for the frozen network, so that this test decodes little: features are fixed functions of the means."""

    key, out_features = "projection", 1280

    def frame_features(self, x):
        return torch.sin(x.mean((2, 3)) @ torch.linspace(-9, 9, 3 * 1280).view(3, 1280))


def test_every_row_on_frozen_frame_features(tiny, monkeypatch):
    monkeypatch.setattr(frame_features, "_backbone", lambda name: Projection())
    for name in ROWS:
        method = built(tiny(method=name, backbone="mobilenet_features", dropout=0.3)).train()
        assert all(torch.isfinite(t) for t in method(*batches(method), at()).values())


# --- weight 0 -----------------------------------------------------------------------------------------------------------

def test_weight_zero_is_source_only_bit_for_bit(tiny):
    plain = trained_method(tiny(method="source_only"))[0]
    for name in ADDS_LOSSES:
        zero = trained_method(tiny(method=name, trade_off=0.0))[0]  # in a run folder of its own: trained, not loaded
        assert same(plain.model.state_dict(), zero.model.state_dict()) and not list(zero.heads.parameters())


def test_ta3n_of_weight_zero_is_source_only_with_its_aggregation(tiny):
    plain = trained_method(tiny(method="source_only", aggregation="trn"))[0]
    zero = trained_method(tiny(method="ta3n", trade_off=0.0))[0]
    assert same(plain.model.state_dict(), zero.model.state_dict())


@pytest.mark.parametrize("name", ADDS_LOSSES)
def test_not_by_a_short_cut(tiny, name):
    """The whole adapting path, heads and target pass included, times 0: the network's gradients are source only's."""
    plain, row = built(tiny(method="source_only")).train(), built(tiny(method=name)).train()
    plain(*batches(plain), at())["ce"].backward()
    source, target = batches(row)
    out_s = row.outputs(source, "source")
    own = row.own_terms(source, out_s, target, at())
    (row.supervised(out_s, source["label"]) + 0.0 * torch.stack(list(own.values())).sum()).backward()
    pairs = list(zip(plain.model.parameters(), row.model.parameters(), strict=True))
    assert any(p.grad is not None for p, _ in pairs)
    assert all(q.grad is None or not q.grad.any() if p.grad is None else p.grad.equal(q.grad) for p, q in pairs)


def test_extra_modules_leave_the_networks_random_numbers_alone(tiny):
    plain = built(tiny(method="source_only")).model.state_dict()
    for name in ADDS_LOSSES:
        assert same(plain, built(tiny(method=name)).model.state_dict())
    assert same(built(tiny(method="sava")).state_dict(), built(tiny(method="sava")).state_dict())


def test_own_random_numbers_are_of_the_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with own_random_numbers(5):
        inside = torch.rand(2)
    assert torch.rand(2).equal(expected)
    torch.manual_seed(99)
    with own_random_numbers(5):
        assert torch.rand(2).equal(inside)


# --- no leak, shared stages ---------------------------------------------------------------------------------------------

def test_target_training_labels_are_withheld_and_unused(tiny):
    for name in ROWS:
        method = built(tiny(method=name)).train()
        assert (method.domains.train["target"].labels == -1).all()
        source, target = batches(method)
        poisoned = {**target, "label": torch.arange(8)}
        assert all(a.equal(b) for a, b in zip(method(source, target, at()).values(), method(source, poisoned, at()).values()))


def test_stages_that_rows_share(tiny):
    def keys(**fields):
        return {s: stage_key(built(tiny(**fields)), s) for s in (2, 3)}
    plain = keys(method="source_only")
    for name in ("mmd", "daaa", "tcon", "sava"):
        assert keys(method=name)[2] == plain[2] and keys(method=name)[3] != plain[3]
        assert keys(method=name, trade_off=0.0) == plain
    assert keys(method="mcd")[2] != plain[2] and keys(method="mm_sada")[2] != plain[2] != keys(method="ta3n")[2]
    assert keys(method="mm_sada", modalities="rgb")[2] == keys(method="source_only", modalities="rgb")[2]
    assert keys(method="ta3n", aggregation="trn")[2] == keys(method="source_only", aggregation="trn")[2]
    assert len({keys(method=name)[3] for name in ROWS}) == len(ROWS)
    assert keys(method="daaa")[3] != keys(method="daaa", grl_max=0.5)[3]
    assert keys(method="mmd")[3] == keys(method="mmd", grl_max=0.5)[3]  # a field it does not read


def test_a_row_goes_on_from_a_stage_that_another_began(tiny, tmp_path, monkeypatch):
    """A source-only run is killed in stage 2; DAAA, whose heads the checkpoint lacks, finishes the shared stage."""
    import nbkit.train.stages as stages
    more = {"epochs": (0, 2, 1)}
    expected = trained_method(tiny(method="daaa", **more))[0].state_dict()
    save = stages.save_checkpoint

    def dies(*args):
        save(*args)
        raise KeyboardInterrupt
    monkeypatch.setattr(stages, "save_checkpoint", dies)
    with pytest.raises(KeyboardInterrupt):
        train(*prepare(tiny(method="source_only", runs_dir=str(tmp_path), **more)))
    monkeypatch.setattr(stages, "save_checkpoint", save)
    assert same(expected, trained_method(tiny(method="daaa", runs_dir=str(tmp_path), **more))[0].state_dict())


# --- each row's own -------------------------------------------------------------------------------------------------------

def test_adversary_pulls_features_one_way_and_the_classifier_the_other():
    torch.manual_seed(0)
    classify, s, t = DomainClassifier(3), torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    adversary(classify, s, t, 1.0).backward()
    reversed_, learned = s.grad.clone(), [p.grad.clone() for p in classify.parameters()]
    s.grad = None
    classify.zero_grad()
    adversary(classify, s, t, -1.0).backward()  # no reversal: the plain gradient
    assert s.grad.allclose(-reversed_) and all(p.grad.allclose(g) for p, g in zip(classify.parameters(), learned))


def test_reversal_follows_danns_ramp(tiny):
    method = built(tiny(method="daaa", grl_max=0.7))
    assert [method.reversal(at(progress=p)) for p in (0.0, 0.5)] == pytest.approx([0, 0.7 * math.tanh(2.5)])


def test_mcd_features_lower_the_discrepancy_that_the_classifiers_raise(tiny):
    method = built(tiny(method="mcd", modalities="rgb")).train()
    second, stream = method.heads["second"]["rgb"], method.model.streams["rgb"]
    _, target = batches(method)
    disc = method.discrepancy("rgb", method.outputs(target, "target")["rgb"])
    (-disc).backward()
    with torch.no_grad():
        for p in (second.weight, stream.classifier.weight):
            p -= 0.01 * p.grad
        assert method.discrepancy("rgb", method.outputs(target, "target")["rgb"]) > disc
        for p in (second.weight, stream.classifier.weight):
            p += 0.01 * p.grad
        stream.project.weight -= 0.01 * stream.project.weight.grad
        assert method.discrepancy("rgb", method.outputs(target, "target")["rgb"]) < disc
    assert [set(method(*batches(method), at(s))) for s in (2, 3)] == [{"ce", "ce_2"}, {"ce", "ce_2", "discrepancy"}]


def test_ta3n_attends_in_stage_3_and_when_tested_only(tiny):
    method = built(tiny(method="ta3n", modalities="rgb"))
    aggregate, seen = method.model.streams["rgb"].aggregate, []
    aggregate.register_forward_hook(lambda module, *_: seen.append(module.attention is not None))
    method(*batches(method), at(2))
    method(*batches(method), at(3))
    method.outputs(batches(method)[1], "target")
    assert seen == [False, True, True, True]  # stage 2: source only; stage 3: both domains; test
    out = method.outputs(batches(method)[1], "target")["rgb"]
    R = aggregate.relations(out.v)
    w = method.heads["relation"]["rgb"](R)
    assert w.shape == (8, 2) and out.V.allclose(((1 + w)[..., None] * R).sum(1))
    assert method.model.state_dict().keys() == built(tiny(method="source_only", modalities="rgb", aggregation="trn")
                                                     ).model.state_dict().keys()


class Sharp(torch.nn.Module):
    """Large self-attention for every clip."""

    def forward(self, v):
        return torch.full(v.shape[:2], 3.0)


def test_tcon_aligns_what_is_only_late(tiny):
    """Target clips that are the source's in another order leave the sharp co-attention nothing to tell apart."""
    method = built(tiny(method="tcon", modalities="rgb"))
    v = 4 * torch.eye(3, 16).expand(8, 3, 16)
    method.heads["attention"]["rgb"] = Sharp()
    terms = [method.aligned("rgb", v, other, 0.0) for other in (v, v.roll(1, dims=1), -v)]
    assert terms[1].item() == pytest.approx(terms[0].item(), abs=1e-4) and abs(terms[2] - terms[0]) > 1e-3
    assert method.aligned("rgb", v, v[:7], 0.0).item() == pytest.approx(terms[0].item(), abs=1e-6)


def test_mm_sada_terms_by_stage_and_stream(tiny):
    two, one = built(tiny(method="mm_sada")), built(tiny(method="mm_sada", modalities="flow"))
    assert [set(two(*batches(two), at(s))) for s in (2, 3)] == [{"ce", "correspondence"}, {"ce", "correspondence", "domain"}]
    assert [set(one(*batches(one), at(s))) for s in (2, 3)] == [{"ce"}, {"ce", "domain"}]


# --- STCDA with an adversary in place of VCA ------------------------------------------------------------------------------

def test_stcda_adversarial_trains_without_pseudo_labels(tiny):
    found = run(tiny(alignment="adversarial", alpha=0.0))
    assert {"ce", "domain"} <= set(found.history.columns) and not {"vca", "pseudo_changed"} & set(found.history.columns)
    method = built(tiny(alignment="adversarial", alpha=0.0))
    undecided = method(*batches(method), at(progress=0.0))["domain"].item()
    assert undecided == pytest.approx(method.cfg.beta * 4 * math.log(2), rel=0.1)  # two streams, two levels


def test_stcda_stages_keep_their_names_and_the_option_has_its_own(tiny):
    default = built(tiny())
    assert {"labelled", *STCL_FIELDS, *VCA_FIELDS} <= set(default.signature(3))
    assert not {"alignment", "grl_max", "trade_off"} & set(default.signature(3))
    option = built(tiny(alignment="adversarial"))
    assert stage_key(option, 2) == stage_key(default, 2) and stage_key(option, 3) != stage_key(default, 3)
    off = built(tiny(alignment="adversarial", beta=0.0))
    assert stage_key(off, 3) == stage_key(built(tiny(beta=0.0)), 3) and off.discriminators is None
    assert same(default.model.state_dict(), option.model.state_dict())


def test_rows_leave_their_runs_where_they_belong(tiny):
    cfg = tiny(method="mmd")
    folder = run(cfg).folder
    assert folder.parent == pathlib.Path(cfg.runs_dir) and "-mmd-s0-" in folder.name
