"""Four numbers on two domains' features: closed forms, slow twins, invariances."""

import graders
import numpy as np
import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.evaluate.separability import (
    class_gaps,
    nearest_class_mean,
    proxy_a_distance,
    silhouette_by_class,
    unit_joined,
)
from nbkit.losses.alignment import VideoFeatures, discrepancy


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- A-distance ----------------------------------------------------------------------------------
def test_a_distance_is_two_when_a_line_separates_the_domains(rng):
    a, b = rng.normal(size=(60, 5)), rng.normal(size=(40, 5)) + 20
    assert proxy_a_distance(a, b) == 2.0


def test_a_distance_is_near_zero_for_two_samples_of_one_distribution(rng):
    assert proxy_a_distance(rng.normal(size=(600, 3)), rng.normal(size=(600, 3))) < 0.25


def test_a_distance_of_gaussians_a_known_step_apart(rng):
    from math import erf, sqrt

    step = 2.0  # the best line errs with probability Phi(-step / 2) on either side
    error = 0.5 * (1 + erf(-step / 2 / sqrt(2)))
    a, b = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2)) + [step, 0]
    assert proxy_a_distance(a, b) == pytest.approx(2 * (1 - 2 * error), abs=0.08)


def test_a_distance_does_not_reward_unequal_sizes(rng):
    """A classifier that always says 'source' is right for 95 % of these, and has learnt nothing."""
    assert proxy_a_distance(rng.normal(size=(1900, 2)), rng.normal(size=(100, 2))) < 0.35


def test_a_distance_ignores_scale_shift_and_which_domain_is_which(rng):
    a, b = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 0.8
    reference = proxy_a_distance(a, b)
    assert 0.3 < reference < 1.9
    scale, shift = np.array([1e-3, 1.0, 50.0, 7.0]), np.array([5.0, -3.0, 0.0, 100.0])
    assert proxy_a_distance(a * scale + shift, b * scale + shift) == pytest.approx(
        reference, abs=1e-9
    )
    assert proxy_a_distance(b, a) == pytest.approx(reference, abs=0.1)  # other folds
    assert proxy_a_distance(a, b) == reference  # seeded


def test_a_distance_refuses_what_it_cannot_cross_validate(rng):
    with pytest.raises(NbkitError, match="two samples"):
        proxy_a_distance(rng.normal(size=(9, 2)), rng.normal(size=(1, 2)))
    with pytest.raises(NbkitError, match="one width"):
        proxy_a_distance(rng.normal(size=(9, 2)), rng.normal(size=(9, 3)))


# --- silhouette ----------------------------------------------------------------------------------
def slow_silhouette(x, y, classes):
    each = []
    for i in range(len(x)):
        distance = [np.linalg.norm(x[i] - x[j]) for j in range(len(x))]
        own = [distance[j] for j in range(len(x)) if y[j] == y[i] and j != i]
        others = [
            np.mean([distance[j] for j in range(len(x)) if y[j] == c]) for c in set(y) - {y[i]}
        ]
        a, b = np.mean(own) if own else 0.0, min(others)
        each.append((b - a) / max(a, b) if own else 0.0)
    return [
        np.mean([s for s, label in zip(each, y) if label == c]) if c in y else np.nan
        for c in range(classes)
    ]


def test_silhouette_equals_the_slow_loop_and_leaves_absent_classes_out(rng):
    x, y = (
        rng.normal(size=(14, 3)),
        np.array([0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 4]),
    )  # no class 2, one of class 4
    found = silhouette_by_class(x, y, 5)
    np.testing.assert_allclose(found, slow_silhouette(x, y.tolist(), 5), atol=1e-12)
    assert np.isnan(found[2]) and found[4] == 0


def test_silhouette_of_points_and_of_swapped_classes():
    x, y = np.repeat([[0.0], [1.0]], 5, axis=0), np.repeat([0, 1], 5)
    np.testing.assert_allclose(
        silhouette_by_class(x, y, 2), 1.0
    )  # two points, far apart by any measure
    x = np.array([[0.0], [10.0], [0.0], [10.0]])
    np.testing.assert_allclose(
        silhouette_by_class(x, np.array([0, 0, 1, 1]), 2), -0.5
    )  # a = 10, b = 5


def test_silhouette_survives_rotation_scale_and_order(rng):
    x, y = rng.normal(size=(30, 4)), np.arange(30) % 3
    q, order = np.linalg.qr(rng.normal(size=(4, 4)))[0], rng.permutation(30)
    np.testing.assert_allclose(
        silhouette_by_class(5 * x[order] @ q + 3, y[order], 3),
        silhouette_by_class(x, y, 3),
        atol=1e-9,
    )


