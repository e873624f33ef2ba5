import numpy as np
import pytest

from nbkit.evaluate.accuracy import confusion, per_class, top1
from nbkit.evaluate.statistics import mean_sd, one_video, paired_bootstrap, paired_runs


def test_mean_sd_closed_form():
    assert mean_sd([1.0, 3.0]) == (2.0, pytest.approx(2**0.5), 2)
    assert np.isnan(mean_sd([1.0])[1])


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


def test_accuracy_against_a_loop():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert top1(predicted, labels) == 50.0
    assert per_class(predicted, labels, 4)[:3] == [50.0, 100.0, 0.0]
    assert np.isnan(per_class(predicted, labels, 4)[3])
    slow = np.zeros((3, 3), int)
    for t, p in zip(labels, predicted):
        slow[t, p] += 1
    assert (confusion(predicted, labels, 3) == slow).all()
