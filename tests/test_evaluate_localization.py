"""frame-mAP, tube linking and video-mAP: known answers, slow twins, properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbkit.errors import NbkitError
from nbkit.evaluate.average_precision import average_precision, greedy_match
from nbkit.evaluate.detections import Detections, Tube, as_boxes, iou_matrix, tube_boxes
from nbkit.evaluate.frame_map import frame_map
from nbkit.evaluate.linking import LinkSettings, link
from nbkit.evaluate.tubes import tube_iou, tube_nms
from nbkit.evaluate.video_map import RANGE, video_map, video_maps

CLASSES = ("dive", "golf")
LOOSE = LinkSettings(min_length=1)


def moving_box(n, x=10.0, y=20.0):
    step = np.arange(n)[:, None]
    return np.array([[x, y, x + 40, y + 80]]) + step * [[1, 0, 1, 0]]


def ground_truth():
    """Video 0: dive on frames 5-24 of 40. Video 1: golf everywhere. Video 2: golf twice."""
    return [
        Tube(0, 0, np.arange(5, 25), moving_box(20)),
        Tube(1, 1, np.arange(30), moving_box(30)),
        Tube(2, 1, np.arange(0, 20), moving_box(20)),
        Tube(2, 1, np.arange(30, 50), moving_box(20, x=150)),
    ]


def add(detections, video, frame, label, score, box):
    extra = Detections([video], [frame], [label], [score], [box])
    return Detections.concatenate([detections, extra])


def scored(truth, score=0.9):
    rows = tube_boxes(truth)
    rows.score[:] = score
    return rows


# --- known answers -------------------------------------------------------------------------------
def test_perfect_detections_score_100():
    truth = ground_truth()
    found = scored(truth)
    for background in (True, False):
        assert frame_map(found, truth, CLASSES, eval_background=background).ap == (100.0, 100.0)
    tubes = link(found, LOOSE)
    assert len(tubes) == 4
    assert video_map(tubes, truth, CLASSES).mean == 100
    strict = video_maps(tubes, truth, CLASSES, iou_thresholds=RANGE)
    assert [found.mean for found in strict.values()] == pytest.approx([100] * 10)


@pytest.mark.parametrize("n", [2, 15, 40])
def test_one_missing_frame_of_n(n):
    whole = Tube(0, 0, np.arange(n), moving_box(n))
    short = Tube(0, 0, np.arange(n - 1), moving_box(n)[:-1])
    assert tube_iou(whole, short) == pytest.approx((n - 1) / n)
    hole = np.delete(np.arange(n), n // 2)
    assert tube_iou(whole, Tube(0, 0, hole, moving_box(n)[hole])) == pytest.approx((n - 1) / n)


def test_background_false_positive_counts_only_with_eval_background():
    truth = ground_truth()
    # frame 35 of video 0: nobody acts
    found = add(scored(truth), 0, 35, 0, 0.99, [10, 20, 50, 100])
    without = frame_map(found, truth, CLASSES, eval_background=False)
    with_background = frame_map(found, truth, CLASSES, eval_background=True)
    assert without.mean == 100
    assert with_background.ap[0] < 100 and with_background.ap[1] == 100
    # one false positive ranked first: precision after k hits is k/(k+1), trapezoids between
    precision = np.arange(21) / np.arange(1, 22)
    expected = 100 * np.sum((precision[1:] + precision[:-1]) / 40)
    assert with_background.ap[0] == pytest.approx(expected)


def test_background_must_be_chosen():
    with pytest.raises(TypeError):
        frame_map(Detections.empty(), ground_truth(), CLASSES)


def test_wrong_class_scores_zero_and_duplicates_change_nothing():
    truth = ground_truth()
    wrong = scored(truth)
    wrong.label = 1 - wrong.label
    assert frame_map(wrong, truth, CLASSES, eval_background=True).mean == 0
    assert video_map(link(wrong, LOOSE), truth, CLASSES).mean == 0
    twice = Detections.concatenate([scored(truth, 0.9), scored(truth, 0.1)])
    assert frame_map(twice, truth, CLASSES, eval_background=True).mean == 100


def test_half_the_frames_missing():
    truth = [Tube(0, 0, np.arange(40), moving_box(40))]
    half = scored(truth).select(np.arange(0, 40, 2))
    assert frame_map(half, truth, 1, eval_background=True).mean == 50
    assert video_map(link(half, LOOSE), truth, 1, iou_threshold=0.95).mean == 100  # gaps are filled
    assert video_map(link(half, LinkSettings(max_gap=0, min_length=1)), truth, 1).mean == 0


def test_class_without_ground_truth_is_left_out():
    result = frame_map(
        scored(ground_truth()), ground_truth(), (*CLASSES, "ski"), eval_background=True
    )
    assert np.isnan(result.ap[2]) and result.mean == 100


def test_no_detections_at_all():
    assert frame_map(Detections.empty(), ground_truth(), CLASSES, eval_background=True).mean == 0
    assert link(Detections.empty()) == []
    assert video_map([], ground_truth(), CLASSES).mean == 0
    assert np.isnan(frame_map(Detections.empty(), [], CLASSES, eval_background=True).mean)


def test_temporal_localization_is_tested():
    """A detector that fires through the background of an untrimmed video loses the tube."""
    truth = [Tube(0, 0, np.arange(20, 40), moving_box(60)[20:40])]
    always = Detections(np.zeros(60), np.arange(60), np.zeros(60), np.full(60, 0.9), moving_box(60))
    assert video_map(link(always), truth, 1, iou_threshold=0.5).mean == 0
    assert video_map(link(always), truth, 1, iou_threshold=0.2).mean == 100


# --- the pieces ----------------------------------------------------------------------------------
def test_uint8_boxes_are_cast_not_wrapped():
    small = np.array([[200, 100, 255, 240]], dtype=np.uint8)
    assert iou_matrix(small, small)[0, 0] == 1
    assert as_boxes(small).dtype == np.float64
    large = np.array([[0, 0, 200, 250]], np.uint8)
    assert iou_matrix(large, [[0, 0, 100, 250]])[0, 0] == 0.5


def test_boxes_end_just_outside_their_last_pixel():
    a, b = np.array([[0, 0, 9, 9]]), np.array([[5, 0, 14, 9]])
    assert iou_matrix(a, b)[0, 0] == pytest.approx(36 / 126)
    assert iou_matrix([[3, 3, 3, 3]], [[3, 3, 3, 3]])[0, 0] == 0
    # corners that name the last pixel itself, as the ACT evaluator has them
    outside = [0, 0, 1, 1]
    assert iou_matrix(a + outside, b + outside)[0, 0] == pytest.approx(50 / 150)


@pytest.mark.parametrize("bad", [np.zeros((3, 5)), np.zeros(4), [[0, 0, np.nan, 1]]])
def test_bad_boxes_are_refused(bad):
    with pytest.raises(NbkitError):
        as_boxes(bad)


def test_bad_tables_are_refused():
    with pytest.raises(NbkitError, match="lengths"):
        Detections([0], [0], [0], [0.5, 0.4], [[0, 0, 1, 1]])
    with pytest.raises(NbkitError, match="NaN"):
        Detections([0], [0], [0], [np.nan], [[0, 0, 1, 1]])
    with pytest.raises(NbkitError, match="increase"):
        Tube(0, 0, [3, 3], moving_box(2))
    with pytest.raises(NbkitError, match="classes"):
        frame_map(scored(ground_truth()), ground_truth(), 1, eval_background=True)


def test_ap_by_hand():
    score, hit = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    # points (precision, recall): (1, 0) (1, 1/3) (1/2, 1/3) (2/3, 2/3) (1/2, 2/3)
    assert average_precision(score, hit, 3) == pytest.approx((2 + 7 / 6) / 6)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_ap_properties(rows, missed):
    score, hit = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], bool)
    n = int(hit.sum()) + missed
    found = average_precision(score, hit, n)
    if n == 0:
        assert np.isnan(found)
    else:
        # Rectangles under the precision made monotone from the right (PASCAL VOC) are no smaller.
        order = np.argsort(-score, kind="stable")
        true = np.cumsum(hit[order])
        precision = true / np.arange(1, len(true) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        upper = np.sum(np.diff(np.r_[0, true / n]) * envelope)
        assert 0 <= found <= upper + 1e-12 <= 1 + 2e-12


def slow_match(overlap, group, score, threshold):
    taken, hit = set(), np.zeros(len(score), bool)
    for i in np.argsort(-score, kind="stable"):
        free = [(-overlap[i, g], g) for g in range(overlap.shape[1]) if (group[i], g) not in taken]
        if free and -min(free)[0] >= threshold:
            hit[i] = True
            taken.add((group[i], min(free)[1]))
    return hit


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_greedy_match_is_the_slow_loop(seed):
    rng = np.random.default_rng(seed)
    n, g = rng.integers(0, 40), rng.integers(0, 4)
    overlap, group, score = rng.uniform(size=(n, g)), rng.integers(0, 5, n), rng.uniform(size=n)
    np.testing.assert_array_equal(
        greedy_match(overlap, group, score, 0.4), slow_match(overlap, group, score, 0.4)
    )


def slow_link(frames, boxes, scores, cfg):
    """One sequence, one tube at a time: lists of detection indices."""
    done, active = [], []
    for t in range(frames.min(), frames.max() + 1):
        here = sorted(np.flatnonzero(frames == t), key=lambda i: -scores[i])[: cfg.top_k]
        active.sort(key=lambda tube: -np.mean(scores[tube]))
        still = []
        for tube in active:
            near = [
                i for i in here if iou_matrix(boxes[tube[-1:]], boxes[i : i + 1])[0, 0] >= cfg.iou
            ]
            if near:
                tube.append(near[0])
                here.remove(near[0])
            (done if t - frames[tube[-1]] > cfg.max_gap else still).append(tube)
        active = still + [[i] for i in here]
    return sorted(tuple(tube) for tube in done + active)


@pytest.mark.parametrize("seed", range(6))
def test_linking_is_the_slow_loop(seed):
    rng = np.random.default_rng(seed)
    cfg = LinkSettings(max_gap=int(rng.integers(0, 3)), min_length=1, min_score=0, top_k=4)
    tracks, frames = 3, 25
    centre = np.cumsum(rng.normal(0, 3, (frames, tracks, 2)), axis=0) + rng.uniform(
        30, 60, (1, tracks, 2)
    )
    seen = rng.uniform(size=(frames, tracks)) < 0.8
    t, k = np.nonzero(seen)
    boxes = np.c_[centre[t, k] - 12, centre[t, k] + 12]
    parts, expected = [], []
    for video in range(3):  # three videos side by side must not disturb each other
        scores = rng.uniform(0.1, 1, len(t))
        parts.append(Detections(np.full(len(t), video), t, np.zeros(len(t)), scores, boxes))
        expected += [
            (video, tuple(scores[list(tube)])) for tube in slow_link(t, boxes, scores, cfg)
        ]
    tubes = link(Detections.concatenate(parts), cfg)
    assert len(tubes) == len(expected)
    means = sorted((v, round(float(np.mean(s)), 9)) for v, s in expected)
    assert sorted((tube.video, round(tube.score, 9)) for tube in tubes) == means


def test_linking_fills_gaps_by_interpolation_and_closes_after_max_gap():
    boxes = moving_box(12)

    def found(keep):
        return Detections(
            np.zeros(len(keep)), keep, np.zeros(len(keep)), np.full(len(keep), 0.5), boxes[keep]
        )

    (tube,) = link(found(np.r_[0:4, 6:12]), LinkSettings(max_gap=2, min_length=1))
    np.testing.assert_array_equal(tube.frames, np.arange(12))
    np.testing.assert_allclose(tube.boxes, boxes)
    assert len(link(found(np.r_[0:4, 6:12]), LinkSettings(max_gap=1, min_length=1))) == 2
    assert [
        len(t) for t in link(found(np.r_[0:4, 6:12]), LinkSettings(max_gap=1, min_length=5))
    ] == [6]


def test_tube_nms_keeps_the_best_of_overlapping_tubes():
    best, copy = (
        Tube(0, 0, np.arange(20), moving_box(20), 0.9),
        Tube(0, 0, np.arange(2, 20), moving_box(20)[2:], 0.8),
    )
    later = Tube(0, 0, np.arange(30, 50), moving_box(20), 0.7)
    assert tube_nms([copy, later, best], 0.3) == [2, 1]
    assert video_map([best, copy, later], [best, later], 1).mean == 100
    assert tube_iou(best, later) == 0


def test_map_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    truth = ground_truth()
    found = scored(truth)
    found.box += rng.normal(0, 12, found.box.shape)
    found.score = rng.uniform(size=len(found))
    mixed = found.select(rng.permutation(len(found)))
    assert frame_map(found, truth, CLASSES, eval_background=True) == frame_map(
        mixed, truth, CLASSES, eval_background=True
    )
    a, b = (
        video_maps(link(d, LOOSE), truth, CLASSES, iou_thresholds=(0.2, 0.5))
        for d in (found, mixed)
    )
    assert a == b
    assert a[0.2].mean >= a[0.5].mean
