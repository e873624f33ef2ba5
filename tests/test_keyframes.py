"""Key frames, boxes and evaluation of the localizer on the moving squares; probes of features."""

import numpy as np
import pandas as pd
import pytest
import torch
from moving_squares import CLASSES, SIDE, config

from nbkit.data import frame_cache
from nbkit.data.frame_cache import build_frame_cache, scale_boxes
from nbkit.data.keyframes import KeyframeDataset, clip_indices
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import Detections, Tube, tube_boxes
from nbkit.models.localizer_sizes import build_localizer
from nbkit.models.roi import DetectSettings
from nbkit.train import localization_data
from nbkit.train.localization import LocalizationModel
from nbkit.train.localization_data import data_of_table, load_data
from nbkit.train.localization_eval import (
    adapt_statistics,
    evaluate_localizer,
    score_detections,
    strided,
    where_from,
)
from nbkit.train.localization_probe import probe_domains


def test_keyframes_boxes_follow_the_resize_and_the_flip(squares, squares_table):
    plain = squares("a")
    item = plain.item(0)
    truth = np.load(squares_table["boxes"][0])["boxes"][0] * SIDE / 64
    np.testing.assert_allclose(item["boxes"][0], truth, rtol=1e-6)
    assert torch.equal(item["keyframe"], item["clip"][:, 2])
    flipped = next(
        i
        for e in range(20)
        for i in [_at_epoch(squares("a", augment=True), e)]
        if not torch.allclose(i["boxes"], item["boxes"])
    )
    np.testing.assert_allclose(flipped["boxes"][0][[0, 2]], SIDE - truth[[2, 0]], rtol=1e-5)
    x1, y1, x2, y2 = flipped["boxes"][0].round().int().tolist()
    assert (
        flipped["keyframe"][:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean()
        > flipped["keyframe"].mean() + 0.2
    )


def _at_epoch(dataset, epoch):
    dataset.set_epoch(epoch)
    return dataset.item(0)


def test_background_frames(squares):
    assert (3, 2) not in squares("a").keys and (3, 4) in squares("a").keys
    everything = squares("a", background=True)
    assert len(everything.item(everything.keys.index((3, 2)))["boxes"]) == 0
    assert [t.frames[0] for t in everything.tubes if t.video == 3] == [4]
    assert (
        len(squares("b", withhold_labels=True).keys) == 20
    )  # nobody knows which of them are background


def test_video_shorter_than_the_clip_repeats_its_ends():
    assert clip_indices(1, 8, 2, 3).tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


def test_bad_boxes_name_the_video(squares_table, squares_cache, tmp_path):
    row = squares_table.iloc[[0]].copy()
    name = row["video"].iloc[0]
    for boxes, words in (
        ([[20, 10, 20, 40]], "not one key frame has a box"),
        ([[200, 10, 260, 40]], f"{name}.*outside"),
    ):
        np.savez(
            tmp_path / "bad.npz", boxes=np.array(boxes * 10, np.float32), action=np.ones(10, bool)
        )
        row["boxes"] = str(tmp_path / "bad.npz")
        with pytest.raises(NbkitError, match=words):
            KeyframeDataset(squares_cache, row, clip_len=4)
    np.savez(tmp_path / "bad.npz", boxes=np.zeros((10, 4), np.float32), action=np.zeros(10, bool))
    with pytest.raises(NbkitError, match="not one key frame has a box"):
        KeyframeDataset(squares_cache, row, clip_len=4)


def test_empty_actor_masks_leave_frames_out(squares_table, squares_cache, tmp_path):
    from scipy.io import savemat

    mask = np.zeros((64, 64, 10), np.uint8)
    mask[10:40, 20:44] = 1
    mask[:, :, 4:6] = 0  # the actor is out of sight
    savemat(tmp_path / "puppet_mask.mat", {"part_mask": mask})
    row = squares_table.iloc[[0]].assign(boxes=str(tmp_path / "puppet_mask.mat"))
    found = KeyframeDataset(squares_cache, row, clip_len=4, key_stride=1)
    assert [f for _, f in found.keys] == [0, 1, 2, 3, 6, 7, 8, 9]
    assert [t.frames.tolist() for t in found.tubes] == [[0, 1, 2, 3], [6, 7, 8, 9]]
    np.testing.assert_allclose(found.tubes[0].boxes[0], np.array([20, 10, 44, 40]) * SIDE / 64)
    savemat(tmp_path / "puppet_mask.mat", {"part_mask": np.zeros_like(mask)})
    with pytest.raises(NbkitError, match="empty in every frame"):
        KeyframeDataset(squares_cache, row, clip_len=4)


def test_frame_cache_is_reused_and_names_missing_videos(squares_table, squares_cache, monkeypatch):
    root = squares_cache.arrays.folder.parent
    how = {"size": (SIDE, SIDE), "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(frame_cache, "resize", lambda *_: 1 / 0)  # nothing is decoded again
        again = build_frame_cache(squares_table, root, **how)
        part = build_frame_cache(squares_table[:3], root, **how)
    assert again.key == squares_cache.key != part.key
    assert again.native_size("a/0") == (64, 64)
    with pytest.raises(NbkitError, match="nowhere"):
        squares_cache.frames("nowhere")
    gone = squares_table.assign(path="/no/such.avi")
    with pytest.raises(NbkitError, match="no such video"):
        build_frame_cache(gone, root, **how)
    boxes = np.array([[10.0, 10, 20, 20]])
    scaled = [[10 * 320 / 720, 5, 20 * 320 / 720, 10]]
    np.testing.assert_allclose(scale_boxes(boxes, (480, 720), (240, 320)), scaled)


# --- evaluation ----------------------------------------------------------------------------------
def test_perfect_detections_score_100_everywhere(squares):
    test = squares("b", background=True, key_stride=1)
    truth = strided(test.tubes, 2)
    proposals = {(t.video, int(f)): b[None] for t in truth for f, b in zip(t.frames, t.boxes)}
    scores = score_detections(tube_boxes(truth), proposals, truth, CLASSES, config())
    assert all(value == pytest.approx(100) for value in scores.values()), scores
    nothing = where_from(Detections.empty(), {}, truth)
    assert nothing["proposal_recall"] == 0
    assert np.isnan([nothing["class_given_box"], nothing["box_iou"]]).all()


def test_evaluation_runs_on_an_untrained_detector_and_survives_no_detections(squares):
    detector = LocalizationModel(config(), 2).detector
    test = squares("b", background=True, key_stride=1)
    scores, found = evaluate_localizer(detector, test, CLASSES, config(eval_stride=3))
    assert 0 <= scores["frame_map"] <= 100 and found.frame.max() == 3
    quiet = build_localizer(config().detector, 2, height=SIDE, detect=DetectSettings(score=2.0))
    classes = [*CLASSES, "absent"]
    scores, found = evaluate_localizer(quiet, test, classes, config(eval_stride=5))
    assert len(found) == 0 and scores["frame_map"] == 0
    assert scores["ap_up"] == 0 and np.isnan(scores["ap_absent"])


def test_strided_tubes():
    tube = Tube(0, 0, np.arange(3, 9), np.tile([[0.0, 0, 5, 5]], (6, 1)))
    assert strided([tube], 2)[0].frames.tolist() == [2, 3, 4]
    assert strided([Tube(0, 0, [3], [[0.0, 0, 5, 5]])], 2) == []


# --- both domains of a run -----------------------------------------------------------------------
def test_data_of_a_run_withholds_what_training_must_not_see(squares_table, tmp_path):
    train = squares_table.assign(split="train")
    test = train.assign(split="test", video="t/" + train["video"])
    whole = pd.concat([train, test], ignore_index=True)
    cfg = config(data_root=str(tmp_path))
    data = data_of_table(cfg, CLASSES, whole)
    assert data.target.withhold_labels and data.oracle is None and len(data.test) == 40
    assert data.labelled is data.source
    bound = data_of_table(config(data_root=str(tmp_path), row="oracle"), CLASSES, whole)
    assert bound.labelled is bound.oracle and not bound.oracle.withhold_labels
    assert bound.oracle.videos == bound.target.videos and bound.key == data.key
    moved = whole.assign(split=["test"] + ["train"] * 7 + ["test"] * 8)
    assert data_of_table(cfg, CLASSES, moved).key != data.key
    with pytest.raises(NbkitError, match="a: no training video of class down"):
        data_of_table(cfg, CLASSES, whole[whole["label"] == 0])
    with pytest.raises(NbkitError, match="b: no test videos"):
        data_of_table(cfg, CLASSES, train)
    with pytest.raises(NbkitError, match="needs boxes"):
        data_of_table(cfg, CLASSES, whole.drop(columns="boxes"))


def test_benchmarks_that_cannot_be_localized_are_refused(tmp_path):
    how = {"data_root": str(tmp_path)}
    with pytest.raises(NbkitError, match="no boxes"):
        load_data(config(benchmark="ucf_olympic", **how))
    with pytest.raises(NbkitError, match="SOURCE='a' is not a domain of demo_untrimmed"):
        load_data(config(**how))


def test_untrimmed_demo_has_background_frames_and_two_instances(tmp_path, monkeypatch):
    render = localization_data.write_demo
    small = {"size": 48, "frames": 16}
    monkeypatch.setattr(localization_data, "UNTRIMMED", 0.5)
    monkeypatch.setattr(
        localization_data, "write_demo", lambda root, **how: render(root, **how, **small)
    )
    how = {"source": "studio", "target": "street", "data_root": str(tmp_path)}
    data = load_data(config(demo_train=2, demo_test=2, **how))
    boxed = {(tube.video, int(frame)) for tube in data.test.tubes for frame in tube.frames}
    long = [video for video, n in enumerate(data.test.n_frames) if n == 48]
    assert len(long) == 8 and set(data.test.n_frames) == {16, 48}
    for video in long:
        assert sum(tube.video == video for tube in data.test.tubes) == 2
        assert 0 < sum((video, frame) in boxed for frame in range(48)) < 48
    acting = {(t.video, int(frame)) for t in data.source.tubes for frame in t.frames}
    assert set(data.source.keys) <= acting
    assert data.target.withhold_labels and not data.target.tubes


# --- probes --------------------------------------------------------------------------------------
FEW = {"frames": 16, "steps": 40}


def test_a_probe_sees_a_domain_gap_and_none_where_there_is_none(squares):
    """The domains differ in brightness: an untrained detector shows it; one domain twice cannot."""
    detector = LocalizationModel(config(), 2).detector
    _, apart = probe_domains(detector, squares("a"), squares("b"), "source", **FEW)
    _, alike = probe_domains(detector, squares("a"), squares("a"), "source", **FEW)
    assert apart["s_img"] > 95 and apart["t_img"] > 70
    assert all(abs(value - 50) < 15 for value in alike.values())
    _, again = probe_domains(detector, squares("a"), squares("b"), "source", **FEW)
    assert again == apart


def test_a_probe_reads_the_target_with_the_statistics_it_is_told(squares):
    """With statistics of its own, a brighter domain looks like the other one in the mean."""
    cfg = config(norm="per_domain")
    detector = LocalizationModel(cfg, 2).detector
    for name, domain in (("a", "source"), ("b", "target")):
        adapt_statistics(detector, squares(name), cfg, domain)
    found = []
    for statistics in ("source", "target"):
        both = squares("a"), squares("b")
        found.append(probe_domains(detector, *both, statistics, **FEW)[1])
    plain, own = found
    assert own["t_img"] < plain["t_img"] - 5
