"""The localization loop and its data: equal baselines, resume, withheld labels, bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from moving_squares import CLASSES, config, train

from nbkit.config.localization import LocalizationConfig
from nbkit.data.keyframes import KeyframeDataset
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import Detections, Tube
from nbkit.train.localization import (
    LocalizationModel,
    learning_rate,
    load_detector,
    reversal,
    step_indices,
    train_localizer,
)
from nbkit.train.localization_eval import adapt_statistics, detect_all, score

VARIANTS = [("t_img",), ("t_ins",), ("s_img",), ("t_img", "t_ins"), ("t_img", "t_ins", "s_img")]


@pytest.fixture(scope="module")
def baseline(squares):
    return train_localizer(config(), CLASSES, squares("a", augment=True))[0].detector.state_dict()


# --------------------------------------------------------------------------------------------------
# the ablation
@pytest.mark.parametrize("adapt", VARIANTS)
def test_lambda_zero_gives_the_baseline_bit_for_bit(squares, baseline, adapt):
    state = train(squares, adapt=adapt, lam=0.0)[0].detector.state_dict()
    assert all(torch.equal(state[k], baseline[k]) for k in baseline)


def test_with_statistics_per_domain_lambda_zero_changes_nothing_of_the_source(squares):
    plain = train_localizer(config(norm="per_domain"), CLASSES, squares("a", augment=True))[
        0
    ].detector.state_dict()
    state = train(squares, adapt=VARIANTS[-1], lam=0.0, norm="per_domain")[0].detector.state_dict()
    for name, value in plain.items():
        own = (
            slice(0, 1) if "running" in name else slice(None)
        )  # the source's row; the target's is fed by its own frames
        assert (
            torch.equal(state[name][own], value[own])
            if value.dim()
            else torch.equal(state[name], value)
        ), name
    moved = [
        name
        for name in plain
        if "running_mean" in name and not torch.equal(state[name][1], plain[name][1])
    ]
    assert len(moved) == sum("running_mean" in name for name in plain)


@pytest.mark.parametrize("adapt", [("t_img",), ("t_ins",), ("t_img", "t_ins")])
def test_temporal_variants_keep_the_baselines_proposals(squares, baseline, adapt):
    model, _ = train(squares, adapt=adapt, beta=5.0)
    state, temporal_differs = model.detector.state_dict(), False
    for name, value in baseline.items():
        if name.startswith(("keyframe", "rpn")):
            assert torch.equal(state[name], value), name
        else:
            temporal_differs |= not torch.equal(state[name], value)
    assert temporal_differs
    plain = LocalizationModel(config(), 2).eval()
    plain.detector.load_state_dict(baseline)
    test = squares("b", background=True, key_stride=5)
    for a, b in zip(
        detect_all(model.detector, test)[1].values(), detect_all(plain.detector, test)[1].values()
    ):
        np.testing.assert_array_equal(a, b)


def test_spatial_variant_leaves_the_temporal_features_gradient_alone(squares, baseline):
    model = train(squares, adapt=("s_img",), beta=5.0)[0]
    assert not torch.equal(
        model.detector.state_dict()["keyframe.layers.0.0.weight"],
        baseline["keyframe.layers.0.0.weight"],
    )
    _, adv = model.train()(
        squares("a").batch([0, 1]), squares("b", withhold_labels=True).batch([0, 1]), 1.0
    )
    temporal = [p for n, p in model.detector.named_parameters() if n.startswith("temporal")]
    assert temporal and all(
        g is None for g in torch.autograd.grad(adv["s_img"], temporal, allow_unused=True)
    )


# ---------------------------------------------------------------------------------------------------
# habits of the loop
def test_resume_is_bit_identical(squares, tmp_path):
    whole, history = train(squares, adapt=VARIANTS[-1], folder=tmp_path / "whole")
    train(squares, adapt=VARIANTS[-1], folder=tmp_path / "cut", stop_after=1)
    with pytest.raises(NbkitError, match="1 of 3"):
        load_detector(tmp_path / "cut", config(adapt=VARIANTS[-1]), CLASSES)
    resumed, again = train(squares, adapt=VARIANTS[-1], folder=tmp_path / "cut")
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(a, b)

    def drop(rows):
        return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]

    assert drop(history) == drop(again)
    written = pd.read_csv(tmp_path / "cut" / "history.csv")
    assert {"step", "rpn_cls", "roi_reg", "t_img", "t_ins", "s_img", "beta", "lam", "lr"} <= set(
        written
    )
    assert list(written["step"]) == [0, 1, 2]
    load_detector(tmp_path / "cut", config(adapt=VARIANTS[-1]), CLASSES)
    with pytest.raises(NbkitError, match="another configuration"):
        train(squares, adapt=VARIANTS[-1], folder=tmp_path / "cut", lam=0.5)
    (tmp_path / "cut" / "checkpoint.pt").write_bytes(b"PK broken")
    with pytest.raises(NbkitError, match="not a readable checkpoint"):
        train(squares, adapt=VARIANTS[-1], folder=tmp_path / "cut")


def test_target_annotation_is_never_opened(squares, squares_table, squares_cache):
    part = squares_table[squares_table["domain"] == "b"].assign(boxes="/no/such/file.npz", label=-1)
    poisoned = KeyframeDataset(
        squares_cache,
        part.reset_index(drop=True),
        clip_len=4,
        key_stride=2,
        augment=True,
        withhold_labels=True,
    )
    clean, _ = train(squares, adapt=VARIANTS[-1])
    other, _ = train_localizer(
        config(adapt=VARIANTS[-1]), CLASSES, squares("a", augment=True), poisoned
    )
    assert all(
        torch.equal(a, b) for a, b in zip(clean.state_dict().values(), other.state_dict().values())
    )


def test_wrong_use_is_refused(squares):
    with pytest.raises(NbkitError, match="withhold_labels=True"):
        train_localizer(config(adapt=("t_img",)), CLASSES, squares("a"), squares("b"))
    with pytest.raises(NbkitError, match="needs key frames"):
        train_localizer(config(adapt=("t_img",)), CLASSES, squares("a"))
    with pytest.raises(NbkitError, match="nothing to learn"):
        train_localizer(config(), CLASSES, squares("a", withhold_labels=True))
    with pytest.raises(NbkitError, match="ADAPT"):
        LocalizationConfig.make("small", adapt=("timg",))
    with pytest.raises(NbkitError, match="LAMBDA"):
        LocalizationConfig.make("small", lambda_=1)


def test_schedules():
    paper = LocalizationConfig.make("paper", steps=700)
    assert [learning_rate(paper, s) for s in (0, 499, 500)] == [
        pytest.approx(x) for x in (1e-3, 1e-3, 1e-4)
    ]
    small = config(steps=100, warmup=10, beta_ramp=True)
    assert (
        learning_rate(small, 0) == pytest.approx(small.lr / 10) and learning_rate(small, 99) < 1e-6
    )
    assert reversal(small, 0) == 0 and reversal(small, 99) == pytest.approx(small.beta, rel=1e-3)
    shares = [step_indices(50, paper.model_copy(update={"batch": 8}), 3, 0, r, 2) for r in (0, 1)]
    assert len(set(np.concatenate(shares))) == 8


def test_adabn_touches_only_target_statistics(squares):
    model, _ = train(squares, norm="per_domain")
    before = {k: v.clone() for k, v in model.detector.state_dict().items()}
    adapt_statistics(model.detector, squares("b", withhold_labels=True), config(), batches=2)
    for name, value in model.detector.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(value[0], before[name][0]) and not torch.equal(
                value[1], before[name][1]
            ), name
        elif "running" not in name:
            assert torch.equal(value, before[name])


def test_background_frames_count_in_neither_metric_where_they_are_left_out():
    """Agarwal et al., Table 2: perfect boxes on all of 116 frames, of which 40 hold the action."""
    box = np.array([10.0, 10, 30, 50])
    truth = [Tube(0, 0, np.arange(40, 80), np.tile(box, (40, 1)))]
    found = Detections(
        np.zeros(116), np.arange(116), np.zeros(116), np.full(116, 0.9), np.tile(box, (116, 1))
    )
    counted = score(found, {}, truth, ["a"], config(eval_background=True))
    left_out = score(found, {}, truth, ["a"], config(eval_background=False))
    assert left_out.frame.mean == left_out.video[0.5].mean == pytest.approx(100)
    assert counted.frame.mean < 100 and counted.video[0.5].mean == 0


def test_boxes_end_just_outside_their_last_pixel():
    found = Detections([0], [0], [0], [0.9], [[0.0, 0, 3, 3]])
    truth = [
        Tube(0, 0, [0], np.array([[0.0, 0, 3, 6]]))
    ]  # the upper half of it; with a pixel more at each side 16 / 28
    scores = score(found, {}, truth, ["a"], config())
    assert scores.box_iou == pytest.approx(50)
    truth = [Tube(0, 0, [0], np.array([[0.0, 0, 3, 6.1]]))]
    assert score(found, {}, truth, ["a"], config()).frame.mean == 0
