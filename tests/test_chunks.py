"""CLIPS_AT_ONCE: encoders in chunks, computed again for the backward pass, change no gradient."""

from __future__ import annotations

import pytest
import torch
from method_steps import at, batches, built
from torch import nn

from nbkit.methods import METHODS
from nbkit.models.norm import DomainNorm, use_domain
from nbkit.models.two_stream import TwoStream

METHODS_WITHOUT_ADABN = [name for name in METHODS if name != "adabn"]  # it needs batch statistics


def gradients(method, at_once, stage):
    """Loss, terms and gradients of one step in float64, with chunks of `at_once` clips."""
    for stream in method.model.streams.values():
        stream.at_once = at_once
    method.zero_grad(set_to_none=True)
    views = method.views(stage)
    sides = []
    for domain in (method.labelled[0], "target"):
        batch = method.data.train[domain].batch(range(5), **views)
        sides.append({k: x.double() if x.is_floating_point() else x for k, x in batch.items()})
    torch.manual_seed(0)
    loss, terms = method(*sides, at(stage))
    if loss.requires_grad:
        loss.backward()
    return loss.detach(), terms, {n: p.grad for n, p in method.named_parameters()}


@pytest.mark.parametrize("bn_mode", ["frozen", "group"])
@pytest.mark.parametrize("name", METHODS_WITHOUT_ADABN)
def test_every_method_has_the_gradients_of_the_whole_batch(name, bn_mode, tiny):
    method = built(tiny(method=name, bn_mode=bn_mode)).double().train()
    state = {k: v.clone() for k, v in method.state_dict().items()}
    if hasattr(method, "pseudo"):
        method.pseudo.copy_(torch.arange(method.pseudo.shape[1]) % 3)
    for stage in (1, 2, 3):
        if method.skips(stage):
            continue
        kept = {k: v.clone() for k, v in method.state_dict().items()}
        whole = gradients(method, None, stage)
        method.load_state_dict(kept)  # the banks have moved on
        parts = gradients(method, 4, stage)
        method.load_state_dict(kept)
        assert torch.allclose(whole[0], parts[0], rtol=0, atol=1e-10)
        seen = 0
        for parameter, gradient in whole[2].items():
            other = parts[2][parameter]
            assert (gradient is None) == (other is None), parameter
            if gradient is not None:
                assert torch.allclose(gradient, other, rtol=0, atol=1e-10), parameter
                seen += int(".encoder." in parameter and bool(gradient.any()))
        assert seen > 0
    method.load_state_dict(state)


@pytest.mark.parametrize("single_view2", ["augment", "residual"])
def test_a_second_view_of_a_single_stream(single_view2, tiny):
    cfg = tiny(modalities="rgb", bn_mode="group", single_view2=single_view2)
    method = built(cfg).double().train()
    assert method.views(2)["second_view"] == single_view2
    kept = {k: v.clone() for k, v in method.state_dict().items()}
    whole = gradients(method, None, 2)
    method.load_state_dict(kept)
    parts = gradients(method, 2, 2)
    for parameter, gradient in whole[2].items():
        if gradient is not None:
            assert torch.allclose(gradient, parts[2][parameter], rtol=0, atol=1e-10), parameter


def streams_of(tiny, **fields):
    torch.manual_seed(0)
    model = TwoStream(tiny(**fields), 4).train()
    x = {"rgb": torch.rand(2, 3, 3, 4, 32, 32), "flow": torch.rand(2, 3, 2, 4, 32, 32)}
    return model, x


def test_recomputation_counts_no_statistics_twice_and_knows_the_domain(tiny):
    """A chunk is a batch of its own: the same numbers as passing the chunks one by one."""
    model, x = streams_of(tiny, bn_mode="per_domain", clips_at_once=2)
    twin, _ = streams_of(tiny, bn_mode="per_domain")
    assert twin.load_state_dict(model.state_dict())
    with use_domain(model, "target"), use_domain(twin, "target"):
        features = {m: s.clip_features(x[m]) for m, s in model.streams.items()}
        for m, stream in twin.streams.items():
            parts = [stream.encoder(part) for part in x[m].flatten(0, 1).split(2)]
            apart = stream.project(torch.cat(parts)).unflatten(0, (2, 3))
            assert torch.equal(apart, features[m])
            apart.square().sum().backward()
    sum(v.square().sum() for v in features.values()).backward()  # outside of use_domain
    norms = [n for n in model.modules() if isinstance(n, DomainNorm)]
    assert all(n.domain == 0 and n.updates and not n.repeats for n in norms)
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for (name, p), q in zip(model.named_parameters(), twin.parameters()):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            assert torch.allclose(p.grad, q.grad, atol=1e-5), name


def test_recomputation_draws_the_same_dropout(tiny):
    model, x = streams_of(tiny, bn_mode="group", clips_at_once=2)
    stream = model.streams["rgb"]
    masks = []

    class Spy(nn.Dropout):
        def forward(self, x):
            out = super().forward(x)
            masks.append(out != 0)
            return out

    stream.encoder.layers.insert(1, Spy(0.5))
    stream.clip_features(x["rgb"]).sum().backward()
    assert len(masks) == 6  # three chunks, each computed twice
    first, again = masks[:3], masks[3:]
    assert all(any(torch.equal(mask, other) for other in first) for mask in again)
    assert not torch.equal(first[0], first[1])


def test_less_is_kept_and_evaluation_is_chunked_too(tiny):
    kept = {}
    for at_once in (None, 2):
        model, x = streams_of(tiny, bn_mode="group", clips_at_once=at_once)
        saved = []

        def pack(t, saved=saved):
            saved.append(t.untyped_storage())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            model(x)
        kept[at_once] = sum({s.data_ptr(): s.nbytes() for s in saved}.values())
        sizes = []
        for stream in model.eval().streams.values():
            stream.encoder.register_forward_pre_hook(lambda _, a, s=sizes: s.append(len(a[0])))
        with torch.no_grad():
            model(x)
        model(x)  # with gradients, for Grad-CAM: in one piece
        assert sizes == ([6] * 4 if at_once is None else [2] * 6 + [6] * 2)
    assert kept[2] < kept[None] / 4


@pytest.mark.parametrize("modalities", ["rgb", "flow", "rgb+flow"])
def test_bytes_give_what_floats_give(modalities, tiny):
    method = built(tiny(clips_at_once=4, modalities=modalities))
    sides = {}
    for name in ("raw", "batch"):
        sides[name] = [
            getattr(method.data.train[d], name)(range(4), **method.views(3))
            for d in ("source", "target")
        ]
    kept = {k: v.clone() for k, v in method.state_dict().items()}
    losses = []
    for found in sides.values():
        method.load_state_dict(kept)
        losses.append(method(*found, at(3))[0])
    assert torch.equal(*losses)
    assert batches(method)[0]["rgb"].dtype == torch.float32
