"""No step reads a value from the device: it would make the host wait, and then the device.

Tensors on torch's `meta` device have a shape and no values: a step that runs on them, forward and
backward, has read none.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from method_steps import at, built
from torch.utils._python_dispatch import TorchDispatchMode

from nbkit.errors import NbkitError
from nbkit.losses import alignment
from nbkit.losses.alignment import VideoFeatures, vca
from nbkit.methods import METHODS, method_class
from nbkit.methods.batches import ahead
from nbkit.train.recognition import prepare
from nbkit.train.steps import make_optimizer, run_epoch


@pytest.fixture
def valueless(monkeypatch):
    """`valueless(method, stage)`: one optimisation step of a method without any value."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())

    def step(method, stage):
        sides = []
        for domain in (method.labelled[0], "target"):
            batch = method.data.train[domain].raw(range(4), **method.views(stage))
            sides.append({name: x.to("meta") for name, x in batch.items()})
        method.to("meta").train()
        optimizer = make_optimizer(method, stage)
        loss, terms = method(*sides, at(stage))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        assert all(value.is_meta for value in terms.values())

    return step


@pytest.mark.parametrize("name", METHODS)
def test_no_method_reads_a_value(name, tiny, valueless):
    for stage in (2, 3):
        valueless(built(tiny(method=name, optimizer="sgd", clips_at_once=2)), stage)


@pytest.mark.parametrize("backbone", ["bn_inception", "i3d", "mobilenet"])
def test_no_backbone_reads_a_value(backbone, tiny, valueless):
    more = {} if backbone == "i3d" else {"aggregation": "trn", "alignment": "adversarial"}
    cfg = tiny(optimizer="sgd", weights="random", backbone=backbone, **more)
    valueless(method_class("stcda")(cfg, built(tiny()).data), 3)


@pytest.mark.parametrize("family", ["spatial", "temporal", "repeat"])
def test_no_negative_reads_a_value(family, tiny, valueless):
    valueless(built(tiny(clip_neg=family, optimizer="sgd")), 2)


class Reads(TorchDispatchMode):
    """Counts values that are copied to the host."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_loop_reads_once_an_epoch(tiny, monkeypatch):
    """As often in an epoch of one step as in one of four."""
    cfg = tiny(optimizer="sgd", grad_clip=5.0, batch=6)
    fabric, method, _ = prepare(cfg)
    module, optimizer = fabric.setup(method, make_optimizer(method, 2))
    method.start_stage(2)
    pair = method.batches(2, 0)[0]
    found = []
    for count in (1, 4):
        monkeypatch.setattr(method, "batches", lambda *_, n=count: [pair] * n)
        with Reads() as reads:
            terms = run_epoch(fabric, module, method, optimizer, 2, 0)
        found.append(reads.found)
        assert set(terms) == {"ce", "contrast"}
    assert found[0] == found[1]


@pytest.mark.parametrize("wrong", ["loss", "gradient"])
def test_the_first_step_that_went_wrong_is_named(wrong, tiny, monkeypatch):
    cfg = tiny(grad_clip=5.0, batch=6)
    fabric, method, _ = prepare(cfg)
    module, optimizer = fabric.setup(method, make_optimizer(method, 2))
    method.start_stage(2)
    pair, calls = method.batches(2, 0)[0], []
    monkeypatch.setattr(method, "batches", lambda *_: [pair] * 4)
    original = type(method).forward

    def forward(self, *given):
        loss, terms = original(self, *given)
        calls.append(1)
        if len(calls) == 3 and wrong == "loss":
            loss = loss * float("nan")
        if len(calls) == 3 and wrong == "gradient":
            loss = loss + (self.model.streams["rgb"].classifier.bias * 0).pow(0.5).sum()
        return loss, terms

    monkeypatch.setattr(type(method), "forward", forward)
    with pytest.raises(NbkitError, match=r"nan.* in stage 2, epoch 1, step 3 \(.*contrast"):
        run_epoch(fabric, module, method, optimizer, 2, 0)


# --- what a GPU does in place of counting --------------------------------------------------------
@pytest.mark.parametrize("classes", [3, 5, 400])
@pytest.mark.parametrize("scope", ["classpair", "batch"])
def test_alignment_without_counting_is_the_same(classes, scope, monkeypatch):
    """All pairs and as many classes as there could be, with the weights of those that are."""
    generator = torch.Generator().manual_seed(0)
    pair = [
        VideoFeatures(
            torch.randn(n, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True),
            torch.randn(n, 4, generator=generator, dtype=torch.float64, requires_grad=True),
        )
        for n in (7, 9)
    ]
    ys = torch.tensor([0, 1, 1, 2, classes - 1, 0, -1])
    yt = torch.tensor([1, 1, 0, 2, 2, -1, classes - 1, 0, 0])
    found = []
    for counts in (True, False):
        if not counts:
            monkeypatch.setattr(
                alignment,
                "_numbers",
                lambda chosen, most: chosen.int().argsort(descending=True, stable=True)[:most],
            )
        parts = vca(tuple(pair), ys, yt, classes, gamma_scope=scope)
        gradients = torch.autograd.grad(parts.total, [x for side in pair for x in side])
        found.append([*parts, *gradients])
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*found))


def test_classes_without_samples_cost_nothing_and_change_nothing():
    generator = torch.Generator().manual_seed(0)
    pair = tuple(
        VideoFeatures(torch.randn(8, 2, 4, generator=generator), torch.randn(8, 4)) for _ in "st"
    )
    y = torch.arange(8) % 4
    few, many = vca(pair, y, y, 4), vca(pair, y + 390, y + 390, 400)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(few, many))


def test_batches_come_in_order_and_an_error_stops_the_threads():
    assert list(ahead(lambda i: i * i, range(20))) == [i * i for i in range(20)]
    done = []

    def work(i):
        done.append(i)
        if i == 3:
            raise NbkitError("broken")
        return i

    with pytest.raises(NbkitError, match="broken"):
        list(ahead(work, range(1000)))
    assert max(done) < 10
