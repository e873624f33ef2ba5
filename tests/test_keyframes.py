"""Key frames, boxes and evaluation of the localizer on the moving squares; probes of its features."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from moving_squares import CLASSES, SIDE, config

from nbkit.data.frame_cache import FrameCache, build_frame_cache, scale_boxes
from nbkit.data.keyframes import KeyframeDataset, clip_indices
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import Detections, Tube
from nbkit.train.localization import LocalizationModel
from nbkit.train.localization_eval import adapt_statistics, evaluate, score, strided, where_from
from nbkit.train.localization_probe import probe
from nbkit.train.localization_run import (
    ROWS,
    load_localization,
    row_config,
    run_row,
    target_statistics,
    trained_detector,
)


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
    with pytest.raises(NbkitError, match="no videos"):
        KeyframeDataset(squares_cache, squares_table.iloc[:0])


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


def test_frame_cache_is_reused_and_names_missing_videos(squares_table, squares_cache):
    again = build_frame_cache(
        squares_table, squares_cache.folder.parent, size=(SIDE, SIDE), progress=False
    )
    assert again.folder == squares_cache.folder and squares_cache.native_size("a/0") == (64, 64)
    with pytest.raises(NbkitError, match="nowhere"):
        squares_cache.frames("nowhere")
    with pytest.raises(NbkitError, match="no such video"):
        build_frame_cache(
            squares_table.assign(path="/no/such.avi"),
            squares_cache.folder.parent,
            size=(8, 8),
            progress=False,
        )
    (squares_cache.folder.parent / "broken").mkdir()
    with pytest.raises(NbkitError, match="not a whole"):
        FrameCache(squares_cache.folder.parent / "broken")
    np.testing.assert_allclose(
        scale_boxes(np.array([[10.0, 10, 20, 20]]), (480, 720), (240, 320)),
        [[10 * 320 / 720, 5, 20 * 320 / 720, 10]],
    )


# ------------------------------------------------------------------------------------------------------
# evaluation
def test_perfect_detections_score_100_everywhere(squares):
    test = squares("b", background=True, key_stride=1)
    truth = strided(test.tubes, 2)
    parts = [
        Detections(
            np.full(len(t), t.video),
            t.frames,
            np.full(len(t), t.label),
            np.full(len(t), 0.9),
            t.boxes,
        )
        for t in truth
    ]
    proposals = {(t.video, int(f)): b[None] for t in truth for f, b in zip(t.frames, t.boxes)}
    row = score(Detections.concatenate(parts), proposals, truth, CLASSES, config()).summary()
    assert all(value == pytest.approx(100) for value in row.values()), row
    assert where_from(Detections.empty(), {}, truth)[0] == 0
    assert np.isnan(where_from(Detections.empty(), {}, truth)[1])


def test_evaluate_runs_on_an_untrained_detector_and_survives_no_detections(squares):
    model = LocalizationModel(config(), 2).eval()
    test = squares("b", background=True, key_stride=1)
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


def test_every_row_runs_and_leaves_a_folder(squares_table, tmp_path):
    split = squares_table.assign(split="train")
    whole = pd.concat(
        [split, split.assign(split="test", video="t/" + split["video"])], ignore_index=True
    )
    cfg = config(steps=1, norm="per_domain", eval_stride=5)
    loaded = load_localization(whole, CLASSES, "a", "b", cfg, tmp_path / "cache")
    assert (
        loaded.target.withhold_labels
        and not loaded.oracle.withhold_labels
        and len(loaded.test) == 40
    )
    for row in ("I3D+RPN", "all three", "AdaBN", "oracle"):
        scores, _, _ = run_row(cfg, loaded, row, tmp_path / row)
        assert 0 <= scores.summary()["frame_map"] <= 100
        names = {p.name for p in (tmp_path / row).iterdir()}
        assert names == {
            "config.json",
            "history.csv",
            "checkpoint.pt",
            "metrics.json",
            "env.json",
            "detections.npz",
        }
    baseline, adabn = (np.load(tmp_path / row / "detections.npz") for row in ("I3D+RPN", "AdaBN"))
    assert not np.array_equal(
        baseline["score"], adabn["score"]
    )  # the same weights, other statistics
    assert len(ROWS) == 10
    with pytest.raises(NbkitError, match="AdaBN"):
        row_config(config(), "AdaBN")
    with pytest.raises(NbkitError, match="no training video of class"):
        load_localization(whole[whole["label"] == 0], CLASSES, "a", "b", cfg, tmp_path / "cache")
    with pytest.raises(NbkitError, match="needs boxes"):
        load_localization(whole.drop(columns="boxes"), CLASSES, "a", "b", cfg, tmp_path / "cache")


# ----------------------------------------------------------------------------------------------------------
# probes
def test_a_probe_sees_a_domain_gap_and_none_where_there_is_none(squares):
    """The domains differ in brightness: an untrained detector shows it. The same domain twice
    leaves nothing to see.
    """
    detector = LocalizationModel(config(), 2).detector
    apart = probe(detector, squares("a"), squares("b"), frames=16, steps=40)
    alike = probe(detector, squares("a"), squares("a"), frames=16, steps=40)
    assert apart.accuracy["s_img"] > 95 and apart.accuracy["t_img"] > 70
    assert all(abs(value - 50) < 15 for value in alike.accuracy.values())
    again = probe(detector, squares("a"), squares("b"), frames=16, steps=40)
    assert again.accuracy == apart.accuracy


def test_a_probe_reads_the_target_with_the_statistics_it_is_told(squares):
    """Statistics of its own make a brighter domain look like the other one in the mean: less is
    left to see.
    """
    detector = LocalizationModel(config(norm="per_domain"), 2).detector
    adapt_statistics(detector, squares("a"), config(), domain="source", batches=40)
    adapt_statistics(detector, squares("b"), config(), domain="target", batches=40)
    plain, own = (
        probe(detector, squares("a"), squares("b"), statistics=s, frames=16, steps=40)
        for s in ("source", "target")
    )
    assert own.accuracy["t_img"] < plain.accuracy["t_img"] - 5


def test_a_trained_detector_is_read_as_it_was_evaluated(squares_table, tmp_path):
    both = [
        squares_table.assign(split=s, video=f"{s}/" + squares_table["video"])
        for s in ("train", "test")
    ]
    whole = pd.concat(both, ignore_index=True)
    cfg = config(steps=1, norm="per_domain", eval_stride=5)
    loaded = load_localization(whole, CLASSES, "a", "b", cfg, tmp_path / "cache")
    for row in ("I3D+RPN", "all three"):
        scores, model, _ = run_row(cfg, loaded, row, tmp_path / row)
        detector = trained_detector(row_config(cfg, row), row, tmp_path / row, loaded)
        again, _ = evaluate(detector, loaded.test, CLASSES, cfg, domain=target_statistics(row))
        assert again.summary() == scores.summary()
