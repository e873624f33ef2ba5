"""Intra-negatives: each frame of a negative is a known picture of the clip, and the clip is really
inconsistent.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbkit.errors import NbkitError
from nbkit.methods.negatives import (
    FAMILIES,
    TURNS,
    clip_negative,
    clip_variants,
    feature_negative,
    repeat_negative,
    residual_view,
    some_frames,
    spatial_negative,
    temporal_negative,
    wrong_order,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clips(n=6, channels=3, frames=8, height=10, width=10):
    return torch.rand(n, channels, frames, height, width, generator=generator(99))


def _same(a, b):
    return a.shape == b.shape and torch.equal(a, b)


def turned(clip, negative):
    """For each frame the name of what was done to it: 'same', one of TURNS, or None."""
    names = []
    for t in range(clip.shape[1]):
        options = {"same": clip[:, t], **{name: turn(clip[:, t]) for name, turn in TURNS.items()}}
        names.append(next((n for n, x in options.items() if _same(x, negative[:, t])), None))
    return names


@pytest.mark.parametrize("channels", [2, 3])
def test_spatial_turns_some_frames_and_never_all(channels):
    x = clips(60, channels)
    negative = spatial_negative(x, generator())
    kinds = set()
    for a, b in zip(x, negative):
        names = turned(a, b)  # every channel alike: for flow the picture turns, the sign of u stays
        assert None not in names
        assert 2 <= sum(name != "same" for name in names) <= 6  # ceil(8 p), p in (0.25, 0.75)
        kinds |= set(names)
    assert kinds == {"same", *TURNS}


def test_frames_that_are_not_square_are_not_rotated_by_90():
    x = clips(40, height=6, width=9)
    kinds = {name for a, b in zip(x, spatial_negative(x, generator())) for name in turned(a, b)}
    assert kinds == {"same", "hflip", "vflip", "rot180"}


@given(st.integers(2, 20), st.integers(0, 50))
def test_some_frames_are_a_quarter_to_three_quarters_and_never_all(frames, seed):
    count = some_frames(5, frames, generator(seed)).sum(1)
    assert (count >= max(frames / 4, 1)).all() and (count < frames).all()
    assert (count <= math.ceil(0.75 * frames)).all()


def test_temporal_is_a_wrong_order_of_the_same_frames():
    x = clips(50)
    negative = temporal_negative(x, generator())
    assert torch.equal(
        x.sum(2).sum((1, 2, 3)).round(decimals=2), negative.sum(2).sum((1, 2, 3)).round(decimals=2)
    )
    for a, b in zip(x, negative):
        places = [next(s for s in range(8) if torch.equal(a[:, s], b[:, t])) for t in range(8)]
        assert sorted(places) == list(range(8)) and places != list(range(8))


def test_repeat_shows_one_of_the_frames():
    x = clips(20)
    negative = repeat_negative(x, generator())
    for a, b in zip(x, negative):
        assert (b == b[:, :1]).all() and any(torch.equal(b[:, 0], a[:, t]) for t in range(8))


def test_both_draws_either_family_per_clip():
    x = clips(200)
    negative = clip_negative(x, "both", generator())
    spatial = sum(None not in turned(a, b) for a, b in zip(x, negative))
    assert 70 < spatial < 130
    assert not any(torch.equal(a, b) for a, b in zip(x, negative))


@pytest.mark.parametrize("family", FAMILIES)
def test_families_keep_the_input_shape_and_follow_the_generator(family):
    x = clips()
    before = x.clone()
    negative = clip_negative(x, family, generator(1))
    assert negative.shape == x.shape and torch.equal(x, before)
    assert torch.equal(negative, clip_negative(x, family, generator(1)))
    assert not torch.equal(negative, clip_negative(x, family, generator(2)))
    assert clip_negative(x[:0], family, generator()).shape == (0, *x.shape[1:])


@pytest.mark.parametrize("k", [2, 3, 5, 7])
def test_wrong_orders_are_permutations_but_never_the_right_one(k):
    orders = wrong_order(k, 500, generator())
    assert orders.shape == (500, k)
    assert torch.equal(orders.sort(1).values, torch.arange(k).expand(500, k))
    assert not (orders == torch.arange(k)).all(1).any()


def test_the_five_wrong_orders_of_three_clips_are_equally_likely():
    codes = wrong_order(3, 5000, generator()) @ torch.tensor([9, 3, 1])
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == 5 and counts.min() > 880 and counts.max() < 1120


def test_refusals():
    with pytest.raises(NbkitError, match="clip_neg='mirror'"):
        clip_negative(clips(), "mirror", generator())
    with pytest.raises(NbkitError, match="at least 2"):
        wrong_order(1, 4, generator())
    with pytest.raises(NbkitError, match="at least 2 frames"):
        spatial_negative(clips(frames=1), generator())


# --- negatives of cached features
def marked(n=40, frames=8, views=4):
    """Features that say where they come from: [time, view]."""
    time, view = torch.meshgrid(torch.arange(frames), torch.arange(views), indexing="ij")
    return torch.stack([time, view], -1).float().expand(n, -1, -1, -1)  # (N, T, V, 2)


@pytest.mark.parametrize("family", ["spatial", "temporal", "both", "repeat"])
def test_negatives_change_what_their_family_says(family):
    negative = feature_negative(marked(), family, torch.Generator().manual_seed(0))
    assert negative.shape == (40, 8, 2)
    right = torch.arange(8.0)
    kinds = set()
    for clip in negative:
        time, view = clip[:, 0], clip[:, 1]
        if (time == time[0]).all():
            kinds.add("repeat")
        elif torch.equal(time, right):
            assert 1 <= (view > 0).sum() <= 7
            kinds.add("spatial")
        else:
            assert torch.equal(time.sort().values, right) and (view == 0).all()
            kinds.add("temporal")
    assert kinds == ({"spatial", "temporal"} if family == "both" else {family})


def test_negatives_follow_the_generator_and_refuse_one_view():
    draw = [feature_negative(marked(), "both", torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    one = marked(views=1)
    assert feature_negative(one, "temporal", torch.Generator()).shape == (40, 8, 2)
    with pytest.raises(NbkitError, match="at least 2 views"):
        feature_negative(one, "spatial", torch.Generator())
    with pytest.raises(NbkitError, match="clip_neg"):
        feature_negative(one, "mirror", torch.Generator())


# --- the second view of a single stream ----------------------------------------------------------
@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_residual_is_the_difference_of_neighbouring_frames(channels, scale):
    low, middle, high = (0, 0.5, 1) if channels == 3 else (-1, 0, 1)
    x = clips(n=2, channels=channels, frames=4, height=3, width=3).double()
    found = residual_view(x, scale)
    for n, c, t, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        now = min(t, 2)  # the last difference stands twice
        change = float(x[n, c, now + 1, i, j] - x[n, c, now, i, j])
        expected = min(max(middle + scale * change, low), high)
        assert found[n, c, t, i, j] == pytest.approx(expected, abs=1e-12)


def test_a_residual_forgets_what_stands_still():
    x = clips(frames=5)
    background = clips(n=len(x), frames=1) * 0.2
    torch.testing.assert_close(
        residual_view(0.8 * x + background, 0.5), residual_view(0.8 * x, 0.5)
    )
    still = clips(frames=1).expand(-1, -1, 6, -1, -1)
    assert (residual_view(still, 2.0) == 0.5).all()


def test_a_residual_by_default_loses_nothing():
    extreme = torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(1, 3, 3, 2, 2)
    assert residual_view(extreme, 0.5).unique().tolist() == [0.0, 1.0]
    with pytest.raises(NbkitError, match="at least 2 frames"):
        residual_view(clips(frames=1), 0.5)


# --- features of clips
@pytest.mark.parametrize("channels", [3, 2])
def test_the_variants_of_a_clip(channels):
    x = clips(n=2, channels=channels)
    varied = clip_variants(x, 2.0, generator())
    assert varied.shape == (2, 5, channels, 8, 10, 10)
    same, mirrored, spatial, temporal, residual = varied.unbind(1)
    assert torch.equal(same, x)
    flipped = x.flip(-1)
    if channels == 2:  # u points the other way
        flipped = flipped * torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    assert torch.equal(mirrored, flipped)
    for clip, negative in zip(x, spatial):
        names = turned(clip, negative)
        assert "same" in names and set(names) & set(TURNS)
    for clip, negative in zip(x, temporal):
        assert not torch.equal(clip, negative)
        assert torch.allclose(clip.mean(1), negative.mean(1), atol=1e-6)
    assert torch.equal(residual, residual_view(x, 2.0))


def test_a_stored_negative_is_drawn_by_family():
    views = torch.arange(3.0).view(1, 1, 3, 1).expand(200, 1, 3, 5)
    drawn = {f: feature_negative(views, f, generator()) for f in ("spatial", "temporal", "both")}
    assert all(found.shape == (200, 1, 5) for found in drawn.values())
    assert (drawn["spatial"] == 1).all() and (drawn["temporal"] == 2).all()
    assert 60 < int((drawn["both"][:, 0, 0] == 1).sum()) < 140
    with pytest.raises(NbkitError, match="CLIP_NEG='repeat'"):
        feature_negative(views, "repeat", generator())