@pytest.mark.parametrize("y", ([0, 0, 0], [0, 1, 2]))
def test_silhouette_needs_something_to_compare(y):
    with pytest.raises(NbkitError, match="2 classes"):
        silhouette_by_class(np.eye(3), np.array(y), 3)


# --- class gaps ----------------------------------------------------------------------------------
def features(n, seed, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return VideoFeatures(
        *(
            torch.randn(*shape, generator=g, dtype=torch.float64) + shift
            for shape in ((n, 3, 4), (n, 4))
        )
    )


def test_gaps_are_equation_7_on_the_diagonal():
    source, target = features(9, 0), features(7, 1, 1.0)
    ys, yt = torch.arange(9) % 3, torch.arange(7) % 3
    expected = discrepancy((source, target), ys, yt, 3).diagonal()
    np.testing.assert_allclose(class_gaps(source, target, ys, yt, 3), expected, atol=1e-12)


def test_gaps_are_zero_between_a_set_and_itself_and_grow_with_a_shift():
    source, y = features(12, 0), torch.arange(12) % 3
    np.testing.assert_allclose(class_gaps(source, source, y, y, 3), 0, atol=1e-12)
    near, far = (
        class_gaps(source, VideoFeatures(source.v + d, source.V + d), y, y, 3) for d in (0.5, 3.0)
    )
    assert (0 < near).all() and (near < far).all()


def test_gaps_ignore_scale_and_order_and_name_absent_classes():
    source, target, ys, yt = (
        features(10, 2),
        features(8, 3, 0.5),
        torch.arange(10) % 2,
        torch.arange(8) % 2,
    )
    found = class_gaps(source, target, ys, yt, 3)
    assert np.isnan(found[2])
    p = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    scaled = class_gaps(
        VideoFeatures(7 * source.v, 7 * source.V),
        VideoFeatures(7 * target.v[p], 7 * target.V[p]),
        ys,
        yt[p],
        3,
    )
    np.testing.assert_allclose(scaled, found, atol=1e-9)


# --- nearest class mean --------------------------------------------------------------------------
def test_nearest_class_mean_equals_the_slow_loop(rng):
    x, y, t = (
        rng.normal(size=(20, 3)),
        np.arange(20) % 4 * 2,
        rng.normal(size=(15, 3)),
    )  # classes 0, 2, 4, 6
    means = {c: x[y == c].mean(0) for c in (0, 2, 4, 6)}
    expected = [min(means, key=lambda c: np.linalg.norm(v - means[c])) for v in t]
    assert nearest_class_mean(x, y, t).tolist() == expected


def test_nearest_class_mean_of_the_means_themselves_and_after_a_common_move(rng):
    x, y, t = (
        rng.normal(size=(40, 3)) + 9 * np.eye(3)[np.arange(40) % 3],
        np.arange(40) % 3,
        rng.normal(size=(11, 3)),
    )
    assert nearest_class_mean(x, y, 9 * np.eye(3)).tolist() == [0, 1, 2]
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert (nearest_class_mean(x @ q + 5, y, t @ q + 5) == nearest_class_mean(x, y, t)).all()


# --- features ------------------------------------------------------------------------------------
def test_joined_streams_weigh_the_same_whatever_their_lengths():
    rgb, flow = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    joined = unit_joined({"rgb": rgb, "flow": 1000 * flow})
    assert joined.shape == (5, 2, 6)
    torch.testing.assert_close(
        joined.square().sum(-1), torch.full((5, 2), 2.0, dtype=torch.float64)
    )
    torch.testing.assert_close(joined, unit_joined({"rgb": 3 * rgb, "flow": flow}))


# --- exercises -----------------------------------------------------------------------------------
def good_silhouette(d, y, own):
    a, b = d[y == own].mean(), min(d[y == c].mean() for c in set(y.tolist()) - {own})
    return (b - a) / max(a, b)


@pytest.mark.parametrize(
    ("grade", "solution", "mistake"),
    [
        (
            graders.perplexity,
            lambda p: 2 ** -(p[p > 0] * np.log2(p[p > 0])).sum(),
            lambda p: 2 ** -(p * np.log2(p)).mean(),
        ),
        (
            graders.silhouette,
            good_silhouette,
            lambda d, y, own: 1 - d[y == own].mean() / d[y != own].mean(),
        ),
    ],
)
def test_graders(grade, solution, mistake):
    assert grade(solution) is True and grade(lambda *arguments: None) is None
    with np.errstate(all="ignore"):
        assert grade(mistake) is False
