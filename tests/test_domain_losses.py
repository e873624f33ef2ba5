"""Domain losses and entropies, TRN-M, co-attention, clip order: slow twins, public formulas."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.losses.adversarial import spatial_image_loss
from nbkit.losses.domain import (
    attentive_entropy,
    class_entropy,
    correspondence_loss,
    domain_attention,
    domain_entropy,
    domain_loss,
    order_loss,
)
from nbkit.models.clip_heads import ClipAttention, ClipOrder, DomainClassifier, attend, co_attention
from nbkit.models.two_stream import Relations, clip_tuples


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(z):
    return [math.exp(x) / sum(map(math.exp, z)) for x in z]


def entropy(p):
    return -sum(x * math.log(x) for x in p)


# --- losses --------------------------------------------------------------------------------------
def test_domain_loss_is_the_two_way_cross_entropy_of_the_public_codes():
    """TA3N's and MM-SADA's: softmax cross-entropy of two logits, source 0 and target 1."""
    s, t = numbers(6), numbers(6, seed=1)
    slow = -sum(math.log(softmax([0.0, x])[0]) for x in s.tolist()) - sum(
        math.log(softmax([0.0, x])[1]) for x in t.tolist()
    )
    assert domain_loss(s, t).item() == pytest.approx(slow / 12, abs=1e-12)
    assert domain_loss(s.view(2, 3), t).item() == pytest.approx(slow / 12, abs=1e-12)
    assert domain_loss(s, t.repeat(3)).item() == pytest.approx(
        slow / 12, abs=1e-12
    )  # the domains weigh the same
    assert domain_loss(s, t).item() == pytest.approx(
        spatial_image_loss(s, t, gamma=0).item() / 2, abs=1e-12
    )
    assert domain_loss(-t, -s).item() == pytest.approx(domain_loss(s, t).item(), abs=1e-12)
    assert domain_loss(torch.zeros(3), torch.zeros(2)).item() == pytest.approx(math.log(2))
    assert domain_loss(torch.full((2,), 900.0), torch.full((2,), -900.0)).item() == pytest.approx(
        900
    )
    assert torch.autograd.gradcheck(domain_loss, (s.requires_grad_(), t.requires_grad_()))


def test_attention_is_that_of_ta3ns_code():
    """get_trans_attn of its models.py: 1 - entropy of a softmax over two domain logits."""
    pairs = numbers(7, 2)
    slow = [1 - entropy(softmax(z)) for z in pairs.tolist()]
    assert domain_attention(pairs[:, 1] - pairs[:, 0]).tolist() == pytest.approx(slow, abs=1e-12)
    assert domain_attention(torch.tensor([0.0])).item() == pytest.approx(1 - math.log(2))
    assert domain_attention(torch.tensor([-80.0, 80.0])).tolist() == pytest.approx([1, 1])
    assert domain_attention(-pairs[:, 0]).allclose(domain_attention(pairs[:, 0]))
    assert torch.isfinite(domain_entropy(torch.tensor([1e4, -1e4]))).all()


def test_attentive_entropy_is_that_of_ta3ns_code():
    """attentive_entropy of its loss.py: mean over videos of (1 + H(domain)) H(class)."""
    classes, domains = numbers(5, 4), numbers(5, 2, seed=1)
    slow = [
        (1 + entropy(softmax(d))) * entropy(softmax(c))
        for c, d in zip(classes.tolist(), domains.tolist(), strict=True)
    ]
    logit = domains[:, 1] - domains[:, 0]
    assert attentive_entropy(classes, logit).item() == pytest.approx(sum(slow) / 5, abs=1e-12)
    assert attentive_entropy(torch.zeros(2, 4), torch.zeros(2)).item() == pytest.approx(
        (1 + math.log(2)) * math.log(4)
    )
    assert class_entropy(classes).tolist() == pytest.approx(
        [entropy(softmax(c)) for c in classes.tolist()], abs=1e-12
    )
    assert torch.autograd.gradcheck(
        attentive_entropy, (classes.requires_grad_(), logit.requires_grad_())
    )


def test_correspondence_and_order_losses():
    same, other = numbers(3, 2), numbers(4, 2, seed=1)
    slow = (
        -sum(math.log(1 / (1 + math.exp(-x))) for x in same.flatten().tolist()) / 6
        - sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in other.flatten().tolist()) / 8
    ) / 2
    assert correspondence_loss(same, other).item() == pytest.approx(slow, abs=1e-12)
    assert correspondence_loss(same + 50, other - 50) < 1e-9
    assert order_loss(torch.zeros(4, 6), torch.tensor([0, 5, 2, 2])).item() == pytest.approx(
        math.log(6)
    )


# --- TRN-M ---------------------------------------------------------------------------------------
def test_tuples_are_evenly_spread_as_in_the_public_code():
    """TRN-M of TA3N's code: all ordered tuples, of them those numbered ceil(i * total / 3)."""
    every = list(combinations(range(5), 3))
    assert clip_tuples(5, 3) == [every[math.ceil(i * 10 / 3)] for i in range(3)]
    assert clip_tuples(3, 3) == [(0, 1, 2)] and clip_tuples(3, 2) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("clips", [2, 3, 5])
