"""The localization loop and its data: equal baselines, resume, withheld labels, bad input."""
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from nbkit.data.frame_cache import FrameCache, build_frame_cache, scale_boxes
from nbkit.data.keyframes import KeyframeDataset, clip_indices
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
from nbkit.train.localization_config import LocalizationConfig
from nbkit.train.localization_eval import adapt_statistics, detect_all, evaluate, score, strided, where_from

CLASSES, SIDE = ["up", "down"], 48
VARIANTS = [("t_img",), ("t_ins",), ("s_img",), ("t_img", "t_ins"), ("t_img", "t_ins", "s_img")]


def write_video(path, frames):
    from nbkit.data.demo import encode
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(str(path), frames)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two domains of bright squares that move up or down; video 3 of each is untrimmed: no action on frames 0-3."""
    root, rows = tmp_path_factory.mktemp("squares"), []
    for d, domain in enumerate(("a", "b")):
        for i in range(4):
            label, n = i % 2, 10
            rng = np.random.default_rng([d, i])
            frames = rng.integers(0, 60, (n, 64, 64, 3), dtype=np.uint8) + 60 * d
            y = 8 + 2 * (np.arange(n) if label else n - np.arange(n))
            boxes = np.stack([np.full(n, 12.0), y, np.full(n, 36.0), y + 30], axis=1)
            for frame, (x1, y1, x2, y2) in zip(frames, boxes.astype(int)):
                frame[y1:y2, x1:x2] = 240
            action = np.arange(n) >= (4 if i == 3 else 0)
            write_video(root / f"{domain}{i}.avi", frames.astype(np.uint8))
            np.savez(root / f"{domain}{i}.npz", boxes=boxes.astype(np.float32), action=action)
            rows.append({"video": f"{domain}/{i}", "path": str(root / f"{domain}{i}.avi"), "class_name": CLASSES[label],
                         "label": label, "domain": domain, "boxes": str(root / f"{domain}{i}.npz")})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def cache(table, tmp_path_factory):
    return build_frame_cache(table, tmp_path_factory.mktemp("cache"), size=(SIDE, SIDE), progress=False)


@pytest.fixture(scope="module")
def data(table, cache):
    def make(domain, **how):
        part = table[table["domain"] == domain].reset_index(drop=True)
        return KeyframeDataset(cache, part, **{"clip_len": 4, "key_stride": 2, **how})
    return make


def config(**fields):
    small = {"height": SIDE, "width": SIDE, "clip_len": 4, "steps": 3, "batch": 2, "log_every": 1, "warmup": 0,
             "min_tube_len": 2, "beta_ramp": False, "norm": "group", "beta": 0.2}
    return LocalizationConfig.make("small", **{**small, **fields})


@pytest.fixture(scope="module")
def baseline(data):
    return train_localizer(config(), CLASSES, data("a", augment=True))[0].detector.state_dict()


def train(data, folder=None, stop_after=None, **fields):
    source, target = data("a", augment=True), data("b", augment=True, withhold_labels=True)
    return train_localizer(config(**fields), CLASSES, source, target, folder, stop_after=stop_after)


# -------------------------------------------------------------------------------------------------- the ablation
@pytest.mark.parametrize("adapt", VARIANTS)
def test_lambda_zero_gives_the_baseline_bit_for_bit(data, baseline, adapt):
    state = train(data, adapt=adapt, lam=0.0)[0].detector.state_dict()
    assert all(torch.equal(state[k], baseline[k]) for k in baseline)


def test_with_statistics_per_domain_lambda_zero_changes_nothing_of_the_source(data):
    plain = train_localizer(config(norm="per_domain"), CLASSES, data("a", augment=True))[0].detector.state_dict()
    state = train(data, adapt=VARIANTS[-1], lam=0.0, norm="per_domain")[0].detector.state_dict()
    for name, value in plain.items():
        own = slice(0, 1) if "running" in name else slice(None)  # the source's row; the target's is fed by its own frames
        assert torch.equal(state[name][own], value[own]) if value.dim() else torch.equal(state[name], value), name
    moved = [name for name in plain if "running_mean" in name and not torch.equal(state[name][1], plain[name][1])]
    assert len(moved) == sum("running_mean" in name for name in plain)


@pytest.mark.parametrize("adapt", [("t_img",), ("t_ins",), ("t_img", "t_ins")])
def test_temporal_variants_keep_the_baselines_proposals(data, baseline, adapt):
    model, _ = train(data, adapt=adapt, beta=5.0)
    state, temporal_differs = model.detector.state_dict(), False
    for name, value in baseline.items():
        if name.startswith(("keyframe", "rpn")):
            assert torch.equal(state[name], value), name
        else:
            temporal_differs |= not torch.equal(state[name], value)
    assert temporal_differs
    plain = LocalizationModel(config(), 2).eval()
    plain.detector.load_state_dict(baseline)
    test = data("b", background=True, key_stride=5)
    for a, b in zip(detect_all(model.detector, test)[1].values(), detect_all(plain.detector, test)[1].values()):
        np.testing.assert_array_equal(a, b)


def test_spatial_variant_leaves_the_temporal_features_gradient_alone(data, baseline):
    state = train(data, adapt=("s_img",), beta=5.0)[0].detector.state_dict()
    assert not torch.equal(state["keyframe.layers.0.0.weight"], baseline["keyframe.layers.0.0.weight"])


# --------------------------------------------------------------------------------------------------- habits of the loop
def test_resume_is_bit_identical(data, tmp_path):
    whole, history = train(data, adapt=VARIANTS[-1], folder=tmp_path / "whole")
    train(data, adapt=VARIANTS[-1], folder=tmp_path / "cut", stop_after=1)
    with pytest.raises(NbkitError, match="1 of 3"):
        load_detector(tmp_path / "cut", config(adapt=VARIANTS[-1]), CLASSES)
    resumed, again = train(data, adapt=VARIANTS[-1], folder=tmp_path / "cut")
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(a, b)

    def drop(rows):
        return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]

    assert drop(history) == drop(again)
    written = pd.read_csv(tmp_path / "cut" / "history.csv")
    assert {"step", "rpn_cls", "roi_reg", "t_img", "t_ins", "s_img", "beta", "lam", "lr"} <= set(written)
    assert list(written["step"]) == [0, 1, 2]
    load_detector(tmp_path / "cut", config(adapt=VARIANTS[-1]), CLASSES)
    with pytest.raises(NbkitError, match="another configuration"):
        train(data, adapt=VARIANTS[-1], folder=tmp_path / "cut", lam=0.5)
    (tmp_path / "cut" / "checkpoint.pt").write_bytes(b"PK broken")
    with pytest.raises(NbkitError, match="not a readable checkpoint"):
        train(data, adapt=VARIANTS[-1], folder=tmp_path / "cut")


def test_target_annotation_is_never_opened(data, table, cache):
    part = table[table["domain"] == "b"].assign(boxes="/no/such/file.npz", label=-1)
    poisoned = KeyframeDataset(cache, part.reset_index(drop=True), clip_len=4, key_stride=2, augment=True,
                               withhold_labels=True)
    clean, _ = train(data, adapt=VARIANTS[-1])
    other, _ = train_localizer(config(adapt=VARIANTS[-1]), CLASSES, data("a", augment=True), poisoned)
    assert all(torch.equal(a, b) for a, b in zip(clean.state_dict().values(), other.state_dict().values()))


def test_wrong_use_is_refused(data):
    with pytest.raises(NbkitError, match="withhold_labels=True"):
        train_localizer(config(adapt=("t_img",)), CLASSES, data("a"), data("b"))
    with pytest.raises(NbkitError, match="needs key frames"):
        train_localizer(config(adapt=("t_img",)), CLASSES, data("a"))
    with pytest.raises(NbkitError, match="nothing to learn"):
        train_localizer(config(), CLASSES, data("a", withhold_labels=True))
    with pytest.raises(NbkitError, match="ADAPT"):
        LocalizationConfig.make("small", adapt=("timg",))
    with pytest.raises(NbkitError, match="LAMBDA"):
        LocalizationConfig.make("small", lambda_=1)


def test_schedules():
    paper = LocalizationConfig.make("paper", steps=700)
    assert [learning_rate(paper, s) for s in (0, 499, 500)] == [pytest.approx(x) for x in (1e-3, 1e-3, 1e-4)]
    small = config(steps=100, warmup=10, beta_ramp=True)
    assert learning_rate(small, 0) == pytest.approx(small.lr / 10) and learning_rate(small, 99) < 1e-6
    assert reversal(small, 0) == 0 and reversal(small, 99) == pytest.approx(small.beta, rel=1e-3)
    shares = [step_indices(50, paper.model_copy(update={"batch": 8}), 3, 0, r, 2) for r in (0, 1)]
    assert len(set(np.concatenate(shares))) == 8


def test_adabn_touches_only_target_statistics(data):
    model, _ = train(data, norm="per_domain")
    before = {k: v.clone() for k, v in model.detector.state_dict().items()}
    adapt_statistics(model.detector, data("b", withhold_labels=True), config(), batches=2)
    for name, value in model.detector.state_dict().items():
        if "running_mean" in name:
            assert torch.equal(value[0], before[name][0]) and not torch.equal(value[1], before[name][1]), name
        elif "running" not in name:
            assert torch.equal(value, before[name])


# ------------------------------------------------------------------------------------------------------------ data
def test_keyframes_boxes_follow_the_resize_and_the_flip(data, table):
    plain = data("a")
    item = plain.item(0)
    truth = np.load(table["boxes"][0])["boxes"][0] * SIDE / 64
    np.testing.assert_allclose(item["boxes"][0], truth, rtol=1e-6)
    assert torch.equal(item["keyframe"], item["clip"][:, 2])
    flipped = next(i for e in range(20) for i in [_at_epoch(data("a", augment=True), e)] if
                   not torch.allclose(i["boxes"], item["boxes"]))
    np.testing.assert_allclose(flipped["boxes"][0][[0, 2]], SIDE - truth[[2, 0]], rtol=1e-5)
    x1, y1, x2, y2 = flipped["boxes"][0].round().int().tolist()
    assert flipped["keyframe"][:, y1 + 2:y2 - 2, x1 + 2:x2 - 2].mean() > flipped["keyframe"].mean() + 0.2


def _at_epoch(dataset, epoch):
    dataset.set_epoch(epoch)
    return dataset.item(0)


def test_background_frames(data):
    assert (3, 2) not in data("a").keys and (3, 4) in data("a").keys
    everything = data("a", background=True)
    assert len(everything.item(everything.keys.index((3, 2)))["boxes"]) == 0
    assert [t.frames[0] for t in everything.tubes if t.video == 3] == [4]
    assert len(data("b", withhold_labels=True).keys) == 20  # nobody knows which of them are background


def test_video_shorter_than_the_clip_repeats_its_ends():
    assert clip_indices(1, 8, 2, 3).tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


def test_bad_boxes_name_the_video(table, cache, tmp_path):
    row = table.iloc[[0]].copy()
    for boxes, words in (([[20, 10, 20, 40]], "action"), ([[200, 10, 260, 40]], "outside")):
        np.savez(tmp_path / "bad.npz", boxes=np.array(boxes * 10, np.float32), action=np.ones(10, bool))
        row["boxes"] = str(tmp_path / "bad.npz")
        with pytest.raises(NbkitError) as error:
            KeyframeDataset(cache, row, clip_len=4)
        assert words == "action" or words in str(error.value)
    np.savez(tmp_path / "bad.npz", boxes=np.zeros((10, 4), np.float32), action=np.zeros(10, bool))
    with pytest.raises(NbkitError, match="not one key frame has a box"):
        KeyframeDataset(cache, row, clip_len=4)
    with pytest.raises(NbkitError, match="no videos"):
        KeyframeDataset(cache, table.iloc[:0])


def test_empty_actor_masks_leave_frames_out(table, cache, tmp_path):
    from scipy.io import savemat
    mask = np.zeros((64, 64, 10), np.uint8)
    mask[10:40, 20:44] = 1
    mask[:, :, 4:6] = 0  # the actor is out of sight
    savemat(tmp_path / "puppet_mask.mat", {"part_mask": mask})
    row = table.iloc[[0]].assign(boxes=str(tmp_path / "puppet_mask.mat"))
    found = KeyframeDataset(cache, row, clip_len=4, key_stride=1)
    assert [f for _, f in found.keys] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert [t.frames.tolist() for t in found.tubes] == [[0, 1, 2, 3], [6, 7, 8, 9]]
    np.testing.assert_allclose(found.tubes[0].boxes[0], np.array([20, 10, 44, 40]) * SIDE / 64)
    savemat(tmp_path / "puppet_mask.mat", {"part_mask": np.zeros_like(mask)})
    with pytest.raises(NbkitError, match="empty in every frame"):
        KeyframeDataset(cache, row, clip_len=4)


def test_frame_cache_is_reused_and_names_missing_videos(table, cache):
    again = build_frame_cache(table, cache.folder.parent, size=(SIDE, SIDE), progress=False)
    assert again.folder == cache.folder and cache.native_size("a/0") == (64, 64)
    with pytest.raises(NbkitError, match="nowhere"):
        cache.frames("nowhere")
    with pytest.raises(NbkitError, match="no such video"):
        build_frame_cache(table.assign(path="/no/such.avi"), cache.folder.parent, size=(8, 8), progress=False)
    (cache.folder.parent / "broken").mkdir()
    with pytest.raises(NbkitError, match="not a whole"):
        FrameCache(cache.folder.parent / "broken")
    np.testing.assert_allclose(scale_boxes(np.array([[10.0, 10, 20, 20]]), (480, 720), (240, 320)),
                               [[10 * 320 / 720, 5, 20 * 320 / 720, 10]])


# ------------------------------------------------------------------------------------------------------ evaluation
def test_perfect_detections_score_100_everywhere(data):
    test = data("b", background=True, key_stride=1)
    truth = strided(test.tubes, 2)
    parts = [Detections(np.full(len(t), t.video), t.frames, np.full(len(t), t.label), np.full(len(t), 0.9), t.boxes)
             for t in truth]
    proposals = {(t.video, int(f)): b[None] for t in truth for f, b in zip(t.frames, t.boxes)}
    row = score(Detections.concatenate(parts), proposals, truth, CLASSES, config()).summary()
    assert all(value == pytest.approx(100) for value in row.values()), row
    assert where_from(Detections.empty(), {}, truth)[0] == 0
    assert np.isnan(where_from(Detections.empty(), {}, truth)[1])


def test_evaluate_runs_on_an_untrained_detector_and_survives_no_detections(data):
    model = LocalizationModel(config(), 2).eval()
    test = data("b", background=True, key_stride=1)
    scores, found = evaluate(model.detector, test, CLASSES, config(eval_stride=3))
    assert 0 <= scores.summary()["frame_map"] <= 100 and found.frame.max() == 3
    quiet = dataclasses.replace(model.detector.settings.detect, score=2.0)
    model.detector.settings = dataclasses.replace(model.detector.settings, detect=quiet)
    scores, found = evaluate(model.detector, test, [*CLASSES, "absent"], config(eval_stride=5))
    assert len(found) == 0 and scores.frame.mean == 0 and scores.frame.absent == ("absent",)


def test_strided_tubes():
    tube = Tube(0, 0, np.arange(3, 9), np.tile([[0.0, 0, 5, 5]], (6, 1)))
    assert strided([tube], 2)[0].frames.tolist() == [2, 3, 4]
    assert strided([Tube(0, 0, [3], [[0.0, 0, 5, 5]])], 2) == []


def test_every_row_runs_and_leaves_a_folder(table, tmp_path):
    from nbkit.train.localization_run import ROWS, load_localization, row_config, run_row
    split = table.assign(split="train")
    whole = pd.concat([split, split.assign(split="test", video="t/" + split["video"])], ignore_index=True)
    cfg = config(steps=1, norm="per_domain", eval_stride=5)
    loaded = load_localization(whole, CLASSES, "a", "b", cfg, tmp_path / "cache")
    assert loaded.target.withhold_labels and not loaded.oracle.withhold_labels and len(loaded.test) == 40
    for row in ("I3D+RPN", "all three", "AdaBN", "oracle"):
        scores, _, _ = run_row(cfg, loaded, row, tmp_path / row)
        assert 0 <= scores.summary()["frame_map"] <= 100
        names = {p.name for p in (tmp_path / row).iterdir()}
        assert names == {"config.json", "history.csv", "checkpoint.pt", "metrics.json", "env.json", "detections.npz"}
    assert len(ROWS) == 10
    with pytest.raises(NbkitError, match="AdaBN"):
        row_config(config(), "AdaBN")
    with pytest.raises(NbkitError, match="no training video of class"):
        load_localization(whole[whole["label"] == 0], CLASSES, "a", "b", cfg, tmp_path / "cache")
    with pytest.raises(NbkitError, match="needs boxes"):
        load_localization(whole.drop(columns="boxes"), CLASSES, "a", "b", cfg, tmp_path / "cache")
