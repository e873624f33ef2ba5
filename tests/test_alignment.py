"""Eqs. (5)-(8) against slow loops in python floats, closed forms, invariances and gradcheck."""

from __future__ import annotations

import math

import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.losses.alignment import (
    VideoFeatures,
    class_mask,
    discrepancy,
    gaussian_mixture_kernel,
    pair_distances,
    pair_kernel,
    relation,
    relation_within,
    squared_distances,
    vca,
)

C, K, D = 3, 2, 4
YS = torch.tensor([0, 0, 1, 2, 1, 2, 0])
YT = torch.tensor([1, 0, 0, 2, 2, -1])  # one target video is left out


def features(n, seed, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return VideoFeatures(
        torch.randn(n, K, D, generator=g, dtype=torch.float64) + shift,
        torch.randn(n, D, generator=g, dtype=torch.float64) + shift,
    )


@pytest.fixture
def pair():
    return features(len(YS), 0), features(len(YT), 1, 0.5)


# --- the slow twin: lists, loops, no tensor algebra ----------------------------------------------
def slow_d2(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def slow_level_distances(a, b, level):
    """Squared distances of all clip pairs, or of the videos, of two a = (clips, video)."""
    return [slow_d2(x, y) for x in a[0] for y in b[0]] if level == "clip" else [slow_d2(a[1], b[1])]


def slow_gamma(source, target, level):
    points = source + target
    values = [
        sum(d) / len(d) for d in (slow_level_distances(a, b, level) for a in points for b in points)
    ]
    return sum(values) / len(values)


def slow_kernel(a, b, gammas):
    total = 0.0
    for level, gamma in gammas.items():
        d2 = slow_level_distances(a, b, level)
        total += sum(math.exp(-d / (gamma * 2 ** (u - 2))) for d in d2 for u in range(5)) / len(d2)
    return total


def slow_relation(first, y1, second, y2, c1, c2, gammas):
    values = [
        slow_kernel(a, b, gammas)
        for a, la in zip(first, y1, strict=True)
        for b, lb in zip(second, y2, strict=True)
        if la == c1 and lb == c2
    ]
    return sum(values) / len(values)


def as_lists(f):
    return [(f.v[n].tolist(), f.V[n].tolist()) for n in range(len(f.V))]


def slow_discrepancy(pair, ys, yt, c1, c2, levels=("clip", "video"), scope="classpair"):
    s, t = as_lists(pair[0]), as_lists(pair[1])
    ys, yt = ys.tolist(), yt.tolist()
    own = (
        [x for x, y in zip(s, ys, strict=True) if y == c1],
        [x for x, y in zip(t, yt, strict=True) if y == c2],
    )
    inside = own if scope == "classpair" else (s, t)
    gammas = {level: slow_gamma(*inside, level) for level in levels}
    gammas = dict.fromkeys(levels, sum(gammas.values()) / len(gammas))
    return (
        slow_relation(s, ys, s, ys, c1, c1, gammas)
        + slow_relation(t, yt, t, yt, c2, c2, gammas)
        - 2 * slow_relation(s, ys, t, yt, c1, c2, gammas)
    )


# --- agreement -----------------------------------------------------------------------------------
def test_kernel_by_hand():
    d2 = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)
    slow = [sum(math.exp(-d / (2.0 * 2 ** (u - 2))) for u in range(5)) for d in d2.tolist()]
    assert gaussian_mixture_kernel(d2, 2.0).tolist() == pytest.approx(slow, abs=1e-12)
    assert gaussian_mixture_kernel(d2, 0.0).tolist() == [5.0, 0.0, 0.0]  # no division by zero


def test_distances_survive_a_large_common_offset():
    a, b = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3)
    assert squared_distances(a + 1000, b + 1000).allclose(
        squared_distances(a, b), rtol=1e-3, atol=1e-3
    )


def test_eq6_mask():
    Ys, Yt = class_mask(YS, C), class_mask(YT, C)
    for c1 in range(C):
        for c2 in range(C):
            slow = [[a == c1 and b == c2 for b in YT.tolist()] for a in YS.tolist()]
            assert (Ys[:, c1].unsqueeze(1) & Yt[:, c2].unsqueeze(0)).tolist() == slow


