"""Localization losses: Eqs. (1)-(7) against slow loops, closed forms and gradcheck."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from nbkit.errors import NbkitError
from nbkit.losses import adversarial as A

D = torch.float64


def logits(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed)) * 2


def test_gradient_reversal_is_identity_forward_and_minus_beta_backward():
    x = logits(5, 3).requires_grad_()
    weight = logits(5, 3, seed=1)
    plain = torch.autograd.grad((x.sin() * weight).sum(), x)[0]
    for beta in (0.0, 0.3, 1.0, 4.0):
        y = A.gradient_reversal(x, beta)
        assert torch.equal(y, x)
        assert torch.allclose(
            torch.autograd.grad((y.sin() * weight).sum(), x)[0], -beta * plain, atol=0, rtol=1e-12
        )


def test_beta_and_lambda_are_two_things():
    """beta scales only the features' gradient; lambda scales the discriminator's too."""

    def gradients(beta, lam):
        feature, weight = (
            torch.ones(1, dtype=D, requires_grad=True),
            torch.full((1,), 0.7, dtype=D, requires_grad=True),
        )
        logit = A.gradient_reversal(feature, beta) * weight
        A.localization_objective(
            torch.zeros((), dtype=D), A.spatial_image_loss(logit, logit - 1, 0.0), lam
        ).backward()
        return feature.grad.item(), weight.grad.item()

    f0, w0 = gradients(1.0, 1.0)
    f1, w1 = gradients(0.1, 1.0)
    f2, w2 = gradients(1.0, 0.1)
    assert (f1, w1) == (pytest.approx(0.1 * f0), pytest.approx(w0))
    assert (f2, w2) == (pytest.approx(0.1 * f0), pytest.approx(0.1 * w0))


def test_ramp():
    assert (
        A.ramp(0) == 0
        and A.ramp(1) == pytest.approx(math.tanh(5))
        and 0 < A.ramp(0.1) < A.ramp(0.2)
    )


@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.0, 5.0])
def test_focal_slow_loop(gamma):
    s, t = logits(4), logits(3, seed=1)
    slow = 0.0
    for x in s.tolist():
        p = 1 / (1 + math.exp(-x))
        slow -= p**gamma * math.log(1 - p) / 4
    for x in t.tolist():
        p = 1 / (1 + math.exp(-x))
        slow -= (1 - p) ** gamma * math.log(p) / 3
    assert A.spatial_image_loss(s, t, gamma).item() == pytest.approx(slow, rel=1e-12)


def test_focal_gamma_zero_is_the_bce_of_eq_4():
    s, t = logits(4), logits(6, seed=1)
    bce = A.temporal_image_loss(s[:, None, None], t[:, None, None], "sum")
    assert A.spatial_image_loss(s, t, 0.0).item() == pytest.approx(bce.item(), rel=1e-12)
    torch_bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert bce.item() == pytest.approx(
        (torch_bce(s, 0 * s) + torch_bce(t, 0 * t + 1)).item(), rel=1e-12
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0, 5.0])
def test_focal_hand_value_at_one_half(gamma):
    zero = torch.zeros(2, dtype=D)
    assert A.focal_source(zero, gamma).item() == pytest.approx(0.5**gamma * math.log(2))
    assert A.focal_target(zero, gamma).item() == pytest.approx(0.5**gamma * math.log(2))


def test_focal_ignores_frames_already_told_apart():
    sure, unsure = torch.tensor([-6.0], dtype=D), torch.tensor([0.0], dtype=D)

    def ratio(gamma):
        return (A.focal_source(sure, gamma) / A.focal_source(unsure, gamma)).item()

    assert ratio(5.0) < 1e-10 < ratio(0.0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_eq_4_slow_loop(reduction):
    s, t = logits(2, 1, 3, 4), logits(3, 1, 2, 5, seed=1)
    slow = 0.0
    for maps, d in ((s, 0), (t, 1)):
        n, _, height, width = maps.shape
        for i in range(n):
            for h in range(height):
                for w in range(width):
                    q = 1 / (1 + math.exp(-maps[i, 0, h, w].item()))
                    term = -(d * math.log(q) if d else (1 - d) * math.log(1 - q))
                    slow += term / n / (1 if reduction == "sum" else height * width)
    assert A.temporal_image_loss(s, t, reduction).item() == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_eq_5_slow_loop_with_ragged_proposals(reduction):
    s, t = [logits(3), logits(5, seed=1), logits(0, seed=2)], [logits(4, seed=3), logits(1, seed=4)]
    slow = 0.0
    for side, sign in ((s, 1), (t, -1)):
        for r in side:
            for x in r.tolist():
                slow += (
                    math.log1p(math.exp(sign * x))
                    / len(side)
                    / (1 if reduction == "sum" else len(r))
                )
    assert A.temporal_instance_loss(s, t, reduction).item() == pytest.approx(slow, rel=1e-12)


def test_undecided_discriminator_closed_form():
    zero = torch.zeros(2, 1, 15, 20, dtype=D)
    assert A.temporal_image_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert A.temporal_image_loss(zero, zero, "sum").item() == pytest.approx(600 * math.log(2))
    rois = [torch.zeros(128, dtype=D)] * 2
    assert A.temporal_instance_loss(rois, rois, "sum").item() == pytest.approx(256 * math.log(2))


def test_domains_are_symmetric():
    s, t = logits(2, 3, 3), logits(4, 3, 3, seed=1)
    assert torch.allclose(A.temporal_image_loss(s, t), A.temporal_image_loss(-t, -s))
    assert torch.allclose(
        A.spatial_image_loss(s[:, 0, 0], t[:, 0, 0]), A.spatial_image_loss(-t[:, 0, 0], -s[:, 0, 0])
    )


def test_confident_discriminators_stay_finite():
    big = torch.tensor([200.0], requires_grad=True)
    for loss in (
        A.spatial_image_loss(big, -big),
        A.temporal_image_loss(big[:, None], -big[:, None]),
        A.temporal_instance_loss([big], [-big]),
    ):
        assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, big)[0]).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradcheck(reduction):
    def image(a, b):
        return A.spatial_image_loss(a.flatten(), b.flatten(), 3.0)

    def frames(a, b):
        return A.temporal_image_loss(a[..., None], b[..., None], reduction)

    def instances(a, b):
        return A.temporal_instance_loss(list(a), list(b), reduction)

    s, t = logits(3, 4).requires_grad_(), logits(2, 4, seed=1).requires_grad_()
    assert gradcheck(image, (s, t)) and gradcheck(frames, (s, t)) and gradcheck(instances, (s, t))


def test_eq_6_is_the_plain_sum_of_any_subset():
    terms = {name: torch.tensor(float(i + 1)) for i, name in enumerate(A.MODULES)}
    assert A.adversarial_loss(terms) == 6
    assert A.adversarial_loss({"s_img": terms["s_img"], "t_img": terms["t_img"]}) == 4
    for bad in ({}, {"t_image": terms["t_img"]}):
        with pytest.raises(NbkitError, match="t_img"):
            A.adversarial_loss(bad)


def test_eqs_1_and_7():
    one = torch.tensor(1.0)
    assert A.action_loss(one, 2 * one, 3 * one, 4 * one) == 10
    assert A.localization_objective(one, 3 * one, 0.1) == pytest.approx(1.3)
    assert A.localization_objective(one, 3 * one, 0.0) == one


def test_bad_arguments_name_the_way_out():
    with pytest.raises(NbkitError, match="'mean' or 'sum'"):
        A.temporal_image_loss(logits(1, 2), logits(1, 2), "max")
    with pytest.raises(NbkitError, match="0 target"):
        A.temporal_instance_loss([logits(2)], [])
