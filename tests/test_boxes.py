"""Box readers of J-HMDB, UCF101-24, UCF Sports and the demo, and their validation."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real_path
from scipy.io import savemat

from nbkit.data.boxes import (
    clean_boxes,
    demo_boxes,
    jhmdb_boxes,
    mask_extent,
    tubes_of,
    ucf101_24_tubes,
    ucfsports_boxes,
)
from nbkit.errors import NbkitError

# --- validation


def test_clean_boxes_rule():
    boxes = [[0, 0, 10, 10], [-2, 5, 10, 20], [np.nan] * 4]
    cleaned = clean_boxes(boxes, 20, 30, "x")
    np.testing.assert_array_equal(cleaned, [[0, 0, 10, 10], [0, 5, 10, 20], [np.nan] * 4])
    assert cleaned.dtype == np.float64


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 5, 5], [5, 5, 5, 9]], "vid: frame 1 has a box without area"),
        ([[9, 9, 5, 5]], "without area"),
        ([[0, np.nan, 5, 5]], "without area"),
        ([[40, 0, 50, 10]], "mainly outside the 30x20 frame"),
        ([[24, 0, 37, 10]], "mainly outside"),
        ([[0, 0, 5]], "shape"),
    ],
)
def test_bad_boxes_are_named(boxes, message):
    with pytest.raises(NbkitError, match=message):
        clean_boxes(boxes, 20, 30, "vid")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-50, 400)] * 4), min_size=1, max_size=8))
def test_clean_boxes_answers_inside_the_frame_or_explains(boxes):
    try:
        cleaned = clean_boxes(np.array(boxes), 240, 320, "x")
    except NbkitError:
        return
    assert (
        (cleaned[:, :2] >= 0).all()
        and (cleaned[:, 2] <= 320).all()
        and (cleaned[:, 3] <= 240).all()
    )
    assert (cleaned[:, 2:] > cleaned[:, :2]).all()
    np.testing.assert_array_equal(clean_boxes(cleaned, 240, 320, "x"), cleaned)


# --- J-HMDB


def _mask(path, mask, key="part_mask"):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {key: mask})
    return path


def test_mask_extents(tmp_path):
    mask = np.zeros((20, 30, 3), np.uint8)  # (H, W, T)
    mask[4:10, 7:12, 0] = 3
    mask[19, 29, 2] = 1
    boxes = jhmdb_boxes(_mask(tmp_path / "m.mat", mask))
    np.testing.assert_array_equal(boxes, [[7, 4, 12, 10], [np.nan] * 4, [29, 19, 30, 20]])


def test_mask_of_one_frame(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[2:4, 3:5] = 1
    np.testing.assert_array_equal(jhmdb_boxes(_mask(tmp_path / "m.mat", mask)), [[3, 2, 5, 4]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.2))
def test_mask_extent_against_a_slow_loop(seed, density):
    masks = np.random.default_rng(seed).random((3, 9, 11)) < density
    for mask, box in zip(masks, mask_extent(masks)):
        points = [(y, x) for y in range(9) for x in range(11) if mask[y, x]]
        if not points:
            assert np.isnan(box).all()
            continue
        ys, xs = zip(*points)
        assert box.tolist() == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_bad_masks_are_explained(tmp_path):
    with pytest.raises(NbkitError, match="empty in every frame"):
        jhmdb_boxes(_mask(tmp_path / "empty.mat", np.zeros((5, 5, 2), np.uint8)))
    with pytest.raises(NbkitError, match="part_mask"):
        jhmdb_boxes(_mask(tmp_path / "key.mat", np.ones((5, 5, 2)), "other"))
    with pytest.raises(NbkitError, match="gone.mat"):
        jhmdb_boxes(tmp_path / "gone.mat")
    whole = _mask(tmp_path / "cut.mat", np.ones((50, 50, 9), np.uint8)).read_bytes()
    for n in (0, 60, len(whole) // 2):
        (tmp_path / "cut.mat").write_bytes(whole[:n])
        with pytest.raises(NbkitError, match="cut.mat"):
            jhmdb_boxes(tmp_path / "cut.mat")


def test_real_masks():
    for own in ("golf", "walk"):
        folder = sorted(real_path("jhmdb", "puppet_mask", own).iterdir())[0]
        boxes = jhmdb_boxes(folder / "puppet_mask.mat")
        assert 15 <= len(boxes) <= 40
        np.testing.assert_array_equal(clean_boxes(boxes, 240, 320, own), boxes)


# --- UCF101-24


def _pyannot(path, boxes, start=2, numf=200, end=None):
    tube = {
        "label": 0,
        "sf": start,
        "ef": start + len(boxes) if end is None else end,
        "boxes": boxes,
    }
    path.write_bytes(
        pickle.dumps({"Golf/v_Golf_g01_c01": {"numf": numf, "label": 0, "annotations": [tube]}}, 3)
    )
    return path


def test_small_integers_do_not_overflow(tmp_path):
    boxes = np.array([[200, 100, 100, 140], [250, 0, 70, 240]], np.uint8)
    video = ucf101_24_tubes(_pyannot(tmp_path / "a.pkl", boxes, numf=np.uint8(200)))[
        "Golf/v_Golf_g01_c01"
    ]
    np.testing.assert_array_equal(video.tubes[0].boxes, [[200, 100, 300, 240], [250, 0, 320, 240]])
    assert (video.n_frames, video.tubes[0].start, video.tubes[0].class_name) == (200, 2, "Golf")


def test_bad_annotations_are_explained(tmp_path):
    with pytest.raises(NbkitError, match="2 boxes for frames 2..8"):
        ucf101_24_tubes(_pyannot(tmp_path / "b.pkl", np.ones((2, 4), np.uint8), end=9))
    for name, value in (
        ("list", [1]),
        ("empty", {}),
        ("fields", {"a/b": {"numf": 3}}),
        ("text", {"a/b": "x"}),
    ):
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(pickle.dumps(value, 3))
        with pytest.raises(NbkitError, match=f"{name}.pkl"):
            ucf101_24_tubes(path)


# class: (videos, frames, frames with action, tubes, videos with several tubes) of train, then test
TABLE = {
    "Diving": ((104, 17775, 11815, 104, 0), (45, 7908, 5168, 45, 0)),
    "GolfSwing": ((100, 16642, 13458, 110, 10), (39, 6481, 4344, 39, 0)),
    "HorseRiding": ((115, 22679, 22679, 121, 5), (49, 8690, 8491, 51, 1)),
    "SkateBoarding": ((88, 11654, 11489, 88, 0), (32, 4832, 4832, 32, 0)),
    "Basketball": ((99, 14751, 5135, 136, 22), (35, 3923, 1323, 35, 0)),
    "WalkingWithDog": ((87, 19988, 19283, 97, 10), (36, 7740, 7179, 40, 3)),
}


def test_real_ucf101_24_counts():
    videos = ucf101_24_tubes(real_path("ucf101_24", "pyannot.pkl"))
    test = set(real_path("ucf101_24", "testlist01.txt").read_text().split())
    assert len(videos) == 3194 and sum(v in test for v in videos) == 910
    for own, rows in TABLE.items():
        for part, row in enumerate(rows):
            chosen = [
                v
                for name, v in videos.items()
                if name.startswith(f"{own}/") and (name in test) == bool(part)
            ]
            acting = [{t.start + i for t in v.tubes for i in range(len(t.boxes))} for v in chosen]
            found = (
                len(chosen),
                sum(v.n_frames for v in chosen),
                sum(map(len, acting)),
                sum(len(v.tubes) for v in chosen),
                sum(len(v.tubes) > 1 for v in chosen),
            )
            assert found == row, (own, part)
    for name, video in videos.items():
        for tube in video.tubes:
            np.testing.assert_array_equal(clean_boxes(tube.boxes, 240, 320, name), tube.boxes)
            assert tube.start + len(tube.boxes) <= video.n_frames


# --- UCF Sports and demo


def test_ucfsports_order_and_errors(tmp_path):
    (tmp_path / "2538-5_9.tif.txt").write_text("10\t20\t30\t40\tArmSwing")
    (tmp_path / "2538-5_10.tif.txt").write_text("11 20 30 40")
    (tmp_path / "2538-5_11.tif.txt").write_text("")
    boxes = ucfsports_boxes(tmp_path)
    np.testing.assert_array_equal(boxes, [[10, 20, 40, 60], [11, 20, 41, 60], [np.nan] * 4])
    (tmp_path / "2538-5_13.tif.txt").write_text("12 20 30 40")
    with pytest.raises(NbkitError, match="no file for the frame before 2538-5_13"):
        ucfsports_boxes(tmp_path)
    (tmp_path / "2538-5_13.tif.txt").unlink()
    (tmp_path / "2538-5_11.tif.txt").write_text("11 20 thirty 40")
    with pytest.raises(NbkitError, match="2538-5_11.tif.txt"):
        ucfsports_boxes(tmp_path)
    (tmp_path / "2538-5_11.tif.txt").write_text("11 20")
    with pytest.raises(NbkitError, match="expected 'x y w h label'"):
        ucfsports_boxes(tmp_path)
    with pytest.raises(NbkitError, match="no gt"):
        ucfsports_boxes(tmp_path / "nothing")


def test_real_ucfsports_boxes():
    folders = sorted(real_path("ucf_sports").glob("*/*/gt"))
    assert sorted(len(ucfsports_boxes(f)) for f in folders) == [55, 60, 60, 60, 70]
    for folder in folders:
        clean_boxes(ucfsports_boxes(folder), 480, 720, str(folder))


def test_tubes_of_rows(tmp_path):
    boxes = np.array(
        [[0, 0, 0, 0], [1, 1, 5, 5], [2, 1, 6, 5], [3, 1, 7, 5], [4, 1, 8, 5]], np.float32
    )
    np.savez(tmp_path / "d.npz", boxes=boxes, action=np.array([True, True, False, True, True]))
    video = tubes_of(
        {"video": "v", "path": "v.avi", "class_name": "wave", "boxes": str(tmp_path / "d.npz")}
    )
    assert video.n_frames == 5 and [(t.start, len(t.boxes)) for t in video.tubes] == [
        (1, 1),
        (3, 2),
    ]
    assert all(t.class_name == "wave" and not np.isnan(t.boxes).any() for t in video.tubes)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(NbkitError, match="bad.npz"):
        demo_boxes(tmp_path / "bad.npz")

    annotations = _pyannot(tmp_path / "c.pkl", np.full((3, 4), 9, np.uint8))
    row = {
        "video": "ucf101/Golf/v_Golf_g01_c01",
        "class_name": "golf",
        "boxes": str(annotations),
    }
    assert tubes_of(row).tubes[0].class_name == "golf" and tubes_of(row).n_frames == 200
    with pytest.raises(NbkitError, match="has no entry for Golf/v_Golf_g09_c01"):
        tubes_of({**row, "video": "ucf101/Golf/v_Golf_g09_c01"})
    with pytest.raises(NbkitError, match="has no boxes"):
        tubes_of({**row, "boxes": ""})
