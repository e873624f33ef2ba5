"""What every comparison row does: it trains everywhere, vanishes at weight 0, reads no target label
and shares stages.
"""

import pathlib

import pytest
import torch
from method_steps import at, batches, built, same

import nbkit.data.features as frame_features
from nbkit.errors import NbkitError
from nbkit.methods import METHODS
from nbkit.methods.adapting import Adapting, own_random_numbers
from nbkit.train.loop import prepare, run, train, trained_method
from nbkit.train.stages import stage_key

ROWS = sorted(name for name, cls in METHODS.items() if issubclass(cls, Adapting))
ADDS_LOSSES = [name for name in ROWS if name != "ta3n"]  # TA3N also changes the aggregation


def test_the_rows_are_there():
    assert ROWS == ["daaa", "mcd", "mm_sada", "mmd", "sava", "ta3n", "tcon"]


# --- every row trains
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_every_row_trains_and_tests(tiny, name):
    found = run(tiny(method=name))
    last = found.history.iloc[-1]
    own = set(found.history.columns) - {"stage", "epoch", "ce", "seconds"}
    assert (
        own and last[sorted(own)].notna().all() and 0 <= found.metrics["accuracy"]["fused"] <= 100
    )
    assert set(found.metrics["accuracy"]) == {"rgb", "flow", "fused"}


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
    """One step: every term is finite, and each parameter of the method's own heads gets a finite
    gradient.
    """
    method = built(tiny(method=name, **fields)).train()
    terms = method(*batches(method), at())
    torch.stack(list(terms.values())).sum().backward()
    assert len(terms) > 1 and all(torch.isfinite(t) for t in terms.values())
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all() for p in method.heads.parameters()
    )


@pytest.mark.parametrize("name", ["mmd", "sava", "tcon"])
def test_one_clip_a_video_is_enough_for_most(tiny, name):
    method = built(tiny(method=name, clips=1)).train()
    assert all(torch.isfinite(t) for t in method(*batches(method), at()).values())


def test_ta3n_says_that_it_needs_two_clips(tiny):
    with pytest.raises(NbkitError, match="METHOD='ta3n'"):
        prepare(tiny(method="ta3n", clips=1))


class Projection:
    """A stand-in for the frozen network, so that this test decodes little: features are fixed
    functions of the means.
    """

    key, out_features = "projection", 1280

    def frame_features(self, x):
        return torch.sin(x.mean((2, 3)) @ torch.linspace(-9, 9, 3 * 1280).view(3, 1280))


def test_every_row_on_frozen_frame_features(tiny, monkeypatch):
    monkeypatch.setattr(frame_features, "_backbone", lambda name: Projection())
    for name in ROWS:
        method = built(tiny(method=name, backbone="mobilenet_features", dropout=0.3)).train()
        assert all(torch.isfinite(t) for t in method(*batches(method), at()).values())


# --- weight 0
# -----------------------------------------------------------------------------------------------------------


def test_weight_zero_is_source_only_bit_for_bit(tiny):
    plain = trained_method(tiny(method="source_only"))[0]
    for name in ADDS_LOSSES:
        zero = trained_method(tiny(method=name, trade_off=0.0))[
            0
        ]  # in a run folder of its own: trained, not loaded
        assert same(plain.model.state_dict(), zero.model.state_dict()) and not list(
            zero.heads.parameters()
        )


def test_ta3n_of_weight_zero_is_source_only_with_its_aggregation(tiny):
    plain = trained_method(tiny(method="source_only", aggregation="trn"))[0]
    zero = trained_method(tiny(method="ta3n", trade_off=0.0))[0]
    assert same(plain.model.state_dict(), zero.model.state_dict())


@pytest.mark.parametrize("name", ADDS_LOSSES)
def test_not_by_a_short_cut(tiny, name):
    """The whole adapting path, heads and target pass included, times 0: the network's gradients are
    source only's.
    """
    plain, row = built(tiny(method="source_only")).train(), built(tiny(method=name)).train()
    plain(*batches(plain), at())["ce"].backward()
    source, target = batches(row)
    out_s = row.outputs(source, "source")
    own = row.own_terms(source, out_s, target, at())
    (
        row.supervised(out_s, source["label"]) + 0.0 * torch.stack(list(own.values())).sum()
    ).backward()
    pairs = list(zip(plain.model.parameters(), row.model.parameters(), strict=True))
    assert any(p.grad is not None for p, _ in pairs)
    assert all(
        q.grad is None or not q.grad.any() if p.grad is None else p.grad.equal(q.grad)
        for p, q in pairs
    )


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


# --- no leak, shared stages
# ---------------------------------------------------------------------------------------------


def test_target_training_labels_are_withheld_and_unused(tiny):
    for name in ROWS:
        method = built(tiny(method=name)).train()
        assert (method.domains.train["target"].labels == -1).all()
        source, target = batches(method)
        poisoned = {**target, "label": torch.arange(8)}
        assert all(
            a.equal(b)
            for a, b in zip(
                method(source, target, at()).values(), method(source, poisoned, at()).values()
            )
        )


def test_stages_that_rows_share(tiny):
    def keys(**fields):
        return {s: stage_key(built(tiny(**fields)), s) for s in (2, 3)}

    plain = keys(method="source_only")
    for name in ("mmd", "daaa", "tcon", "sava"):
        assert keys(method=name)[2] == plain[2] and keys(method=name)[3] != plain[3]
        assert keys(method=name, trade_off=0.0) == plain
    assert (
        keys(method="mcd")[2] != plain[2]
        and keys(method="mm_sada")[2] != plain[2] != keys(method="ta3n")[2]
    )
    assert (
        keys(method="mm_sada", modalities="rgb")[2]
        == keys(method="source_only", modalities="rgb")[2]
    )
    assert (
        keys(method="ta3n", aggregation="trn")[2]
        == keys(method="source_only", aggregation="trn")[2]
    )
    assert len({keys(method=name)[3] for name in ROWS}) == len(ROWS)
    assert keys(method="daaa")[3] != keys(method="daaa", grl_max=0.5)[3]
    assert keys(method="mmd")[3] == keys(method="mmd", grl_max=0.5)[3]  # a field it does not read


def test_a_row_goes_on_from_a_stage_that_another_began(tiny, tmp_path, monkeypatch):
    """A source-only run is killed in stage 2; DAAA, whose heads the checkpoint lacks, finishes the
    shared stage.
    """
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
    assert same(
        expected,
        trained_method(tiny(method="daaa", runs_dir=str(tmp_path), **more))[0].state_dict(),
    )


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
        ends.append(trained_method(tiny(method="sava", runs_dir=place))[0].state_dict())
    assert same(*ends)
    place = str(tmp_path / "trn")
    trained_method(tiny(method="ta3n", aggregation="trn", runs_dir=place))
    trained_method(
        tiny(method="tcon", aggregation="trn", runs_dir=place)
    )  # heads of other sizes under the same names
