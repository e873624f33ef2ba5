"""What STCL hands to Eqs. 1-4: which clips are the negatives, whose features the banks hold, and
what a step leaves in them.
"""

from itertools import permutations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_steps import at, built

from nbkit.losses.contrastive import chance_level, clip_loss, contrastive_loss, video_loss
from nbkit.train.domains import get_batch

SOURCE, TARGET, K = np.array([3, 0, 14, 9]), np.array([5, 12, 0, 7]), 3
STREAMS = ("rgb", "flow")


@pytest.fixture
def mirrored(monkeypatch):
    """Negative clips that are easy to know again: their pictures with the opposite sign."""
    monkeypatch.setattr("nbkit.methods.contrast.clip_negative", lambda x, how, generator: -x)


def method_and_sides(cfg):
    method = built(cfg).eval()
    sides = {}
    for d, index in (("source", SOURCE), ("target", TARGET)):
        batch = get_batch(method.domains.train[d], index, cfg, torch.device("cpu"), True)
        sides[d] = batch, method.outputs(batch, d)
    return method, sides


def test_negatives_are_those_of_fig_3(tiny, mirrored):
    method, sides = method_and_sides(tiny(bank_init="random", video_neg="order+clip"))
    batch, outputs = sides["source"]
    views = method.contrast.views(batch, outputs, "source", at())
    for m in STREAMS:
        stream, v = method.model.streams[m], outputs[m].v
        v_neg = stream.clip_features(-batch[m])
        torch.testing.assert_close(views[m]["v_neg"], stream.head(v_neg))
        torch.testing.assert_close(views[m]["v"], stream.head(v))
        torch.testing.assert_close(views[m]["V"], stream.head(stream.aggregate(v)))
        assert not torch.allclose(views[m]["v_neg"], views[m]["v"])
        late = [
            stream.head(stream.aggregate(v[:, list(p)]))
            for p in permutations(range(K))
            if p != tuple(range(K))
        ]
        swapped = [
            stream.head(stream.aggregate(torch.where(torch.tensor(s)[None, :, None], v_neg, v)))
            for s in product((False, True), repeat=K)
            if any(s)
        ]
        for b in range(
            len(SOURCE)
        ):  # every video: its own clips in a wrong order; at least one of them replaced
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
    held = {
        (kind, m): entries[2 * i + j]
        for i, kind in enumerate(("clips", "negatives"))
        for j, m in enumerate(STREAMS)
    }
    for (
        kind,
        m,
    ), entry in held.items():  # all slots alike: what is drawn tells only from which bank
        getattr(contrast, kind)[m].memory[:] = entry
    found, step = (
        contrast(sides, at()),
        at(),
    )  # its twin draws the same wrong orders, the source's first
    views = [contrast.views(*sides[d], d, step) for d in ("source", "target")]
    w = {m: {k: torch.cat([side[m][k] for side in views]) for k in views[0][m]} for m in STREAMS}
    other, clip, video = {"rgb": "flow", "flow": "rgb"}, {}, {}
    for m in STREAMS:
        drawn, drawn_neg = (
            held[key].expand(cfg.stcl.nce_k, dim) for key in (("clips", other[m]), ("negatives", m))
        )
        clip[m] = clip_loss(
            w[m]["v"],
            w[m]["V"],
            w[other[m]]["v"],
            drawn,
            w[m]["v_neg"],
            drawn_neg,
            tau=cfg.stcl.tau,
            multi_pos=cfg.stcl.multi_pos,
        )
        video[m] = video_loss(
            w[m]["V"], w[other[m]]["V"], w[m if pool == "own" else other[m]]["V_neg"], cfg.stcl.tau
        )
    chance = {"clip_chance": chance_level(2 * cfg.stcl.nce_k + 3), "video_chance": chance_level(2)}
    torch.testing.assert_close(
        found, contrastive_loss(clip, video, normalise="log_candidates", **chance)
    )

    slots = [
        *(K * i + k for i in SOURCE for k in range(K)),
        *(K * (16 + i) + k for i in TARGET for k in range(K)),
    ]
    for (
        m
    ) in STREAMS:  # a quarter of the old entry, three of the feature; the other slots as they were
        for kind, key in (("clips", "v"), ("negatives", "v_neg")):
            memory = getattr(contrast, kind)[m].memory
            mixed = 0.25 * held[kind, m] + 0.75 * F.normalize(w[m][key].flatten(0, 1), dim=-1)
            torch.testing.assert_close(memory[slots], F.normalize(mixed, dim=-1))
            rest = np.setdiff1d(np.arange(len(memory)), slots)
            assert len(memory) == K * 32 and torch.equal(
                memory[rest], held[kind, m].expand(len(rest), dim)
            )


def test_a_first_pass_fills_every_slot_with_its_own_clip(tiny, mirrored):
    cfg = tiny(bank_init="forward")
    method, _ = method_and_sides(cfg)
    method.start_stage(2)
    for d, offset in (("source", 0), ("target", 16)):
        batch = get_batch(method.domains.train[d], np.arange(16), cfg, torch.device("cpu"), True)
        outputs = method.outputs(batch, d)
        for m in STREAMS:
            stream = method.model.streams[m]
            held = {
                method.contrast.clips[m]: outputs[m].v,
                method.contrast.negatives[m]: stream.clip_features(-batch[m]),
            }
            for bank, v in held.items():
                expected = F.normalize(stream.head(v).flatten(0, 1), dim=-1)
                torch.testing.assert_close(
                    bank.memory[K * offset : K * (offset + 16)], expected, rtol=1e-4, atol=1e-5
                )


def test_filling_the_banks_builds_no_graph(tiny):
    method, sides = method_and_sides(tiny(bank_init="random", neg_grad="live"))
    with torch.no_grad():
        views = method.contrast.views(*sides["source"], "source", at())
    assert not any(views[m][k].requires_grad for m in STREAMS for k in ("v_neg", "V_neg"))
