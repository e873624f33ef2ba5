"""What a step of each method adds up to, rebuilt by hand from the losses.

Signs, weights, pairs, and whose features learn what. The methods are in evaluation mode: no
dropout, fixed normalisation statistics, so that the same batch gives the same features twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_steps import at, built
from torch import Tensor

from nbkit.losses.alignment import VideoFeatures, vca
from nbkit.losses.discrepancy import classifier_discrepancy, mk_mmd
from nbkit.losses.domain import attentive_entropy, correspondence_loss, domain_loss
from nbkit.methods.base import Method
from nbkit.models.clip_heads import attend, co_attention
from nbkit.models.two_stream import StreamOutput

# Neither in order.
SOURCE, TARGET = np.array([3, 0, 14, 9, 6, 11, 1, 8]), np.array([5, 12, 0, 7, 15, 2, 10, 13])
STREAMS, CLASSES = ("rgb", "flow"), 8
RAMP = float(np.tanh(2.5))  # DANN's, half way


class Taken(NamedTuple):
    """A step half way through a stage, and what it started from."""

    method: Method
    source: dict
    target: dict
    out_s: dict
    out_t: dict
    loss: Tensor
    terms: dict


def ready(cfg):
    """Method with its batches of the videos SOURCE and TARGET."""
    method = built(cfg).eval()
    with torch.no_grad():  # running statistics that differ by domain, as after training
        for i, (name, x) in enumerate(method.model.named_buffers()):
            if "running" in name:
                x += 0.2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(i))
    if hasattr(method, "pseudo"):  # other labels in each stream
        rows = [(torch.arange(16) + 3 * row) % CLASSES for row in range(len(cfg.streams))]
        method.pseudo = torch.stack(rows)
    views = method.views(3)
    source = method.data.train["source"].batch(SOURCE, **views)
    return method, source, method.data.train["target"].batch(TARGET, **views)


def step_of(cfg, stage=3):
    method, source, target = ready(cfg)
    out_s, out_t = method.outputs(source, "source"), method.outputs(target, "target")
    return Taken(method, source, target, out_s, out_t, *method(source, target, at(stage)))


def slopes(value, parameters, factor=1.0):
    return [factor * g for g in torch.autograd.grad(value, parameters, retain_graph=True)]


def close(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def features_of(method, m):
    """The weights through which stream `m` makes its clip features."""
    stream = method.model.streams[m]
    return [stream.project.weight, next(iter(stream.encoder.parameters()))]


def mean(values):
    return torch.stack(list(values)).mean()


def classified(outputs, labels):
    """Cross-entropy of clips and videos, the mean over the streams."""
    terms = []
    for out in outputs.values():
        terms += [F.cross_entropy(z, labels) for z in (out.clip_logits.mean(1), out.video_logits)]
    return mean(terms)


# --- STCDA ---------------------------------------------------------------------------------------
def test_stcda_is_eq_10_with_the_pseudo_labels_of_these_videos(tiny):
    cfg = tiny(
        alpha=0.3, beta=0.7, beta_schedule="constant", bank_init="random", fusion="per_modality"
    )
    took = step_of(cfg)
    method, terms = took.method, took.terms
    assert set(terms) == {"ce", "contrast", "vca", "intra", "inter"}
    assert torch.equal(took.target["index"], torch.as_tensor(TARGET))
    labels = method.data.train["source"].labels[SOURCE]
    assert took.source["label"].tolist() == labels.tolist()

    def aligned(hold_target=False):
        parts = []
        for row, m in enumerate(STREAMS):
            source = VideoFeatures(took.out_s[m].v, took.out_s[m].V)
            target = VideoFeatures(took.out_t[m].v, took.out_t[m].V)
            if hold_target:
                target = VideoFeatures(*(x.detach() for x in target))
            pseudo = torch.as_tensor((TARGET + 3 * row) % CLASSES)
            scope = cfg.vca.gamma_scope
            pair = (source, target)
            parts.append(vca(pair, took.source["label"], pseudo, CLASSES, gamma_scope=scope))
        return [sum(values) for values in zip(*parts)]

    total, intra, inter = aligned()
    fresh = ready(cfg)[0]  # its banks are as they were before the step
    sides = {"source": (took.source, took.out_s), "target": (took.target, took.out_t)}
    contrast = fresh.contrast(fresh.model, sides, at().generator)
    ce = classified(took.out_s, took.source["label"])
    close([terms["ce"], terms["contrast"], terms["vca"]], [ce, contrast, total])
    close([terms["intra"], terms["inter"]], [intra, inter])
    close([took.loss], [ce + 0.3 * contrast + 0.7 * total])
    for m in STREAMS:  # both domains' features learn it: with one held fixed the slopes differ
        weights = features_of(method, m)
        close(slopes(terms["vca"], weights), slopes(total, weights))
    weights = features_of(method, "rgb")
    half = slopes(aligned(hold_target=True)[0], weights)
    assert not torch.allclose(half[0], slopes(terms["vca"], weights)[0])


def test_stcda_s_adversary_is_reversed_and_weighs_beta(tiny):
    cfg = tiny(alpha=0.0, beta=0.7, beta_schedule="constant", alignment="adversarial")
    took = step_of(cfg)
    plain = 0.0
    for m, d in took.method.discriminators.items():
        s, t = took.out_s[m], took.out_t[m]
        plain += domain_loss(d["clip"](s.v), d["clip"](t.v))
        plain += domain_loss(d["video"](s.V), d["video"](t.V))
    close([took.terms["domain"], took.loss], [plain, took.terms["ce"] + 0.7 * plain])
    weights, reversal = features_of(took.method, "rgb"), cfg.comparison.grl_max * RAMP
    close(slopes(took.terms["domain"], weights), slopes(plain, weights, -reversal))


# --- the comparison methods ----------------------------------------------------------------------
def own_loss(took):
    """What trade_off = 0.3 weighs, from the step's loss."""
    return (took.loss - took.terms["ce"]) / 0.3


