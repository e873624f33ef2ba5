"""Eqs. (1)-(4) against slow loops, hand values, invariances and gradcheck."""

from __future__ import annotations

import math

import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.losses.contrastive import (
    chance_level,
    clip_loss,
    contrastive_loss,
    log_theta,
    video_loss,
)

B, K, D, k = 3, 3, 5, 4
TAU = 0.2


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_theta(a, b, tau):
    a, b = a.tolist(), b.tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return math.exp(dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b)) / tau)


@pytest.fixture
def parts():
    return {
        "v1": rand(B, K, D),
        "V1": rand(B, D, seed=1),
        "v2": rand(B, K, D, seed=2),
        "bank2": rand(B, K, k, D, seed=3),
        "neg1": rand(B, K, D, seed=4),
        "neg_bank1": rand(B, K, k, D, seed=5),
    }


def slow_clip_loss(p, b, i, multi_pos="sum_in_log"):
    anchor = p["v1"][b, i]
    video, view = slow_theta(anchor, p["V1"][b], TAU), slow_theta(anchor, p["v2"][b, i], TAU)
    denominator = video + view + slow_theta(anchor, p["neg1"][b, i], TAU)
    for j in range(k):
        denominator += slow_theta(anchor, p["bank2"][b, i, j], TAU) + slow_theta(
            anchor, p["neg_bank1"][b, i, j], TAU
        )
    if multi_pos == "sum_in_log":
        return -math.log((video + view) / denominator)
    return -(math.log(video / denominator) + math.log(view / denominator)) / 2


def test_eq3_theta():
    a, b = rand(4, D), rand(4, D, seed=1)
    for n in range(4):
        theta = log_theta(a, b, TAU)[n].exp().item()
        assert theta == pytest.approx(slow_theta(a[n], b[n], TAU), rel=1e-12)
    largest = torch.full((4,), 1 / TAU, dtype=torch.float64)
    assert log_theta(a, a, TAU).allclose(largest)
    assert log_theta(a, -a, TAU).allclose(-largest)
    assert log_theta(3 * a, 0.1 * b, TAU).allclose(log_theta(a, b, TAU))  # lengths do not count
    assert log_theta(a[:, None], b[None], TAU).shape == (4, 4)
    with pytest.raises(NbkitError, match="tau"):
        log_theta(a, b, 0.0)


@pytest.mark.parametrize("multi_pos", ["sum_in_log", "mean_of_logs"])
def test_eq1_against_slow_loop(parts, multi_pos):
    fast = clip_loss(**parts, tau=TAU, multi_pos=multi_pos)
    slow = torch.tensor(
        [[slow_clip_loss(parts, b, i, multi_pos) for i in range(K)] for b in range(B)]
    )
    assert fast.shape == (B, K)
    assert (fast - slow.double()).abs().max() < 1e-6  # python floats became float32 in torch.tensor
    for b in range(B):
        for i in range(K):
            assert abs(fast[b, i].item() - slow_clip_loss(parts, b, i, multi_pos)) < 1e-10


def test_eq1_by_hand():
    """k = 2, d = 2, tau = 1: cosines 0 and +-1 only."""
    e, n = [1.0, 0.0], [0.0, 1.0]
    v1 = torch.tensor([[e]])
    loss = clip_loss(
        v1,
        torch.tensor([n]),
        torch.tensor([[e]]),
        torch.tensor([[[n, n]]]),
        torch.tensor([[[-1.0, 0.0]]]),
        torch.tensor([[[n, e]]]),
        tau=1.0,
    )
    a, b = 1.0, math.e  # Theta(v, V) and Theta(v, v2)
    others = 2 * 1.0 + math.exp(-1) + 1.0 + math.e
    assert loss.item() == pytest.approx(-math.log((a + b) / (a + b + others)), rel=1e-6)


def test_eq1_index_zero_is_the_positive(parts):
    """The anchor as its own other view lowers the loss; as a bank entry it raises it."""
    base = clip_loss(**parts, tau=TAU)
    assert (clip_loss(**{**parts, "v2": parts["v1"]}, tau=TAU) < base).all()
    bank = parts["bank2"].clone()
    bank[:, :, 1] = parts["v1"]
    assert (clip_loss(**{**parts, "bank2": bank}, tau=TAU) > base).all()


def test_eq1_order_of_negatives_is_irrelevant(parts):
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {
        **parts,
        "bank2": parts["bank2"][:, :, order],
        "neg_bank1": parts["neg_bank1"][:, :, order.flip(0)],
    }
    assert clip_loss(**shuffled, tau=TAU).allclose(clip_loss(**parts, tau=TAU), atol=1e-12)


def test_eq1_shared_bank_equals_repeated_bank(parts):
    shared = rand(k, D, seed=9)
    repeated = shared.expand(B, K, k, D)
    assert clip_loss(**{**parts, "bank2": shared}, tau=TAU).allclose(
        clip_loss(**{**parts, "bank2": repeated}, tau=TAU), atol=1e-12
    )


def test_eq1_without_other_view_keeps_only_the_video_positive(parts):
    loss = clip_loss(**{**parts, "v2": None, "bank2": None}, tau=TAU)
    anchor = parts["v1"][0, 0]
    video = slow_theta(anchor, parts["V1"][0], TAU)
    total = video + slow_theta(anchor, parts["neg1"][0, 0], TAU)
    total += sum(slow_theta(anchor, entry, TAU) for entry in parts["neg_bank1"][0, 0])
    assert loss[0, 0].item() == pytest.approx(-math.log(video / total), rel=1e-10)