def test_eq5_relation(pair):
    gammas = {"clip": 3.0, "video": 3.0}
    kernel = pair_kernel(pair_distances(*pair), torch.tensor(3.0))
    found = relation(kernel, class_mask(YS, C + 1), class_mask(YT, C + 1))
    source, target = as_lists(pair[0]), as_lists(pair[1])
    for c1 in range(C):
        for c2 in range(C):
            slow = slow_relation(source, YS.tolist(), target, YT.tolist(), c1, c2, gammas)
            assert abs(found[c1, c2].item() - slow) < 1e-10
    assert found[0, C] == found[C, 0] == 0  # a class without samples


def test_eq5_inside_a_domain_uses_the_bandwidth_of_every_pair(pair):
    gamma = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], dtype=torch.float64)
    source, y = as_lists(pair[0]), YS.tolist()
    distances = pair_distances(pair[0], pair[0])
    found = relation_within(distances, gamma, YS, class_mask(YS, C))
    for c in range(C):
        for other in range(C):
            gammas = dict.fromkeys(("clip", "video"), gamma[c, other].item())
            slow = slow_relation(source, y, source, y, c, c, gammas)
            assert abs(found[c, other].item() - slow) < 1e-10


@pytest.mark.parametrize("levels", [("clip", "video"), ("clip",), ("video",)])
@pytest.mark.parametrize("scope", ["classpair", "batch"])
def test_eq7_discrepancy(pair, levels, scope):
    found = discrepancy(pair, YS, YT, C, levels=levels, gamma_scope=scope)
    for c1 in range(C):
        for c2 in range(C):
            slow = slow_discrepancy(pair, YS, YT, c1, c2, levels, scope)
            assert abs(found[c1, c2].item() - slow) < 1e-10


@pytest.mark.parametrize("scope", ["classpair", "batch"])
def test_eq8(pair, scope):
    D_ = {
        (a, b): slow_discrepancy(pair, YS, YT, a, b, scope=scope)
        for a in range(C)
        for b in range(C)
    }
    intra = sum(D_[c, c] for c in range(C)) / C
    inter = sum(sum(D_[c, o] for o in range(C) if o != c) / (C - 1) for c in range(C)) / C
    result = vca(pair, YS, YT, C, gamma_scope=scope)
    assert abs(result.intra.item() - intra) < 1e-10
    assert abs(result.inter.item() - inter) < 1e-10
    assert abs(result.total.item() - (intra - inter)) < 1e-10


# --- invariances ---------------------------------------------------------------------------------
def test_identical_domains_have_no_intra_discrepancy(pair):
    same = (pair[0], pair[0])
    assert discrepancy(same, YS, YS, C).diagonal().abs().max() < 1e-12
    assert vca(same, YS, YS, C).intra.abs() < 1e-12


def test_symmetric_in_the_domains(pair):
    D_ = discrepancy(pair, YS, YT, C)
    swapped = discrepancy((pair[1], pair[0]), YT, YS, C)
    assert swapped.allclose(D_.T, atol=1e-12)
    assert vca((pair[1], pair[0]), YT, YS, C).total.allclose(vca(pair, YS, YT, C).total, atol=1e-12)


def test_intra_grows_with_the_shift():
    source = features(9, 0)
    y = torch.arange(9) % C
    values = [
        vca((source, VideoFeatures(source.v + s, source.V + s)), y, y, C).intra.item()
        for s in (0, 0.3, 1, 3, 10)
    ]
    assert values == sorted(values) and values[0] < 1e-12 < values[1]


