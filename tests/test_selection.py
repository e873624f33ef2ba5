"""Diagnostic evaluations during training: they change nothing, choose as they say, and never speak
for another row.
"""

import json

import pytest
import torch

import nbkit.train.recognition as recognition
from nbkit.errors import NbkitError
from nbkit.train.recognition import prepare, run, stage_key, train
from nbkit.train.selection import own_history, selected
from nbkit.train.store import find_run

FAST = {"epochs": (0, 1, 3), "alpha": 0.0}


def everything(method):
    return {**method.state_dict(), "rng": torch.get_rng_state()}


@pytest.fixture(scope="module")
def pair(smoke):
    """The same run without and with an evaluation after every epoch (dropout on: it would betray a
    used random state).
    """
    found = []
    for every in (0, 1):
        cfg = smoke(**FAST, dropout=0.3, eval_every=every)
        prepared = prepare(cfg)
        history = train(prepared)
        found.append((cfg, prepared.method, history, everything(prepared.method)))
    return found


def test_evaluating_every_epoch_changes_no_bit(pair):
    (_, plain, _, a), (_, watched, history, b) = pair
    assert stage_key(plain, 3, "data") == stage_key(watched, 3, "data")
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert [("val_fused" in r, r["stage"]) for r in history] == [
        (False, 2),
        (True, 3),
        (True, 3),
        (True, 3),
    ]


def test_the_last_record_is_the_result_and_the_choices_are_maxima(pair):
    cfg, method, history, _ = pair[1]
    metrics = run(cfg).metrics
    rows = {r["epoch"]: r for r in history if r["stage"] == 3}
    assert all(rows[3][f"test_{m}"] == a for m, a in metrics["accuracy"].items())
    oracle, source = metrics["selected"]["oracle"], metrics["selected"]["source_val"]
    assert oracle["accuracy"]["fused"] == max(r["test_fused"] for r in rows.values())
    best = max(r["val_fused"] for r in rows.values())
    assert source["epoch"] == max(e for e, r in rows.items() if r["val_fused"] == best)
    assert source["accuracy"] == {
        m: rows[source["epoch"]][f"test_{m}"] for m in ("rgb", "flow", "fused")
    }
    assert "val_fused" in run(cfg).history


def test_a_run_that_did_not_ask_says_nothing_and_is_found_by_one_that_did(pair):
    cfg = pair[0][0]
    assert "selected" not in run(cfg).metrics and "evaluated" not in run(cfg).history
    asking = cfg.replace(eval_every=1)
    assert find_run(asking) is not None  # the same numbers: not trained again
    prepared = prepare(asking)
    assert selected(prepared.method, train(prepared)) is None  # its stages were trained without


def test_rows_that_share_a_stage_do_not_take_each_others_record(smoke):
    cfg = smoke(method="source_only", epochs=(0, 1, 1), eval_every=1)
    assert run(cfg).metrics["selected"] is not None
    other = run(cfg.replace(method="adabn"))
    assert other.metrics["selected"] is None and "val_fused" not in other.history
    assert json.loads((other.folder / "metrics.json").read_text())["selected"] is None


def test_target_only_has_no_source_choice(smoke):
    found = run(smoke(method="target_only", epochs=(0, 1, 1), eval_every=1)).metrics["selected"]
    assert found["source_val"] is None and found["oracle"]["epoch"] == 1


def test_an_interrupted_run_keeps_its_records(smoke, monkeypatch):
    cfg = smoke(**FAST, eval_every=2)
    original, calls = recognition.run_epoch, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 4:
            raise NbkitError("killed")
        return original(*args)

    monkeypatch.setattr(recognition, "run_epoch", dies)
    with pytest.raises(NbkitError, match="killed"):
        run(cfg)
    monkeypatch.setattr(recognition, "run_epoch", original)
    history = run(cfg).history
    assert history["val_fused"].notna().tolist() == [
        False,
        False,
        True,
        True,
    ]  # epoch 2 before, epoch 3 (the last) after


def test_source_validation_is_the_sources_and_unseen(smoke):
    _, method, domains = prepare(smoke())
    seen = set(method.data.train["source"].videos) | set(domains.test["source"].videos)
    videos = set(domains.source_val.videos)
    assert videos and not videos & seen and all(v.startswith("studio/") for v in videos)
    assert (domains.source_val.labels >= 0).all()
    assert own_history(method, [{"stage": 3, "evaluated": "x", "val_rgb": 1.0, "ce": 2.0}]) == [
        {"stage": 3, "ce": 2.0}
    ]
