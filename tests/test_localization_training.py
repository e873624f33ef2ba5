"""The localization loop and its runs: equal baselines, resume, shared stages, withheld labels."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pandas as pd
import pytest
import torch
from moving_squares import CLASSES, CPU, config, train

from nbkit.config.localization import LocalizationConfig
from nbkit.data.keyframes import KeyframeDataset
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import Detections, Tube
from nbkit.losses.adversarial import ramp
from nbkit.train import localization
from nbkit.train.localization import (
    LocalizationModel,
    learning_rate,
    reversal,
    run,
    train_localizer,
    trained_detector,
    training_key,
)
from nbkit.train.localization_data import data_of_table
from nbkit.train.localization_eval import (
    adapt_statistics,
    detect_all,
    evaluate_localizer,
    score_detections,
    target_statistics,
)
from nbkit.train.store import find_run

ROWS = ("T_img", "T_ins", "S_img", "T_img + T_ins", "all three")
FILES = {"config.json", "history.csv", "metrics.json", "env.json", "detections.npz"}


@pytest.fixture(scope="module")
def baseline(squares):
    return train(squares)[0].detector.state_dict()


# --- the ablation --------------------------------------------------------------------------------
@pytest.mark.parametrize("row", ROWS)
def test_lambda_zero_gives_the_baseline_bit_for_bit(squares, baseline, row):
    state = train(squares, row=row, lam=0.0)[0].detector.state_dict()
    assert all(torch.equal(state[k], baseline[k]) for k in baseline)


def test_with_statistics_per_domain_lambda_zero_changes_nothing_of_the_source(squares):
    plain = train(squares, norm="per_domain")[0].detector.state_dict()
    state = train(squares, row="all three", lam=0.0, norm="per_domain")[0].detector.state_dict()
    running = [name for name in plain if "running" in name]
    for name, value in plain.items():
        if name in running:  # the source's line; the target's is fed by its own frames
            assert torch.equal(state[name][0], value[0]), name
        else:
            assert torch.equal(state[name], value), name
    means = [name for name in running if "running_mean" in name]
    assert means and not any(torch.equal(state[name][1], plain[name][1]) for name in means)


@pytest.mark.parametrize("row", ["T_img", "T_ins", "T_img + T_ins"])
def test_temporal_variants_keep_the_baselines_proposals(squares, baseline, row):
    model, _ = train(squares, row=row, beta=5.0)
    state, temporal_differs = model.detector.state_dict(), False
    for name, value in baseline.items():
        if name.startswith(("keyframe", "rpn")):
            assert torch.equal(state[name], value), name
        else:
            temporal_differs |= not torch.equal(state[name], value)
    assert temporal_differs
    plain = LocalizationModel(config(), 2).eval()
    plain.detector.load_state_dict(baseline)
    test, every = squares("b", background=True, key_stride=5), config(eval_stride=1)
    found, same = (detect_all(m.detector, test, every)[1] for m in (model, plain))
    for a, b in zip(found.values(), same.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_spatial_variant_leaves_the_temporal_features_gradient_alone(squares, baseline):
    model = train(squares, row="S_img", beta=5.0)[0]
    first = "keyframe.layers.0.0.weight"
    assert not torch.equal(model.detector.state_dict()[first], baseline[first])
    source, target = squares("a").batch([0, 1]), squares("b", withhold_labels=True).batch([0, 1])
    _, adv = model.train()(source, target, 1.0)
    temporal = [p for n, p in model.detector.named_parameters() if n.startswith("temporal")]
    grads = torch.autograd.grad(adv["s_img"], temporal, allow_unused=True)
    assert temporal and all(grad is None for grad in grads)


# --- habits of the loop --------------------------------------------------------------------------
class Killed(Exception):
    pass


def dies_at(dataset, step):
    """`dataset`, of which step `step` is never read."""
    set_epoch = dataset.set_epoch

    def killed(epoch):
        if epoch == step:
            raise Killed
        set_epoch(epoch)

    dataset.set_epoch = killed
    return dataset


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def test_resume_is_bit_identical(squares, tmp_path):
    path, how = tmp_path / "cut.pt", {"row": "all three", "save_every": 1}
    whole, state = train(squares, tmp_path / "whole.pt", **how)
    target = dies_at(squares("b", augment=True, withhold_labels=True), 1)
    with pytest.raises(Killed):
        train(squares, path, target, **how)
    assert torch.load(path)["step"] == 1
    resumed, again = train(squares, path, **how)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert without_time(state["history"]) == without_time(again["history"])
    path.write_bytes(b"PK broken")
    with pytest.raises(NbkitError, match="not a readable checkpoint"):
        train(squares, path, **how)


def test_target_annotation_is_never_opened(squares, squares_table, squares_cache):
    part = squares_table[squares_table["domain"] == "b"].assign(boxes="/no/such/file.npz", label=-1)
    how = {"clip_len": 4, "key_stride": 2, "augment": True, "withhold_labels": True}
    poisoned = KeyframeDataset(squares_cache, part.reset_index(drop=True), **how)
    clean, _ = train(squares, row="all three")
    other, _ = train(squares, target=poisoned, row="all three")
    for a, b in zip(clean.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_wrong_use_is_refused(squares, tmp_path):
    cfg, path = config(row="T_img"), tmp_path / "stage.pt"
    open_a, open_b = squares("a"), squares("b")
    hidden = squares("b", withhold_labels=True)
    for labelled, target in ((open_a, open_b), (hidden, hidden)):
        with pytest.raises(NbkitError, match="withhold_labels=True"):
            train_localizer(CPU, cfg, CLASSES, labelled, target, path)
    with pytest.raises(NbkitError, match="row='T-img'"):
        config(row="T-img")
    with pytest.raises(NbkitError, match="LAMBDA"):
        config(lambda_=1)
    with pytest.raises(NbkitError, match="AdaBN.*none"):
        config(row="AdaBN", norm="group")


def test_schedules():
    paper = LocalizationConfig.make(profile="paper", steps=700)
    rates = [learning_rate(paper, step) for step in (0, 499, 500)]
    assert rates == [pytest.approx(rate) for rate in (1e-3, 1e-3, 1e-4)]
    small = config(steps=100, warmup=10, beta_ramp=True)
    assert learning_rate(small, 0) == pytest.approx(small.optim.lr / 10)
    assert learning_rate(small, 99) < 1e-6
    assert reversal(small, 0) == 0
    assert reversal(small, 99) == pytest.approx(small.adaptation.beta, rel=1e-3)


def test_the_ramp_of_the_reversal_begins_with_the_adaptation():
    late = config(steps=100, source_steps=60, beta_ramp=True)
    assert reversal(late, 59) == reversal(late, 60) == 0
    assert reversal(late, 80) == pytest.approx(late.adaptation.beta * ramp(0.5))
    with pytest.raises(NbkitError, match="lower SOURCE_STEPS, or raise STEPS"):
        config(steps=3, source_steps=3)
    with pytest.raises(NbkitError, match="frozen.*SOURCE_STEPS"):
        config(norm="frozen")


def test_frozen_statistics_are_those_of_the_source_steps(squares):
    how = {"row": "all three", "norm": "frozen", "source_steps": 2}
    detectors = [train(squares, **how, steps=n)[0].detector for n in (3, 5)]
    states = [{k: v.clone() for k, v in each.state_dict().items()} for each in detectors]
    running = [name for name in states[0] if "running" in name]
    assert all(torch.equal(states[0][name], states[1][name]) for name in running)
    assert states[0][running[0]].abs().sum() > 0
    adapt_statistics(detectors[0], squares("b", withhold_labels=True), config())
    for name, value in detectors[0].state_dict().items():  # AdaBN replaces them, and no weight
        assert torch.equal(value, states[0][name]) == (name not in running), name


def test_adabn_touches_only_target_statistics(squares):
    model, _ = train(squares, norm="per_domain")
    before = {k: v.clone() for k, v in model.detector.state_dict().items()}
    adapt_statistics(model.detector, squares("b", withhold_labels=True), config())
    for name, value in model.detector.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(value[0], before[name][0]), name
            assert not torch.equal(value[1], before[name][1]), name
        elif "running" not in name:
            assert torch.equal(value, before[name])


# --- runs ----------------------------------------------------------------------------------------
@pytest.fixture
def runs(squares_table, tmp_path, monkeypatch):
    """A function from fields of the configuration to it; its data are the moving squares."""
    parts = []
    for split in ("train", "test"):
        names = f"{split}/" + squares_table["video"]
        parts.append(squares_table.assign(split=split, video=names))
    whole = pd.concat(parts, ignore_index=True)

    def load(cfg):
        return data_of_table(cfg, CLASSES, whole)

    monkeypatch.setattr(localization, "load_data", load)
    folders = {"data_root": str(tmp_path / "data"), "runs_dir": str(tmp_path / "runs")}

    def make(**fields):
        return config(**{"steps": 1, "norm": "per_domain", "eval_stride": 5, **folders, **fields})

    return make


def test_every_row_runs_and_leaves_a_folder(runs, tmp_path):
    scores = {}
    for row in ("I3D+RPN", "all three", "AdaBN", "oracle"):
        done = run(runs(row=row))
        assert 0 <= done.metrics["frame_map"] <= 100 and len(done.history) == 1
        assert {path.name for path in done.folder.iterdir()} == FILES
        assert find_run(done.cfg) == done.folder
        written = json.loads((done.folder / "config.json").read_text())
        assert written["row"] == row and written["steps"] == 1
        with np.load(done.folder / "detections.npz") as arrays:
            scores[row] = arrays["score"]
    # AdaBN: the weights of the baseline, other statistics
    assert len(list((tmp_path / "runs/stages").glob("*.pt"))) == 3
    assert not np.array_equal(scores["I3D+RPN"], scores["AdaBN"])


def test_the_source_steps_of_two_rows_are_trained_once(runs, monkeypatch):
    """A row that goes on from the common checkpoint is the row that never stopped."""
    how = {"norm": "frozen", "steps": 3, "source_steps": 2}
    first, counted, step_of = run(runs(row="I3D+RPN", **how)), [], localization.train_step

    def counting(*arguments):
        counted.append(arguments[-1])
        return step_of(*arguments)

    monkeypatch.setattr(localization, "train_step", counting)
    second = run(runs(row="all three", **how))
    assert counted == [2]
    assert list(second.history["step"]) == list(first.history["step"]) == [0, 1, 2]
    alone = second.cfg.replace(runs_dir=second.cfg.watch.runs_dir + "/alone")
    data = localization.load_data(alone)
    path = Path(alone.watch.runs_dir) / "whole.pt"
    path.parent.mkdir()
    whole, _ = train_localizer(CPU, alone, CLASSES, data.labelled, data.target, path)
    for a, b in zip(whole.detector.parameters(), trained_detector(second.cfg).parameters()):
        assert torch.equal(a, b)


def test_a_finished_run_is_read(runs, monkeypatch):
    cfg = runs(row="all three")
    done = run(cfg)
    monkeypatch.setattr(localization, "_trained", lambda *_: 1 / 0)
    assert run(cfg).metrics == done.metrics


def test_a_run_killed_before_its_folder_completes_from_the_checkpoint(runs, monkeypatch):
    cfg = runs(row="T_img", steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(localization, "environment", lambda device: {"commit": "begun"})
        patch.setattr(localization, "evaluate_localizer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(cfg)
    assert find_run(cfg) is None
    with monkeypatch.context() as patch:
        patch.setattr(localization, "commit", lambda: "of now")
        patch.setattr(localization, "train_step", lambda *_: 1 / 0)
        done = run(cfg)
    env = json.loads((done.folder / "env.json").read_text())
    assert env == {"commit": "begun", "scored_at": "of now"}
    assert list(done.history["step"]) == [0, 1]
    columns = {"rpn_cls", "roi_reg", "t_img", "beta", "lam", "lr", "seconds"}
    assert columns <= set(done.history)


def test_two_identical_runs_at_once_are_one(runs, monkeypatch, tmp_path):
    cfg, steps, evaluated = runs(row="T_img", steps=3), [], []
    step, evaluate = localization.train_step, localization.evaluate_localizer
    monkeypatch.setattr(localization, "train_step", lambda *a: steps.append(0) or step(*a))
    monkeypatch.setattr(
        localization, "evaluate_localizer", lambda *a: evaluated.append(0) or evaluate(*a)
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, [cfg, cfg])
    assert first.metrics == second.metrics and first.folder == second.folder
    assert (len(steps), len(evaluated)) == (3, 1) and len(first.history) == 3


def test_a_row_names_the_commit_of_its_own_training(runs, monkeypatch):
    """Not that of the first steps, which it shares with the row before."""
    commits = {"I3D+RPN": "first", "T_img": "second"}
    for row, commit in commits.items():
        made = {"commit": commit, "cpu": "a"}
        monkeypatch.setattr(localization, "environment", lambda device, made=made: dict(made))
        folder = run(runs(row=row, steps=2, source_steps=1, norm="frozen")).folder
        assert json.loads((folder / "env.json").read_text())["commit"] == commit


def test_changed_data_are_trained_anew_in_a_folder_of_their_own(runs, monkeypatch):
    cfg = runs()
    first, load = run(cfg), localization.load_data
    monkeypatch.setattr(localization, "load_data", lambda cfg: replace(load(cfg), key="others"))
    second = run(cfg)
    assert second.folder != first.folder and find_run(cfg) == second.folder
    assert len(list(first.folder.parent.glob("stages/*.pt"))) == 2


def test_a_trained_detector_is_read_as_it_was_evaluated(runs):
    for row in ("I3D+RPN", "all three"):
        cfg = runs(row=row)
        done, detector = run(cfg), trained_detector(cfg)
        data = localization.load_data(cfg)
        domain = target_statistics(row)
        scores, _ = evaluate_localizer(detector, data.test, CLASSES, cfg, domain)
        assert {name: done.metrics[name] for name in scores} == pytest.approx(scores, nan_ok=True)


def other_value(section, name, value):
    """A valid value of a field that differs from `value`."""
    if name in OTHER:
        return OTHER[name]
    annotation = type(section).model_fields[name].annotation
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    return not value if isinstance(value, bool) else value + 1


OTHER = {"benchmark": "jhmdb_ucf101", "source": "c", "target": "c"}
WEIGHTS = {"keyframe_weights": "a.pt", "temporal_weights": "a.pt"}
OTHER |= WEIGHTS


@pytest.mark.parametrize("row, reads", [("I3D+RPN", False), ("all three", True)])
def test_the_key_of_a_stage_changes_with_what_its_training_reads(row, reads):
    base = config(row=row, norm="frozen", source_steps=1)
    read = {"": True, "data": True, "detector": True, "optim": True, "adaptation": reads}
    for name, place in LocalizationConfig.places().items():
        if place == "watch" or name == "row":
            continue
        # the small detector reads no weights
        cfg = base.replace(size="laptop") if name in WEIGHTS else base
        section = getattr(cfg, place) if place else cfg
        changed = cfg.replace(**{name: other_value(section, name, getattr(section, name))})
        differs = training_key(changed, "data") != training_key(cfg, "data")
        assert differs == read.get(place, False), name
    assert training_key(base.replace(runs_dir="elsewhere", log_every=3), "data") == training_key(
        base, "data"
    )
    assert training_key(cfg, "other data") != training_key(cfg, "data")


def test_only_adabn_shares_its_training():
    rows = ("I3D+RPN", "AdaBN", "oracle", *ROWS)
    keys = {row: training_key(config(row=row, norm="per_domain"), "data") for row in rows}
    assert keys["AdaBN"] == keys["I3D+RPN"]
    assert len(set(keys.values())) == len(keys) - 1


# --- scores --------------------------------------------------------------------------------------
def detections(frames, box):
    n = len(frames)
    return Detections(np.zeros(n), frames, np.zeros(n), np.full(n, 0.9), np.tile(box, (n, 1)))


def test_background_frames_count_in_neither_metric_where_they_are_left_out():
    """Agarwal et al., Table 2: perfect boxes on all of 116 frames, of which 40 hold the action."""
    box = np.array([10.0, 10, 30, 50])
    truth = [Tube(0, 0, np.arange(40, 80), np.tile(box, (40, 1)))]
    found = detections(np.arange(116), box)
    counted = score_detections(found, {}, truth, ["a"], config(eval_background=True))
    left_out = score_detections(found, {}, truth, ["a"], config(eval_background=False))
    assert left_out["frame_map"] == left_out["video_map_0.5"] == pytest.approx(100)
    assert counted["frame_map"] < 100 and counted["video_map_0.5"] == 0


def test_boxes_end_just_outside_their_last_pixel():
    found = detections([0], [0.0, 0, 3, 3])
    # The upper half of the first truth; with a pixel more at each side it would be 16 / 28.
    for bottom, overlap, ap in ((6, 50, 100), (6.1, None, 0)):
        truth = [Tube(0, 0, [0], np.array([[0.0, 0, 3, bottom]]))]
        scores = score_detections(found, {}, truth, ["a"], config())
        assert scores["frame_map"] == pytest.approx(ap)
        if overlap:
            assert scores["box_iou"] == pytest.approx(overlap)
