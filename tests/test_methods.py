"""What every comparison row does.

It trains everywhere, vanishes at weight 0, reads no target label and shares stages.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch
from method_steps import at, batches, built, same, terms_of

import nbkit.train.recognition as recognition
from nbkit.errors import NbkitError
from nbkit.methods import METHODS, method_class
from nbkit.methods.base import Adapting, own_random_numbers
from nbkit.train.domains import load_domains
from nbkit.train.recognition import prepare, run, stage_key, train, trained_method

ROWS = sorted(name for name in METHODS if issubclass(method_class(name), Adapting))
ADDS_LOSSES = [name for name in ROWS if name != "ta3n"]  # TA3N also changes the aggregation


def state_of(cfg):
    return trained_method(cfg).method.state_dict()


def network_of(cfg):
    return trained_method(cfg).method.model.state_dict()


def test_the_rows_are_there():
    assert set(ROWS) >= {"daaa", "mcd", "mm_sada", "mmd", "sava", "ta3n", "tcon"}


def test_an_unknown_method_is_named():
    with pytest.raises(NbkitError, match="METHOD='dann' is not one of .*source_only"):
        method_class("dann")


# --- every row trains ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains_and_tests(tiny, name):
    found = run(tiny(method=name))
    last = found.history.iloc[-1]
    own = sorted(set(found.history.columns) - {"stage", "epoch", "ce", "seconds"})
    assert own and last[own].notna().all()
    assert set(found.metrics["accuracy"]) == {"rgb", "flow", "fused"}
    assert 0 <= found.metrics["accuracy"]["fused"] <= 100


@pytest.mark.parametrize(
    "fields",
    [
        {"modalities": "rgb", "clips": 2, "bn_mode": "shared"},
        {"modalities": "flow", "aggregation": "mean", "clips": 4, "cls_on": "clip"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ROWS)
def test_every_row_on_other_streams_and_clips(tiny, name, fields):
    """Every term is finite, and each parameter of the method's own heads gets a finite gradient."""
    method = built(tiny(method=name, **fields)).train()
    loss, terms = method(*batches(method), at())
    loss.backward()
    assert len(terms) > 1 and all(torch.isfinite(term) for term in terms.values())
    for parameter in method.heads.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", ["mmd", "sava", "tcon"])
def test_one_clip_per_video_is_enough_for_most(tiny, name):
    method = built(tiny(method=name, clips=1)).train()
    assert all(torch.isfinite(term) for term in terms_of(method).values())


def test_ta3n_says_that_it_needs_two_clips(tiny):
    with pytest.raises(NbkitError, match="METHOD='ta3n'"):
        prepare(tiny(method="ta3n", clips=1))


class Projection:
    """Stands in for the frozen network: features are fixed functions of the pictures' means."""

    key, out_features = "projection", 1280

    def frame_features(self, x):
        return torch.sin(x.mean((2, 3)) @ torch.linspace(-9, 9, 3 * 1280).view(3, 1280))


def test_every_row_on_frozen_frame_features(tiny, monkeypatch):
    monkeypatch.setattr("nbkit.models.mobilenet.FrozenMobileNet", Projection)
    for name in ROWS:
        method = built(tiny(method=name, backbone="mobilenet_features", dropout=0.3)).train()
        assert all(torch.isfinite(term) for term in terms_of(method).values())


class ClipProjection:
    """The same for the frozen video network."""

    out_features = 1024

    def __init__(self, channels, weights, device):
        self.key, self.weights = f"projection-{channels}", torch.linspace(-9, 9, channels * 1024)

    def clip_features(self, x):
        return torch.sin(x.mean((2, 3, 4)) @ self.weights.view(-1, 1024))


def test_every_row_on_frozen_clip_features(tiny, monkeypatch):
    monkeypatch.setattr("nbkit.models.i3d.FrozenI3D", ClipProjection)
    for name in ROWS:
        method = built(tiny(method=name, backbone="i3d_features", dropout=0.3)).train()
        assert all(torch.isfinite(term) for term in terms_of(method).values())
    alone = {"backbone": "i3d_features", "modalities": "rgb"}
    done = run(tiny(method="stcda", alpha=0.1, **alone))
    assert np.isfinite(done.history["contrast"].dropna()).all()
    assert set(done.metrics["accuracy"]) == {"rgb", "fused"}
    for wrong in ({"weights": "random"}, {"flow": "precomputed"}):
        with pytest.raises(NbkitError, match="with backbone i3d_features"):
            load_domains(tiny(method="source_only", **alone, **wrong))


# --- weight 0 ------------------------------------------------------------------------------------
def test_weight_zero_is_source_only_bit_for_bit(tiny):
    plain = network_of(tiny(method="source_only"))
    for name in ADDS_LOSSES:
        # In a run folder of its own: trained, not loaded.
        zero = trained_method(tiny(method=name, trade_off=0.0)).method
        assert same(plain, zero.model.state_dict())
        assert not list(zero.heads.parameters())


