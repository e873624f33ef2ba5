import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbkit.evaluate.accuracy import confusion, per_class, top1
from nbkit.evaluate.statistics import (
    grim_neighbours,
    grim_test,
    one_video,
    paired_bootstrap,
    paired_runs,
)


def test_one_video_of_the_papers_test_set():
    assert round(one_video(360), 2) == 0.28


def test_paired_runs_covers_the_true_difference():
    rng, hits = np.random.default_rng(0), 0
    for i in range(200):
        base = rng.normal(60, 5, 12)
        found = paired_runs(base + 2 + rng.normal(0, 1, 12), base, draws=500, seed=i)
        hits += found.low <= 2 <= found.high
    assert 0.86 <= hits / 200 <= 0.99


def test_constant_difference_has_no_width_and_one_pair_is_never_clear():
    found = paired_runs([3.0, 5.0], [1.0, 3.0])
    assert (found.mean, found.low, found.high, found.clear) == (2.0, 2.0, 2.0, True)
    assert not paired_runs([9.0], [1.0]).clear


def test_paired_bootstrap_is_zero_for_equal_runs_and_antisymmetric():
    a = [np.array([1, 0, 1, 1], bool), np.array([0, 0, 1, 1], bool)]
    b = [np.array([1, 0, 0, 0], bool), np.array([0, 1, 1, 0], bool)]
    assert paired_bootstrap(a, a)[:3] == (0.0, 0.0, 0.0)
    assert paired_bootstrap(a, b).mean == -paired_bootstrap(b, a).mean == 25.0


def test_one_run_has_the_width_of_its_videos_and_copies_of_it_no_less():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.7, rng.random(400) < 0.6
    one = paired_bootstrap([a], [b], draws=1500)
    error = 100 * (a.astype(float) - b).std() / np.sqrt(400)  # the central limit's
    assert one.mean == pytest.approx(100 * (a.mean() - b.mean()))
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    five = paired_bootstrap(
        [a] * 5, [b] * 5, draws=1500
    )  # five times the same run on the same videos says no more than one
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.15)
    own = [[(run, video) for video in range(400)] for run in range(5)]
    apart = paired_bootstrap(
        [a] * 5, [b] * 5, own, draws=1500
    )  # five test sets would: (2 - 1/5) / 5 of the variance
    assert apart.high - apart.low == pytest.approx((one.high - one.low) * np.sqrt(0.36), rel=0.15)


def test_clips_of_one_recording_count_as_one():
    rng = np.random.default_rng(0)
    a, b = rng.random(300) < 0.7, rng.random(300) < 0.6
    one = paired_bootstrap([a], [b], draws=1500)
    twice = paired_bootstrap([np.r_[a, a]], [np.r_[b, b]], [[*range(300), *range(300)]], draws=1500)
    assert (twice.low, twice.high) == pytest.approx((one.low, one.high), abs=1e-6)


def test_splits_that_share_videos_are_wider_than_splits_that_do_not():
    rng = np.random.default_rng(0)
    a, b = [rng.random(200) < 0.7] * 2, [rng.random(200) < 0.6] * 2
    width = {
        shared: paired_bootstrap(a, b, [range(200), range(200 - shared, 400 - shared)], draws=1500)
        for shared in (0, 200)
    }
    assert width[200].high - width[200].low > 1.1 * (width[0].high - width[0].low)


def test_bootstrap_over_runs_and_videos_covers_the_true_difference():
    rng, hits = np.random.default_rng(1), 0
    for i in range(120):
        hard = rng.normal(0, 1, 150)  # videos are hard for every run
        runs_a, runs_b = (
            [hard + rng.normal(0, 0.15) + rng.normal(0, 0.5, 150) < z for _ in range(8)]
            for z in (0.8, 0.6)
        )
        found = paired_bootstrap(runs_a, runs_b, draws=250, seed=i)
        hits += found.low <= TRUE_GAP <= found.high
    assert 0.85 <= hits / 120 <= 0.99


def _normal(z):
    from math import erf, sqrt

    return 0.5 * (1 + erf(z / sqrt(2)))


TRUE_GAP = 100 * (
    _normal(0.8 / np.sqrt(1 + 0.15**2 + 0.5**2)) - _normal(0.6 / np.sqrt(1 + 0.15**2 + 0.5**2))
)


def test_directions_weigh_the_same_however_many_runs_they_have():
    a, b = np.ones(10), np.zeros(10)
    found = paired_bootstrap([a, a, a, b], [b, b, b, b], columns=["one", "one", "one", "other"])
    assert (found.mean, found.low, found.high, found.n) == (50.0, 50.0, 50.0, 4)


def test_runs_of_one_test_set_must_have_its_videos():
    with pytest.raises(ValueError):
        paired_bootstrap([np.ones(3), np.ones(4)], [np.zeros(3), np.zeros(4)])
    with pytest.raises(ValueError, match="no paired runs"):
        paired_bootstrap([], [])


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 2))
def test_every_accuracy_is_reachable_however_it_is_printed(n, k, decimals):
    k = min(k, n)
    assert grim_test(round(100 * k / n, decimals), n, decimals)
    assert grim_test(100 * 10**decimals * k // n / 10**decimals, n, decimals)  # cut off


@given(st.integers(1, 400), st.integers(0, 1000))
def test_grim_test_against_a_loop(n, tenths):
    slow = any(tenths - 0.5 <= 1000 * k / n < tenths + 1 - 1e-12 for k in range(n + 1))
    assert grim_test(tenths / 10, n) == slow


def test_numbers_that_no_test_set_of_that_size_gives():
    assert not grim_test(97.7, 189) and not grim_test(99.3, 189) and not grim_test(91.6, 54)
    assert (
        grim_test(99.5, 189)
        and grim_test(98.1, 54)
        and grim_test(80.0, 360)
        and grim_test(74.1, 360)
    )
    assert grim_neighbours(97.7, 189) == (100 * 184 / 189, 100 * 185 / 189)
    assert grim_neighbours(100.0, 54) == (100.0, 100.0)


def test_accuracy_against_a_loop():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert top1(predicted, labels) == 50.0
    assert per_class(predicted, labels, 4)[:3] == [50.0, 100.0, 0.0]
    assert np.isnan(per_class(predicted, labels, 4)[3])
    slow = np.zeros((3, 3), int)
    for t, p in zip(labels, predicted):
        slow[t, p] += 1
    assert (confusion(predicted, labels, 3) == slow).all()
