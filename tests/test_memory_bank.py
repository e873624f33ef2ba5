"""Memory bank: what is drawn, what is updated, and what never moves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nbkit.errors import NbkitError
from nbkit.losses.contrastive import MemoryBank, bank_log_theta


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_start_is_unit_and_seeded():
    bank = MemoryBank(12, 8, seed=3)
    assert bank.memory.norm(dim=1).allclose(torch.ones(12))
    assert bank.memory.equal(MemoryBank(12, 8, seed=3).memory)
    assert not bank.memory.equal(MemoryBank(12, 8, seed=4).memory)
    assert len(bank) == 12


def test_update_is_the_normalised_midpoint_and_touches_nothing_else():
    bank = MemoryBank(10, 6)
    before = bank.memory.clone()
    features = torch.randn(2, 6, generator=gen(), requires_grad=True)
    bank.update(torch.tensor([7, 2]), features)
    for slot, feature in zip([7, 2], features, strict=True):
        midpoint = (before[slot] + F.normalize(feature, dim=0)) / 2
        assert bank.memory[slot].allclose(F.normalize(midpoint, dim=0), atol=1e-6)
    others = [s for s in range(10) if s not in (2, 7)]
    assert bank.memory[others].equal(before[others])
    assert not bank.memory.requires_grad and not list(bank.parameters())


def test_draws_carry_no_gradient_and_are_copies():
    bank = MemoryBank(10, 6)
    drawn = bank.draw(torch.arange(4), 5, gen())
    assert drawn.shape == (4, 5, 6) and not drawn.requires_grad
    before = bank.memory.clone()
    drawn.zero_()
    assert bank.memory.equal(before)


@pytest.mark.parametrize("slots", [10, 500])
def test_drawn_entries_need_no_second_normalisation(slots):
    bank = MemoryBank(slots, 16)
    for _ in range(5):
        bank.update(torch.arange(slots), torch.randn(slots, 16, generator=gen()))
    own, v = torch.arange(4), torch.randn(4, 1, 16, generator=gen(1))
    drawn = bank.draw(own, 20, gen()).unflatten(0, (4, 1))
    entries = bank.memory[bank.draw_indices(own, 20, gen())].unflatten(0, (4, 1))
    once, twice = bank_log_theta(v, drawn, 0.07, unit=True), bank_log_theta(v, entries, 0.07)
    assert torch.allclose(once, twice, rtol=0, atol=1e-5)  # of values up to 14
    if slots == 10:  # as small as the demo's: the same bits
        assert torch.equal(once, twice)


def test_draws_are_seeded_and_leave_out_the_own_slot():
    bank = MemoryBank(9, 4, slots_per_video=3)
    own = torch.arange(9)
    indices = bank.draw_indices(own, 3000, gen())
    assert indices.equal(bank.draw_indices(own, 3000, gen()))
    for slot in range(9):
        counts = torch.bincount(indices[slot], minlength=9)
        assert counts[slot] == 0
        others = counts[counts > 0]
        assert (
            len(others) == 8 and (others - 375).abs().max() < 100
        )  # 3000/8, five standard deviations


def test_leaving_out_the_whole_video():
    bank = MemoryBank(9, 4, slots_per_video=3)
    indices = bank.draw_indices(torch.arange(9), 2000, gen(), exclude_same_video=True)
    for slot in range(9):
        counts = torch.bincount(indices[slot], minlength=9)
        own = [slot // 3 * 3 + i for i in range(3)]
        assert counts[own].sum() == 0 and (counts > 0).sum() == 6


def test_slot_named_twice_keeps_the_last_feature():
    features = torch.randn(3, 4, generator=gen())
    twice, once = MemoryBank(5, 4), MemoryBank(5, 4)
    twice.update(torch.tensor([1, 3, 1]), features)
    once.update(torch.tensor([3, 1]), features[1:])
    assert twice.memory.equal(once.memory)


def test_opposite_feature_takes_the_slot():
    bank = MemoryBank(5, 4)
    old = bank.memory[2].clone()
    bank.update(torch.tensor([2]), -old.unsqueeze(0))
    assert bank.memory[2].allclose(-old)


def test_initialise_overwrites():
    bank = MemoryBank(5, 4)
    features = torch.randn(2, 4, generator=gen())
    bank.initialise(torch.tensor([4, 0]), features)
    assert bank.memory[[4, 0]].allclose(F.normalize(features, dim=1))


def test_state_dict_restores_the_bank():
    bank, other = MemoryBank(5, 4, seed=1), MemoryBank(5, 4, seed=2)
    other.load_state_dict(bank.state_dict())
    assert other.memory.equal(bank.memory)


def test_mistakes_are_named():
    with pytest.raises(NbkitError, match="momentum"):
        MemoryBank(5, 4, momentum=1.0)
    with pytest.raises(NbkitError, match="multiple"):
        MemoryBank(5, 4, slots_per_video=3)
    with pytest.raises(NbkitError, match="nothing left"):
        MemoryBank(3, 4, slots_per_video=3).draw_indices(
            torch.tensor([0]), 2, gen(), exclude_same_video=True
        )
    with pytest.raises(NbkitError, match="features"):
        MemoryBank(5, 4).update(torch.tensor([0]), torch.zeros(2, 4))