def test_mmd_brings_videos_together(tiny):
    took = step_of(tiny(method="mmd", trade_off=0.3))
    expected = mean(mk_mmd(took.out_s[m].V, took.out_t[m].V) for m in STREAMS)
    close([took.terms["mmd"], own_loss(took)], [expected, expected])
    assert took.terms["mmd"] > 0


def test_daaa_learns_the_domains_and_its_features_unlearn_them(tiny):
    took = step_of(tiny(method="daaa", trade_off=0.3, grl_max=0.6))
    classify, domain = took.method.heads["domain"], took.terms["domain"]
    plain = mean(
        domain_loss(classify[m](took.out_s[m].v), classify[m](took.out_t[m].v)) for m in STREAMS
    )
    close([domain, own_loss(took)], [plain, plain])
    weights, own = features_of(took.method, "flow"), list(classify["flow"].parameters())
    close(slopes(domain, weights), slopes(plain, weights, -0.6 * RAMP))
    close(slopes(domain, own), slopes(plain, own))
    close(slopes(took.loss, own), slopes(plain, own, 0.3))


def test_mcd_lowers_minus_the_discrepancy(tiny):
    took = step_of(tiny(method="mcd", trade_off=0.3))
    first = {m: took.method.model.streams[m].classifier for m in STREAMS}
    second = took.method.heads["second"]
    terms = []
    for m in STREAMS:
        v, V = took.out_t[m].v, took.out_t[m].V
        clips = classifier_discrepancy(first[m](v).mean(1), second[m](v).mean(1))
        terms += [clips, classifier_discrepancy(first[m](V), second[m](V))]
    apart = mean(terms)
    read = {
        m: StreamOutput(o.v, o.V, second[m](o.v), second[m](o.V)) for m, o in took.out_s.items()
    }
    ce = classified(read, took.source["label"])
    close([took.terms["discrepancy"], took.terms["ce_2"]], [apart, ce])
    close([own_loss(took)], [ce - apart])
    minus = own_loss(took) - took.terms["ce_2"]
    weights = [second["rgb"].weight, first["rgb"].weight]
    close(slopes(minus, weights), slopes(apart, weights, -1.0))  # the classifiers raise it
    weights = features_of(took.method, "rgb")
    close(slopes(minus, weights), slopes(apart, weights))  # the features lower it


