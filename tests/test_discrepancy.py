"""MMD and classifier discrepancy: slow loops of the public codes' formulas, closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.losses import discrepancy
from nbkit.losses.discrepancy import classifier_discrepancy, mk_mmd


def sample(n, d=3, seed=0, shift=0.0):
    return (
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        + shift
    )


def ta3n_mmd(source, target, num=5, mul=2.0):
    """TA3N's public code (loss.py, mmd_rbf, ver = 2), in loops, for samples of equal size."""
    points = source.tolist() + target.tolist()
    n, b = len(points), len(source)
    d2 = [[sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for q in points] for p in points]
    bandwidth = sum(map(sum, d2)) / (n * n - n) / mul ** (num // 2)
    k = [[sum(math.exp(-d / (bandwidth * mul**i)) for i in range(num)) for d in row] for row in d2]
    terms = [
        k[i][j] + k[b + i][b + j] - k[i][b + j] - k[b + i][j] for i in range(b) for j in range(b)
    ]
    return sum(terms) / len(terms)


def test_mmd_is_that_of_ta3ns_code():
    s, t = sample(5), sample(5, seed=1, shift=0.7)
    assert mk_mmd(s, t).item() == pytest.approx(ta3n_mmd(s, t), abs=1e-12)


def test_mmd_by_hand_and_its_closed_forms():
    s, t = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    expected = 2 * 5 - 2 * sum(
        math.exp(-25 / (25 * 2.0 ** (u - 2))) for u in range(5)
    )  # one pair: its bandwidth is itself
    assert mk_mmd(s, t).item() == pytest.approx(expected, abs=1e-12)
    assert mk_mmd(s, s).item() == 0
    x = sample(6)
    assert mk_mmd(x, x[torch.randperm(6)]).item() == pytest.approx(0, abs=1e-12)
    assert mk_mmd(x, x.repeat(2, 1)).item() == pytest.approx(0, abs=1e-12)  # sizes may differ


def test_mmd_invariances():
    s, t = sample(4), sample(7, seed=1, shift=0.5)
    value = mk_mmd(s, t)
    turn = torch.linalg.qr(sample(3, seed=2)).Q
    for a, b in (
        (t, s),
        (s.flip(0), t.roll(2, 0)),
        (s + 9, t + 9),
        (s @ turn, t @ turn),
        (5 * s, 5 * t),
    ):
        assert mk_mmd(a, b).item() == pytest.approx(value.item(), abs=1e-10)


def test_mmd_grows_with_the_shift_within_its_bounds():
    values = [
        mk_mmd(sample(8), sample(8, seed=1, shift=shift)).item() for shift in (0.0, 1.0, 2.0, 40.0)
    ]
    assert values == sorted(values) and 0 <= values[0] and values[-1] <= 10


def test_mmd_gradcheck_with_the_bandwidth_held(monkeypatch):
    """The bandwidth is a constant for the gradient, so the finite differences hold it too."""
    real = discrepancy.gaussian_mixture_kernel
    monkeypatch.setattr(discrepancy, "gaussian_mixture_kernel", lambda d2, gamma: real(d2, 1.7))
    assert torch.autograd.gradcheck(
        mk_mmd, (sample(3).requires_grad_(), sample(4, seed=1).requires_grad_())
    )


def test_mmd_of_collapsed_features_stays_finite():
    x = torch.zeros(4, 3, requires_grad=True)
    mk_mmd(x, torch.zeros(2, 3)).backward()
    assert torch.isfinite(x.grad).all()


def test_mmd_names_an_empty_domain():
    with pytest.raises(NbkitError, match="0 source, 4 target"):
        mk_mmd(sample(0), sample(4))


def test_classifier_discrepancy_is_that_of_the_public_codes():
    """The mean of |softmax - softmax|: TA3N's dis_MCD, and the image library's."""
    z1, z2 = sample(4, 5), sample(4, 5, seed=1)
    slow = 0.0
    for a, b in zip(z1.tolist(), z2.tolist(), strict=True):
        pa, pb = ([math.exp(x) / sum(map(math.exp, z)) for x in z] for z in (a, b))
        slow += sum(abs(x - y) for x, y in zip(pa, pb, strict=True)) / 5 / 4
    assert classifier_discrepancy(z1, z2).item() == pytest.approx(slow, abs=1e-12)
    assert classifier_discrepancy(z2, z1) == classifier_discrepancy(z1, z2)
    assert classifier_discrepancy(z1, z1 + 7).item() == pytest.approx(0, abs=1e-12)
    sure = 60 * torch.eye(5)
    assert classifier_discrepancy(sure, sure.roll(1, 0)).item() == pytest.approx(2 / 5)
    assert torch.autograd.gradcheck(
        classifier_discrepancy, (z1.requires_grad_(), z2.requires_grad_())
    )
