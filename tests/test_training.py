"""The loop, end to end on tiny rendered videos: no leak, no pollution, sharing, resuming, clear
errors.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import nbkit.train.recognition as recognition
from nbkit.errors import NbkitError
from nbkit.methods import batches
from nbkit.methods.base import Step
from nbkit.train.domains import load_domains, resolved_videos
from nbkit.train.recognition import prepare, run, stage_key, train, trained_method
from nbkit.train.selection import target_features


def weights(cfg):
    return trained_method(cfg).method.model.state_dict()


def batch_of(method, side, count, stage=3):
    """The first videos of a training set, as the loop would load them."""
    return method.data.train[side].batch(np.arange(count), **method.views(stage))


def stage_files(cfg):
    return sorted(Path(cfg.watch.runs_dir, "stages").glob("*.pt"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def step(stage=3):
    return Step(stage, 0, 0.0, torch.Generator().manual_seed(0))


def test_poisoned_target_training_labels_change_nothing(smoke, monkeypatch):
    clean = weights(smoke())

    def poisoned(cfg):
        classes, table = resolved_videos(cfg)
        rows = (table["domain"] == cfg.target) & (table["split"] == "train")
        table.loc[rows, "label"] = (table.loc[rows, "label"] * 3 + 1) % len(classes)
        return classes, table

    monkeypatch.setattr("nbkit.train.domains.resolved_videos", poisoned)
    assert same(clean, weights(smoke()))


def test_the_same_test_would_notice_a_leak(smoke, monkeypatch):
    clean = weights(smoke(method="target_only"))

    def poisoned(cfg):
        classes, table = resolved_videos(cfg)
        rows = (table["domain"] == cfg.target) & (table["split"] == "train")
        table.loc[rows, "label"] = (table.loc[rows, "label"] * 3 + 1) % len(classes)
        return classes, table

    monkeypatch.setattr("nbkit.train.domains.resolved_videos", poisoned)
    assert not same(clean, weights(smoke(method="target_only")))


@pytest.mark.parametrize(
    "method, seen",
    [("source_only", False), ("stcda", False), ("adabn", False), ("target_only", True)],
)
def test_only_upper_bounds_are_handed_target_labels(smoke, method, seen):
    cfg = smoke(method=method)
    _, method, domains = prepare(cfg)
    for part in (method.data.train, method.data.plain):
        labels = part["target"].labels
        assert (labels >= 0).all() if seen else (labels == -1).all()
    assert (domains.test["target"].labels >= 0).all()
    held = [*vars(method).values(), *method.data]
    assert not any(value is domains or value is domains.test for value in held)


def test_zero_weights_are_source_only_bit_for_bit(smoke):
    assert same(weights(smoke(alpha=0.0, beta=0.0)), weights(smoke(method="source_only")))


def test_negatives_leave_running_statistics_untouched(smoke):
    cfg = smoke()
    method = prepare(cfg).method
    method.train()
    batch = batch_of(method, "target", 8)
    outputs = method.outputs(batch, "target")
    norms = {
        k: v.clone()
        for k, v in method.model.state_dict().items()
        if "running" in k and "head" not in k
    }
    method.contrast(method.model, {"target": (batch, outputs)}, step().generator)
    assert norms and all(torch.equal(v, method.model.state_dict()[k]) for k, v in norms.items())


def test_the_terms_that_are_active_in_each_stage(smoke):
    cfg = smoke()
    method = prepare(cfg).method
    method.start_stage(1)
    method.cluster()
    both = [batch_of(method, d, 8) for d in ("source", "target")]
    assert [set(method(*both, step(s))[1]) for s in (1, 2, 3)] == [
        {"contrast"},
        {"ce", "contrast"},
        {"ce", "contrast", "vca", "intra", "inter"},
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"modalities": "rgb"},
        {"modalities": "flow", "single_view2": "none"},
        {"aggregation": "mean"},
        {"aggregation": "concat_fc"},
        {"stcl_terms": "clip"},
        {"stcl_terms": "video"},
        {"stcl_domains": "source"},
        {"fusion": "per_modality"},
        {"bn_mode": "group"},
        {"bn_mode": "shared"},
        {"head": "none"},
        {"cls_on": "clip"},
        {"normalise": "log_candidates"},
        {"neg_grad": "bank"},
        {"pseudo_labels": "fixed"},
        {"alpha_schedule": "decay"},
        {"multi_pos": "sum_in_log"},
        {"optimizer": "sgd", "lr": (0.01, 0.01, 0.001)},
        {"method": "source_target"},
    ],
)
def test_every_option_trains_and_tests(smoke, fields):
    if fields == {"modalities": "flow", "single_view2": "none"}:
        fields = {**fields, "stcl_terms": "clip"}
    found = run(smoke(epochs=(0, 1, 1), **fields))
    assert 0 <= found.metrics["accuracy"]["fused"] <= 100
    assert np.isfinite(
        found.history["ce"]
    ).all()  # other terms: the loop itself refuses what is not finite


def test_rows_share_the_stages_they_have_in_common(smoke):
    def keys(**fields):
        method = prepare(smoke(**fields)).method
        return {s: stage_key(method, s, "data") for s in (1, 2, 3)}

    full, stcl, vca, source, adabn = (
        keys(**f)
        for f in ({}, {"beta": 0.0}, {"alpha": 0.0}, {"method": "source_only"}, {"method": "adabn"})
    )
    assert full[2] == stcl[2] and full[3] != stcl[3]
    assert vca[2] == source[2] and vca[3] != source[3]
    assert source[3] == adabn[3] and full[2] != source[2]


def test_beta_grows_over_stage_3_on_request_and_only_then_enters_the_stage(smoke):
    ramp = prepare(smoke(beta_schedule="ramp")).method
    constant = prepare(smoke(beta_schedule="constant")).method
    steps = [Step(3, 0, progress, torch.Generator()) for progress in (0.0, 0.5, 1.0)]
    beta = ramp.cfg.vca.beta
    assert [ramp.beta(s) for s in steps] == [0.0, beta / 2, beta]
    assert [constant.beta(s) for s in steps] == [beta] * 3
    keys = [[stage_key(method, s, "data") for s in (2, 3)] for method in (ramp, constant)]
    assert keys[0][0] == keys[1][0] and keys[0][1] != keys[1][1]


def test_a_killed_run_resumes_to_the_same_weights(smoke, monkeypatch):
    whole = smoke(epochs=(1, 2, 2))
    expected = weights(whole)
    broken = smoke(epochs=(1, 2, 2))
    save, calls = recognition.save_stage, []

    def dies(*args, **how):
        save(*args, **how)
        calls.append(1)
        if len(calls) in (2, 4):  # after the first epoch of stage 2, then of stage 3
            raise KeyboardInterrupt

    monkeypatch.setattr(recognition, "save_stage", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(prepare(broken))
    monkeypatch.setattr(recognition, "save_stage", save)
    assert same(expected, weights(broken))


def test_same_seed_same_numbers_and_another_seed_others(smoke):
    a, b, c = run(smoke()), run(smoke()), run(smoke(seed=1))
    assert a.predictions.equals(b.predictions) and a.history.drop(columns="seconds").equals(
        b.history.drop(columns="seconds")
    )
    assert not np.allclose(a.history["ce"], c.history["ce"])


def test_a_finished_run_is_read_not_repeated(smoke, monkeypatch):
    cfg = smoke()
    first = run(cfg)
    monkeypatch.setattr("nbkit.train.recognition.train", lambda *a: pytest.fail("trained again"))
    assert run(cfg).metrics == first.metrics


def test_damaged_checkpoint_is_named(smoke):
    cfg = smoke(method="source_only")
    train(prepare(cfg))
    path = stage_files(cfg)[0]
    path.write_bytes(b"no checkpoint")
    with pytest.raises(NbkitError, match=path.name):
        train(prepare(cfg))


def test_a_checkpoint_of_another_network_is_named(smoke):
    cfg = smoke(method="source_only")
    train(prepare(cfg))
    path = stage_files(cfg)[0]
    state = torch.load(path, weights_only=True)
    state["model"].popitem()
    torch.save(state, path)
    with pytest.raises(NbkitError, match=f"{path.name}: weights of another network"):
        train(prepare(cfg))


def test_a_full_disk_says_so_and_keeps_the_last_epoch(smoke, monkeypatch):
    cfg = smoke(method="source_only", epochs=(0, 2, 0))
    real, calls = torch.save, []

    def full(*args, **how):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(*args, **how)

    monkeypatch.setattr("nbkit.train.checkpoint.torch.save", full)
    with pytest.raises(NbkitError, match="the disk is full"):
        train(prepare(cfg))
    monkeypatch.undo()
    folder = Path(cfg.watch.runs_dir, "stages")
    assert not list(folder.glob("*.part"))
    assert [torch.load(p, weights_only=True)["epoch"] for p in folder.glob("*.pt")] == [1]
    assert len(train(prepare(cfg))) == 2


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"method": "magic"}, "METHOD='magic' is not one of"),
        ({"source": "beach"}, "SOURCE='beach' is not a domain"),
        ({"benchmark": "nothing"}, "nothing"),
        ({"benchmark": "jhmdb_camera", "source": "static", "target": "moving"}, "jhmdb_camera"),
    ],
)
def test_bad_input_stops_before_any_training(smoke, fields, words):
    with pytest.raises(NbkitError, match=words):
        prepare(smoke(**fields))


def test_a_class_without_source_videos_is_named(smoke):
    cfg = smoke()
    classes, table = resolved_videos(cfg)
    table = table[~((table["domain"] == cfg.source) & (table["label"] == 2))]
    with pytest.raises(NbkitError, match=classes[2]):
        load_domains(cfg, table=table)


def test_an_exploding_loss_is_explained(smoke):
    with pytest.raises(NbkitError, match="lower LR"):
        train(prepare(smoke(lr=(1e6, 1e6, 1e6), grad_clip=0.0, optimizer="sgd", epochs=(0, 3, 0))))


@pytest.mark.parametrize(
    "fields",
    [{"method": "adabn"}, {"method": "stcda", "epochs": (0, 1, 1), "bank_init": "forward"}],
)
def test_what_reads_batch_statistics_does_not_go_through_the_files_in_order(
    smoke, fields, monkeypatch
):
    """Files lie in folders of their class: a batch of neighbours would tell the target's labels."""
    monkeypatch.setattr(batches, "EVAL_BATCH", 8)
    _, method, domains = prepare(smoke(**fields))
    seen, forward = [], method.model.forward

    def watched(batch, *more):
        if method.model.training and "index" in batch:
            seen.append(batch["index"].tolist())
        return forward(batch, *more)

    monkeypatch.setattr(method.model, "forward", watched)
    if method.cfg.method == "adabn":
        target_features(method, domains, torch.device("cpu"))
    else:
        method.start_stage(2)
        method.cluster()
    n = len(method.data.train["target"])
    assert sorted(i for b in seen for i in b)[:: len(seen) * 8 // n] == list(range(n))
    assert not any(sorted(b) == list(range(min(b), min(b) + len(b))) for b in seen)


def test_statistics_are_estimated_without_dropout(smoke):
    _, method, domains = prepare(smoke(method="adabn", dropout=0.5))
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        target_features(method, domains, torch.device("cpu"))
        found.append({k: v.clone() for k, v in method.model.state_dict().items()})
    assert same(*found) and all(m.training == method.model.training for m in method.model.modules())


def test_stcl_on_one_domain_draws_from_that_domain(smoke):
    for domains, count in (("both", 2), ("source", 1), ("target", 1)):
        method = prepare(smoke(stcl_domains=domains)).method
        videos = len(method.data.train["source"])
        banks = method.contrast.clips
        assert {len(b) for b in banks.values()} == {count * videos * method.cfg.data.clips}
        batch = batch_of(method, "target", 4)
        if domains != "source":
            slots = method.contrast.slots(batch["index"], "target")
            assert int(slots.min()) == (videos * method.cfg.data.clips if domains == "both" else 0)
        assert torch.isfinite(train_one(method)[0])


def train_one(method):
    method.start_stage(2)
    pair = [batch_of(method, d, 4) for d in ("source", "target")]
    return method.train()(*pair, step(2))


def test_the_level_of_chance_counts_a_second_view_of_one_stream(smoke):
    cfg = smoke(modalities="rgb", normalise="log_candidates", multi_pos="mean_of_logs")
    method = prepare(cfg).method
    batch = batch_of(method, "source", 4)
    views = method.contrast.views(
        method.model, batch, method.outputs(batch, "source"), "source", step(2).generator
    )
    assert "v_2" in views["rgb"]
    assert method.contrast.chance["clip_chance"] == pytest.approx(
        np.log(2 * method.cfg.stcl.nce_k + 3)
    )


def test_adabn_needs_batch_statistics(smoke):
    with pytest.raises(NbkitError, match="BN_MODE='group' has none"):
        prepare(smoke(method="adabn", bn_mode="group"))