def test_ta3n_of_weight_zero_is_source_only_with_its_aggregation(tiny):
    plain = network_of(tiny(method="source_only", aggregation="trn"))
    assert same(plain, network_of(tiny(method="ta3n", trade_off=0.0)))


@pytest.mark.parametrize("name", ADDS_LOSSES)
def test_not_by_a_short_cut(tiny, name):
    """The whole adapting path, heads and target pass included, times 0, is source only's step."""
    plain, row = built(tiny(method="source_only")).train(), built(tiny(method=name)).train()
    plain(*batches(plain), at())[0].backward()
    source, target = batches(row)
    out_s = row.outputs(source, "source")
    own, _ = row.own_loss(source, out_s, target, at())
    (row.supervised(out_s, source["label"]) + 0.0 * own).backward()
    pairs = list(zip(plain.model.parameters(), row.model.parameters(), strict=True))
    assert any(p.grad is not None for p, _ in pairs)
    for p, q in pairs:
        if p.grad is None:
            assert q.grad is None or not q.grad.any()
        else:
            assert p.grad.equal(q.grad)


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


# --- no leak, shared stages ----------------------------------------------------------------------
def test_target_training_labels_are_withheld_and_unused(tiny):
    for name in ROWS:
        method = built(tiny(method=name)).train()
        assert (method.data.train["target"].labels == -1).all()
        source, target = batches(method)
        poisoned = {**target, "label": torch.arange(8)}
        clean = method(source, target, at())
        other = method(source, poisoned, at())
        assert clean[0].equal(other[0]) and same(clean[1], other[1])


def test_a_method_holds_no_test_video(tiny):
    prepared = prepare(tiny(method="stcda"))
    assert set(prepared.method.data._fields) == {"classes", "train", "plain"}
    test = set(prepared.domains.test["target"].videos)
    for part in (prepared.method.data.train, prepared.method.data.plain):
        for dataset in part.values():
            assert test.isdisjoint(dataset.videos)


def keys_of(cfg):
    """Keys of stages 2 and 3."""
    method = built(cfg)
    return stage_key(method, 2, "data"), stage_key(method, 3, "data")


def test_stages_that_rows_share(tiny):
    plain = keys_of(tiny(method="source_only"))
    for name in ("mmd", "daaa", "tcon", "sava"):
        second, third = keys_of(tiny(method=name))
        assert second == plain[0] and third != plain[1]
        assert keys_of(tiny(method=name, trade_off=0.0)) == plain
    for name in ("mcd", "mm_sada", "ta3n"):
        assert keys_of(tiny(method=name))[0] != plain[0]
    for name, fields in (("mm_sada", {"modalities": "rgb"}), ("ta3n", {"aggregation": "trn"})):
        alone = keys_of(tiny(method="source_only", **fields))
        assert keys_of(tiny(method=name, **fields))[0] == alone[0]
    assert len({keys_of(tiny(method=name))[1] for name in ROWS}) == len(ROWS)
    assert keys_of(tiny(method="daaa"))[1] != keys_of(tiny(method="daaa", grl_max=0.5))[1]
    assert keys_of(tiny(method="adabn")) == plain
    for name in ("target_only", "source_target"):
        assert not set(keys_of(tiny(method=name))) & set(plain)


def test_a_row_goes_on_from_a_stage_that_another_began(tiny, tmp_path, monkeypatch):
    """A source-only run is killed in stage 2; DAAA, whose heads it lacks, finishes the stage."""
    more = {"epochs": (0, 2, 1)}
    expected = state_of(tiny(method="daaa", **more))
    save = recognition.save_stage

    def dies(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(recognition, "save_stage", dies)
    with pytest.raises(KeyboardInterrupt):
        train(prepare(tiny(method="source_only", runs_dir=str(tmp_path), **more)))
    monkeypatch.setattr(recognition, "save_stage", save)
    assert same(expected, state_of(tiny(method="daaa", runs_dir=str(tmp_path), **more)))


def test_rows_leave_their_runs_where_they_belong(tiny):
    cfg = tiny(method="mmd")
    folder = run(cfg).folder
    assert folder.parent == pathlib.Path(cfg.watch.runs_dir) and "-mmd-s0-" in folder.name


def test_a_stage_hands_no_rows_modules_to_another(tiny, tmp_path):
    """DAAA, SAVA and source only share stage 2; whoever trained it, SAVA comes out the same."""
    ends = []
    for first in ("source_only", "daaa"):
        place = str(tmp_path / first)
        trained_method(tiny(method=first, runs_dir=place))
        ends.append(state_of(tiny(method="sava", runs_dir=place)))
    assert same(*ends)
    place = str(tmp_path / "trn")
    trained_method(tiny(method="ta3n", aggregation="trn", runs_dir=place))
    # Heads of other sizes under the same names.
    trained_method(tiny(method="tcon", aggregation="trn", runs_dir=place))