@pytest.mark.parametrize("stage, weight", [(2, 5.0), (3, 5.0)])
def test_mm_sada_pairs_a_video_with_its_own_flow_and_with_anothers(tiny, stage, weight):
    took = step_of(tiny(method="mm_sada", trade_off=0.3), stage)
    belong, losses = took.method.heads["correspondence"], []
    for out in (took.out_s, took.out_t):
        rgb, flow = out["rgb"].v, out["flow"].v
        same = torch.stack([belong(torch.cat([rgb[i], flow[i]], -1)) for i in range(len(rgb))])
        other = torch.stack([belong(torch.cat([rgb[i], flow[i - 1]], -1)) for i in range(len(rgb))])
        losses.append(correspondence_loss(same, other))
    close([took.terms["correspondence"]], [mean(losses)])
    expected = mean(losses)
    if stage == 3:
        classify = took.method.heads["domain"]
        plain = sum(
            domain_loss(classify[m](took.out_s[m].v), classify[m](took.out_t[m].v)) for m in STREAMS
        )
        close([took.terms["domain"]], [plain])
        weights = features_of(took.method, "rgb")
        reversal = took.method.cfg.comparison.grl_max * RAMP
        close(slopes(took.terms["domain"], weights), slopes(plain, weights, -reversal))
        expected = expected + plain
    close([own_loss(took)], [weight * expected])


def test_ta3n_has_three_levels_with_the_published_reversals(tiny):
    took = step_of(tiny(method="ta3n", modalities="rgb", trade_off=0.3))
    heads = {name: head["rgb"] for name, head in took.method.heads.items()}
    relations = took.method.model.streams["rgb"].aggregate.relations
    s, t = took.out_s["rgb"], took.out_t["rgb"]
    logits = []
    for v in (s.v, t.v):
        R, each = relations(v), heads["relation"].each
        logits.append(torch.stack([classify(R[:, i]) for i, classify in enumerate(each)], 1))
    levels = {
        0.5: domain_loss(heads["clip"](s.v), heads["clip"](t.v)),
        0.75: domain_loss(*logits) + domain_loss(heads["video"](s.V), heads["video"](t.V)),
    }
    domain, entropy = took.terms["domain"], took.terms["entropy"]
    close([domain], [sum(levels.values())])
    weights = features_of(took.method, "rgb")
    parts = [slopes(level, weights, -reversal) for reversal, level in levels.items()]
    close(slopes(domain, weights), [sum(level) for level in zip(*parts)])
    V, z = torch.cat([s.V, t.V]), torch.cat([s.video_logits, t.video_logits])
    close([entropy], [attentive_entropy(z, heads["video"](V))])
    close([own_loss(took)], [domain + 0.3 * entropy])


def test_sava_attends_in_both_domains_and_orders_both(tiny):
    took = step_of(tiny(method="sava", trade_off=0.3))
    weigh, classify, order = (took.method.heads[k] for k in ("attention", "domain", "order"))
    V_s = {m: attend(out.v, weigh[m](out.v)) for m, out in took.out_s.items()}
    V_t = {m: attend(out.v, weigh[m](out.v)) for m, out in took.out_t.items()}
    plain = mean(domain_loss(classify[m](V_s[m]), classify[m](V_t[m])) for m in STREAMS)
    streams = took.method.model.streams
    named = mean(
        F.cross_entropy(streams[m].classifier(V_s[m]), took.source["label"]) for m in STREAMS
    )
    generator, orders = at().generator, []
    for m in STREAMS:
        for out in (took.out_s, took.out_t):
            orders.append(F.cross_entropy(*order[m](out[m].v, generator)))
    terms = took.terms
    close(
        [terms["domain"], terms["attention"], terms["order"], own_loss(took)],
        [plain, named, mean(orders), plain + named + mean(orders)],
    )
    reversal = took.method.cfg.comparison.grl_max * RAMP
    weights = [*features_of(took.method, "rgb"), *weigh["rgb"].parameters()]
    close(slopes(terms["domain"], weights), slopes(plain, weights, -reversal))


def test_tcon_compares_the_source_with_the_target_moved_into_its_time(tiny):
    took = step_of(tiny(method="tcon", trade_off=0.3))
    parts = []
    for m in STREAMS:
        v_s, v_t = took.out_s[m].v, took.out_t[m].v
        weigh = took.method.heads["attention"][m]
        aggregate = took.method.model.streams[m].aggregate
        moved = co_attention(v_s, v_t, 3 * weigh(v_s), 3 * weigh(v_t)) @ v_t
        clip, video = (took.method.heads[name][m] for name in ("clip", "video"))
        of_videos = domain_loss(video(aggregate(v_s)), video(aggregate(moved)))
        parts.append(domain_loss(clip(v_s), clip(moved)) + of_videos)
    close([took.terms["domain"], own_loss(took)], [mean(parts), mean(parts)])
    reversal = took.method.cfg.comparison.grl_max * RAMP
    weights = features_of(took.method, "rgb")
    close(slopes(took.terms["domain"], weights), slopes(mean(parts), weights, -reversal))