def test_relations_slow_twin(clips):
    torch.manual_seed(0)
    trn, v = Relations(4, clips).double(), numbers(2, clips, 4)
    R = trn.relations(v)
    assert R.shape == (2, clips - 1, 4)
    for row, scale in enumerate(range(clips, 1, -1)):
        for b in range(2):
            slow = torch.zeros(4, dtype=torch.float64)
            for chosen in clip_tuples(clips, scale):
                joined = torch.cat([v[b, k].clamp(min=0) for k in chosen])
                slow += (trn.fuse[row].weight @ joined + trn.fuse[row].bias).clamp(min=0)
            assert R[b, row].allclose(slow, atol=1e-12)
    assert trn(v).allclose(R.sum(1))
    attended = trn(v, attention=lambda R: torch.full(R.shape[:2], 0.25, dtype=R.dtype))
    assert attended.allclose(1.25 * R.sum(1))
    assert not trn(v.flip(1)).allclose(trn(v))  # the order of clips matters


def test_a_single_clip_has_no_relations():
    with pytest.raises(NbkitError, match="CLIPS=1"):
        Relations(4, 1)


# --- clip heads ----------------------------------------------------------------------------------
def test_co_attention_slow_twin_and_its_limits():
    s, t = numbers(2, 3, 4), numbers(2, 2, 4, seed=1)
    a_s, a_t = numbers(2, 3, seed=2).abs(), numbers(2, 2, seed=3).abs()
    A = co_attention(s, t, a_s, a_t)
    for b in range(2):
        for i in range(3):
            cosine = [float(s[b, i] @ t[b, j] / s[b, i].norm() / t[b, j].norm()) for j in range(2)]
            slow = softmax([float(a_s[b, i] * a_t[b, j]) * cosine[j] for j in range(2)])
            assert A[b, i].tolist() == pytest.approx(slow, abs=1e-12)
    assert co_attention(s, t, 0 * a_s, a_t).allclose(
        torch.full((2, 3, 2), 0.5, dtype=torch.float64)
    )
    sharp = torch.full((2, 3), 30.0, dtype=torch.float64)
    late = s.roll(1, dims=1)  # the same clips, one step later: attention finds them again
    assert (co_attention(s, late, sharp, sharp) @ late).allclose(s, atol=1e-6)


def test_clip_attention_weighs_clips():
    torch.manual_seed(0)
    v = torch.randn(5, 3, 4)
    w = ClipAttention(4)(v)
    assert w.shape == (5, 3) and w.sum(1).allclose(torch.ones(5)) and (w > 0).all()
    assert attend(v, torch.eye(3)[[2, 0, 1, 1, 2]]).equal(v[torch.arange(5), [2, 0, 1, 1, 2]])


@pytest.mark.parametrize("clips, chosen", [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (7, [0, 3, 6])])
def test_clip_order_hands_over_what_it_says(clips, chosen):
    head, v = ClipOrder(4, clips), torch.randn(8, clips, 4)
    every = list(permutations(range(len(chosen))))
    logits, order = head(v, torch.Generator().manual_seed(0))
    assert logits.shape == (8, len(every)) == (8, math.factorial(len(chosen)))
    shown = head.shuffle(v, order)
    for b in range(8):
        assert shown[b].equal(torch.stack([v[b, chosen[i]] for i in every[order[b]]]))
    assert head(v, torch.Generator().manual_seed(0))[1].equal(order)


def test_clip_order_can_be_learned():
    torch.manual_seed(0)
    head, g = ClipOrder(16, 3), torch.Generator().manual_seed(1)
    v = torch.randn(64, 3, 16) * 0.1 + torch.arange(3.0)[:, None]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        loss = order_loss(*head(v, g))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3  # chance is log 6 = 1.8


def test_domain_classifier_keeps_the_leading_axes():
    head = DomainClassifier(4)
    assert head(torch.zeros(5, 4)).shape == (5,) and head(torch.zeros(5, 3, 4)).shape == (5, 3)