def test_eq1_trivial_solution():
    """v = V satisfies the printed sum whatever the other view says, but not the mean of logs."""
    v1 = rand(1, 1, D)
    opposite, far = -v1, -v1.unsqueeze(2).expand(1, 1, k, D)
    printed = clip_loss(v1, v1[:, 0], opposite, far, opposite, far, tau=0.07)
    both = clip_loss(v1, v1[:, 0], opposite, far, opposite, far, tau=0.07, multi_pos="mean_of_logs")
    assert printed.item() < 1e-10
    assert both.item() > 10


def test_small_temperature_does_not_overflow(parts):
    loss = clip_loss(
        **{n: t.float() for n, t in parts.items()}, tau=1e-3
    )  # exp(1000) would be infinite
    assert torch.isfinite(loss).all()


def test_half_precision_inputs_are_computed_in_float32(parts):
    loss = clip_loss(**{n: t.bfloat16() for n, t in parts.items()}, tau=0.07)
    assert loss.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = clip_loss(**{n: t.float() for n, t in parts.items()}, tau=0.07)
    assert cast.allclose(clip_loss(**{n: t.float() for n, t in parts.items()}, tau=0.07), atol=1e-5)


def test_eq2_against_slow_loop_and_degenerate_cases():
    V1, V2, Vn = rand(B, D), rand(B, D, seed=1), rand(B, 2, D, seed=2)
    fast = video_loss(V1, V2, Vn, TAU)
    for b in range(B):
        positive = slow_theta(V1[b], V2[b], TAU)
        total = positive + sum(slow_theta(V1[b], Vn[b, n], TAU) for n in range(2))
        assert abs(fast[b].item() + math.log(positive / total)) < 1e-10
    same = V1.unsqueeze(
        1
    )  # the order negative of a mean is the video itself: nothing to learn, log 2
    assert video_loss(V1, V1, same, TAU).allclose(
        torch.full((B,), math.log(2), dtype=torch.float64)
    )
    assert video_loss(V1, V2, Vn.flip(1), TAU).allclose(fast)
    with pytest.raises(NbkitError, match="V_negs"):
        video_loss(V1, V2, V1)


def test_order_negative_is_degenerate_under_a_mean_only():
    v, order = rand(B, K, D), torch.tensor([1, 2, 0])
    assert v[:, order].mean(1).allclose(v.mean(1))
    torch.manual_seed(0)
    gru = torch.nn.GRU(D, D, batch_first=True).double()
    assert not gru(v[:, order])[1][0].allclose(gru(v)[1][0])


def test_eq4_printed_sum_and_normalisations():
    clip = {"rgb": rand(B, K).abs(), "flow": rand(B, K, seed=1).abs()}
    video = {"rgb": rand(B, seed=2).abs(), "flow": rand(B, seed=3).abs()}
    slow = 0.0
    for b in range(B):
        for m in clip:
            slow += (sum(clip[m][b, i].item() for i in range(K)) / K + video[m][b].item()) / B
    assert abs(contrastive_loss(clip, video).item() - slow) < 1e-10
    assert abs(contrastive_loss(clip, video, normalise="mean").item() - slow / 4) < 1e-10
    assert contrastive_loss(clip, {}).item() == pytest.approx(
        sum(c.mean().item() for c in clip.values())
    )
    with pytest.raises(NbkitError, match="chance"):
        contrastive_loss(clip, video, normalise="log_candidates")
    with pytest.raises(NbkitError, match="neither"):
        contrastive_loss({}, {})
    with pytest.raises(NbkitError, match="normalise"):
        contrastive_loss(clip, video, normalise="sum")


@pytest.mark.parametrize(("multi_pos", "positives"), [("sum_in_log", 2), ("mean_of_logs", 1)])
def test_log_candidates_puts_chance_at_one(multi_pos, positives):
    """All features equal: every candidate is as likely as every other, for any k."""
    for size in (1, 7, 64):
        same = torch.ones(B, K, D, dtype=torch.float64)
        bank = same.unsqueeze(2).expand(B, K, size, D)
        clip = clip_loss(same, same[:, 0], same, bank, same, bank, multi_pos=multi_pos)
        video = video_loss(same[:, 0], same[:, 0], same[:, :2])
        loss = contrastive_loss(
            {"rgb": clip, "flow": clip},
            {"rgb": video, "flow": video},
            normalise="log_candidates",
            clip_chance=chance_level(2 * size + 3, positives),
            video_chance=chance_level(3),
        )
        assert loss.item() == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(NbkitError):
        chance_level(1)


@pytest.mark.parametrize("multi_pos", ["sum_in_log", "mean_of_logs"])
def test_gradients(parts, multi_pos):
    inputs = [t[:2].clone().requires_grad_() for t in parts.values()]
    assert torch.autograd.gradcheck(lambda *a: clip_loss(*a, tau=0.5, multi_pos=multi_pos), inputs)
    video = [
        rand(2, D).requires_grad_(),
        rand(2, D, seed=1).requires_grad_(),
        rand(2, 2, D, seed=2).requires_grad_(),
    ]
    assert torch.autograd.gradcheck(lambda *a: video_loss(*a, 0.5), video)


def test_unknown_options_are_named(parts):
    with pytest.raises(NbkitError, match="multi_pos"):
        clip_loss(**parts, multi_pos="sum")
    with pytest.raises(NbkitError, match="bank entries"):
        clip_loss(**{**parts, "bank2": parts["v2"]})