def test_unchanged_by_a_common_shift_rotation_and_scale(pair):
    q = torch.linalg.qr(
        torch.randn(D, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    )[0]
    moved = tuple(VideoFeatures(7 * f.v @ q + 3, 7 * f.V @ q + 3) for f in pair)
    assert vca(moved, YS, YT, C).total.allclose(vca(pair, YS, YT, C).total, atol=1e-10)


def test_unchanged_by_the_order_of_videos_clips_and_classes(pair):
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    shuffled = VideoFeatures(pair[0].v[order].flip(1), pair[0].V[order])
    base = vca(pair, YS, YT, C).total
    assert vca((shuffled, pair[1]), YS[order], YT, C).total.allclose(base, atol=1e-12)
    rename = torch.tensor([2, 0, 1, -1])  # the last entry keeps -1
    assert vca(pair, rename[YS], rename[YT], C).total.allclose(base, atol=1e-12)


def test_missing_classes_take_no_part(pair):
    """Class 3 exists nowhere, class 4 in the source only: the others decide alone."""
    extra = VideoFeatures(
        torch.cat([pair[0].v, pair[0].v[:1] + 5]), torch.cat([pair[0].V, pair[0].V[:1] + 5])
    )
    base = vca(pair, YS, YT, C)
    wide = vca((extra, pair[1]), torch.cat([YS, torch.tensor([4])]), YT, 5)
    assert wide.total.allclose(base.total, atol=1e-12) and wide.inter.allclose(
        base.inter, atol=1e-12
    )


@pytest.mark.parametrize(("ys", "yt"), [([0, 0], [1, 1]), ([0, 1], [-1, -1])])
def test_no_common_class_is_zero_with_zero_gradient(ys, yt):
    pair = features(2, 0), features(2, 1)
    for t in (*pair[0], *pair[1]):
        t.requires_grad_()
    result = vca(pair, torch.tensor(ys), torch.tensor(yt), C)
    result.total.backward()
    assert result.total.item() == 0
    assert all(torch.equal(t.grad, torch.zeros_like(t)) for t in (*pair[0], *pair[1]))


def test_one_common_class_has_no_inter_term():
    result = vca((features(2, 0), features(2, 1)), torch.tensor([0, 0]), torch.tensor([0, 0]), C)
    assert result.inter.item() == 0 and result.intra.item() > 0


def test_collapsed_features_stay_finite():
    point = VideoFeatures(torch.zeros(4, K, D), torch.zeros(4, D))
    point.v.requires_grad_()
    y = torch.tensor([0, 1, 0, 1])
    result = vca((point, point), y, y, 2)
    result.total.backward()
    assert torch.isfinite(result.total) and torch.isfinite(point.v.grad).all()


@pytest.mark.parametrize("scope", ["classpair", "batch"])
def test_gradcheck_with_the_bandwidth_held(pair, scope, monkeypatch):
    """The bandwidth is a constant for the gradient, so the finite differences hold it too."""
    from nbkit.losses import alignment

    ys, yt = torch.tensor([0, 0, 1]), torch.tensor([1, 0, 0])
    small = tuple(VideoFeatures(f.v[:3, :, :2], f.V[:3, :2]) for f in pair)
    held = []
    real = alignment.bandwidths

    def once(*args, **kwargs):
        if not held:
            held.append(real(*args, **kwargs))
        return held[0]

    monkeypatch.setattr(alignment, "bandwidths", once)

    def f(vs, Vs, vt, Vt):
        return vca(
            (VideoFeatures(vs, Vs), VideoFeatures(vt, Vt)), ys, yt, C, gamma_scope=scope
        ).total

    assert torch.autograd.gradcheck(f, [t.clone().requires_grad_() for t in (*small[0], *small[1])])


def test_descent_pulls_the_domains_together():
    source = features(12, 0)
    y = torch.arange(12) % C
    v, V = (source.v + 2).requires_grad_(), (source.V + 2).requires_grad_()
    optimizer = torch.optim.Adam([v, V], lr=0.2)
    first = vca((source, VideoFeatures(v, V)), y, y, C)
    for _ in range(20):
        optimizer.zero_grad()
        vca((source, VideoFeatures(v, V)), y, y, C).total.backward()
        optimizer.step()
    last = vca((source, VideoFeatures(v, V)), y, y, C)
    assert last.intra < 0.7 * first.intra and last.total < first.total


def test_mistakes_are_named(pair):
    with pytest.raises(NbkitError, match="levels"):
        vca(pair, YS, YT, C, levels=("clips",))
    with pytest.raises(NbkitError, match="gamma_scope"):
        vca(pair, YS, YT, C, gamma_scope="class")
    with pytest.raises(NbkitError, match=r"\(N, K, D\)"):
        vca((VideoFeatures(pair[0].V, pair[0].V), pair[1]), YS, YT, C)
