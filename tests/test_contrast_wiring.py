"""What STCL hands to Eqs. (1)-(4).

Which clips are the negatives, whose features the banks hold, and what a step leaves in them.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_steps import at, built

from nbkit.errors import NbkitError
from nbkit.losses.contrastive import chance_level, clip_loss, contrastive_loss, video_loss
from nbkit.methods.negatives import residual_view
from nbkit.models.two_stream import make_encoder

SOURCE, TARGET, K = np.array([3, 0, 14, 9]), np.array([5, 12, 0, 7]), 3
STREAMS = ("rgb", "flow")
OTHER = {"rgb": "flow", "flow": "rgb"}


@pytest.fixture
def mirrored(monkeypatch):
    """Negative clips that are easy to know again: their pictures in a mirror, floats or bytes."""
    monkeypatch.setattr(
        "nbkit.methods.contrast.clip_negative", lambda x, how, generator: x.flip(-1)
    )


def method_and_sides(cfg):
    method = built(cfg).eval()
    sides = {}
    for d, index in (("source", SOURCE), ("target", TARGET)):
        batch = method.data.train[d].batch(index, **method.views(3))
        sides[d] = batch, method.outputs(batch, d)
    return method, sides


def views_of(method, sides, domain, generator=None):
    generator = generator or at().generator
    return method.contrast.views(method.model, *sides[domain], domain, generator)


def test_negatives_are_those_of_fig_3(tiny, mirrored):
    method, sides = method_and_sides(tiny(bank_init="random", video_neg="order+clip"))
    batch, outputs = sides["source"]
    views = views_of(method, sides, "source")
    in_order = tuple(range(K))
    for m in STREAMS:
        stream, v = method.model.streams[m], outputs[m].v
        v_neg = stream.clip_features(batch[m].flip(-1))
        torch.testing.assert_close(views[m]["v_neg"], stream.head(v_neg))
        torch.testing.assert_close(views[m]["v"], stream.head(v))
        torch.testing.assert_close(views[m]["V"], stream.head(stream.aggregate(v)))
        assert not torch.allclose(views[m]["v_neg"], views[m]["v"])
        late, swapped = [], []
        for order in permutations(range(K)):
            if order != in_order:
                late.append(stream.head(stream.aggregate(v[:, list(order)])))
        for chosen in product((False, True), repeat=K):
            if any(chosen):
                mixed = torch.where(torch.tensor(chosen)[None, :, None], v_neg, v)
                swapped.append(stream.head(stream.aggregate(mixed)))
        # Every video: its own clips in a wrong order; at least one of them replaced.
        for b in range(len(SOURCE)):
            for kind, known in enumerate((late, swapped)):
                found = views[m]["V_neg"][b, kind]
                assert any(torch.allclose(found, x[b], atol=1e-5) for x in known)
                assert not torch.allclose(found, views[m]["V"][b], atol=1e-5)


@pytest.mark.parametrize("pool", ["own", "other"])
def test_a_step_is_eqs_1_to_4_with_the_other_streams_bank(tiny, mirrored, pool):
    cfg = tiny(
        video_neg="order",
        video_neg_modality=pool,
        bank_init="random",
        normalise="log_candidates",
        bank_momentum=0.25,
    )
    method, sides = method_and_sides(cfg)
    contrast, dim = method.contrast, method.contrast.clips["rgb"].memory.shape[1]
    entries = F.normalize(torch.randn(4, dim, generator=torch.Generator().manual_seed(3)), dim=-1)
    keys = [(kind, m) for kind in ("clips", "negatives") for m in STREAMS]
    held = dict(zip(keys, entries))
    for (kind, m), entry in held.items():  # all slots alike: what is drawn tells from which bank
        getattr(contrast, kind)[m].memory[:] = entry
    found = contrast(method.model, sides, at().generator)
    twin = at().generator  # draws the same wrong orders, the source's first
    views = [views_of(method, sides, d, twin) for d in ("source", "target")]
    w = {m: {k: torch.cat([side[m][k] for side in views]) for k in views[0][m]} for m in STREAMS}
    clip, video = {}, {}
    for m in STREAMS:
        pool_of = m if pool == "own" else OTHER[m]
        clip[m] = clip_loss(
            w[m]["v"],
            w[m]["V"],
            w[OTHER[m]]["v"],
            held["clips", OTHER[m]].expand(cfg.stcl.nce_k, dim),
            w[m]["v_neg"],
            held["negatives", m].expand(cfg.stcl.nce_k, dim),
            tau=cfg.stcl.tau,
            multi_pos=cfg.stcl.multi_pos,
        )
        video[m] = video_loss(w[m]["V"], w[OTHER[m]]["V"], w[pool_of]["V_neg"], cfg.stcl.tau)
    chance = {"clip_chance": chance_level(2 * cfg.stcl.nce_k + 3), "video_chance": chance_level(2)}
    expected = contrastive_loss(clip, video, normalise="log_candidates", **chance)
    torch.testing.assert_close(found, expected)

    slots = [K * i + k for i in SOURCE for k in range(K)]
    slots += [K * (16 + i) + k for i in TARGET for k in range(K)]
    # A quarter of the old entry, three of the feature; the other slots as they were.
    for m in STREAMS:
        for kind, key in (("clips", "v"), ("negatives", "v_neg")):
            memory = getattr(contrast, kind)[m].memory
            mixed = 0.25 * held[kind, m] + 0.75 * F.normalize(w[m][key].flatten(0, 1), dim=-1)
            torch.testing.assert_close(memory[slots], F.normalize(mixed, dim=-1))
            rest = np.setdiff1d(np.arange(len(memory)), slots)
            assert len(memory) == K * 32
            assert torch.equal(memory[rest], held[kind, m].expand(len(rest), dim))


def test_a_first_pass_fills_every_slot_with_its_own_clip(tiny, mirrored):
    method, _ = method_and_sides(tiny(bank_init="forward"))
    method.start_stage(2)
    for d, offset in (("source", 0), ("target", 16)):
        batch = method.data.train[d].batch(np.arange(16), **method.views(2))
        outputs = method.outputs(batch, d)
        for m in STREAMS:
            stream = method.model.streams[m]
            held = {
                method.contrast.clips[m]: outputs[m].v,
                method.contrast.negatives[m]: stream.clip_features(batch[m].flip(-1)),
            }
            for bank, v in held.items():
                expected = F.normalize(stream.head(v).flatten(0, 1), dim=-1)
                rows = bank.memory[K * offset : K * (offset + 16)]
                torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)


def test_filling_the_banks_builds_no_graph(tiny):
    method, sides = method_and_sides(tiny(bank_init="random", neg_grad="live"))
    with torch.no_grad():
        views = views_of(method, sides, "source")
    assert not any(views[m][k].requires_grad for m in STREAMS for k in ("v_neg", "V_neg"))


# --- the second view of a single stream ----------------------------------------------------------
@pytest.mark.parametrize("modality", STREAMS)
def test_a_residual_passes_through_the_streams_own_encoder(tiny, modality):
    method, sides = method_and_sides(tiny(modalities=modality, single_view2="residual"))
    method.train()
    batch = sides["source"][0]
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    outputs = method.outputs(batch, "source")
    after = {name: value.clone() for name, value in method.model.state_dict().items()}
    assert any(not torch.equal(before[name], after[name]) for name in before)
    views = method.contrast.views(method.model, batch, outputs, "source", at().generator)
    encoder = {n: v for n, v in method.model.state_dict().items() if ".encoder." in n}
    assert all(torch.equal(value, after[name]) for name, value in encoder.items())
    stream = method.model.streams[modality]
    expected = stream.clip_features(residual_view(batch[modality], 0.5))
    torch.testing.assert_close(views[modality]["v_2"], stream.head(expected))
    torch.testing.assert_close(views[modality]["V_2"], stream.head(stream.aggregate(expected)))
    assert views[modality]["v_2"].requires_grad


def test_a_residual_changes_no_prediction_path(tiny):
    """It serves training alone: a data set hands out no more, and a test reads the frames."""
    method = built(tiny(modalities="rgb", single_view2="residual"))
    assert "rgb_2" not in method.data.train["source"].batch(SOURCE, **method.views(3))
    assert "rgb_2" in built(tiny(modalities="rgb", single_view2="augment")).data.train[
        "source"
    ].batch(SOURCE, second_view="augment")


def test_features_without_a_residual_are_no_clips(tiny):
    method = built(tiny(modalities="rgb"))
    with pytest.raises(NbkitError, match="features of frames.*SINGLE_VIEW2='augment'"):
        method.contrast.second_clips(method.model, {"rgb": torch.rand(4, 3, 8, 16)}, "rgb")


@pytest.mark.parametrize(
    "how, used", [("both", "spatial"), ("spatial", "spatial"), ("repeat", "repeat")]
)
def test_an_encoder_that_averages_frames_gets_no_shuffled_clip(tiny, how, used):
    method = built(tiny(clip_neg=how))
    stream = method.model.streams["rgb"]
    assert stream.encoder.sees_order and method.contrast.family(stream) == how
    stream.encoder.sees_order = False
    assert method.contrast.family(stream) == used


def test_a_shuffled_clip_is_refused_where_order_is_not_seen(tiny):
    method = built(tiny(clip_neg="temporal"))
    method.model.streams["rgb"].encoder.sees_order = False
    with pytest.raises(NbkitError, match="CLIP_NEG='temporal'.*does not see their order"):
        method.contrast.family(method.model.streams["rgb"])


@pytest.mark.parametrize("backbone", ["small", "mobilenet", "bn_inception", "i3d"])
def test_every_encoder_says_rightly_whether_it_sees_order(tiny, backbone):
    frames, side = (8, 32) if backbone == "small" else (8, 64)
    cfg = tiny(backbone=backbone, weights="random", bn_mode="frozen", frames=frames)
    encoder = make_encoder("rgb", cfg).double().eval()
    torch.manual_seed(0)
    clip = torch.rand(1, 3, frames, side, side, dtype=torch.float64)
    with torch.no_grad():
        there, back = encoder(clip), encoder(clip.flip(2))
    differs = float((there - back).norm() / there.norm())
    assert differs > 1e-7 if encoder.sees_order else differs < 1e-12
