"""What a step of each method adds up to, rebuilt by hand from the losses: signs, weights, pairs,
whose features learn what.

The methods are in evaluation mode: no dropout, fixed normalisation statistics, so that the same
batch gives the same features twice.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_steps import at, built

from nbkit.losses.alignment import VideoFeatures, vca_multimodal
from nbkit.losses.discrepancy import classifier_discrepancy, mk_mmd
from nbkit.losses.domain import attentive_entropy, correspondence_loss, domain_loss
from nbkit.losses.objective import total_loss
from nbkit.models.clip_heads import attend, co_attention
from nbkit.models.two_stream import StreamOutput
from nbkit.train.domains import get_batch

SOURCE, TARGET = (
    np.array([3, 0, 14, 9, 6, 11, 1, 8]),
    np.array([5, 12, 0, 7, 15, 2, 10, 13]),
)  # neither in order
STREAMS, CLASSES = ("rgb", "flow"), 8


def ready(cfg):
    """Method, batches of the videos SOURCE and TARGET, and what the network gives of them."""
    method = built(cfg).eval()
    with torch.no_grad():  # running statistics that differ by domain, as after training
        for i, (name, x) in enumerate(method.model.named_buffers()):
            if "running" in name:
                x += 0.2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(i))
    method.pseudo = (
        None
        if not hasattr(method, "pseudo")
        else torch.stack(
            [(torch.arange(16) + 3 * row) % CLASSES for row in range(len(cfg.streams))]
        )
    )  # other labels in each stream
    sides = [
        get_batch(method.domains.train[d], i, cfg, torch.device("cpu"), False)
        for d, i in (("source", SOURCE), ("target", TARGET))
    ]
    return (
        method,
        sides,
        [method.outputs(batch, d) for batch, d in zip(sides, ("source", "target"))],
    )


def step_of(cfg, stage=3):
    """The same, and the terms of one step half way through the stage."""
    method, sides, outputs = ready(cfg)
    return method, sides, outputs, method(*sides, at(stage))


def slopes(value, parameters, factor=1.0):
    return [factor * g for g in torch.autograd.grad(value, parameters, retain_graph=True)]


def close(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def features_of(method, m):
    """The weights through which stream `m` makes its clip features."""
    return [
        method.model.streams[m].project.weight,
        next(iter(method.model.streams[m].encoder.parameters())),
    ]


def mean(values):
    return torch.stack(list(values)).mean()


# --- STCDA
# -----------------------------------------------------------------------------------------------------------
def test_stcda_is_eq_10_with_the_pseudo_labels_of_these_videos(tiny):
    cfg = tiny(
        alpha=0.3, beta=0.7, beta_schedule="constant", bank_init="random", fusion="per_modality"
    )
    method, (source, target), (out_s, out_t), terms = step_of(cfg)
    assert set(terms) == {"ce", "contrast", "vca"} and torch.equal(
        target["index"], torch.as_tensor(TARGET)
    )
    labels = method.domains.train["source"].labels[SOURCE]
    assert source["label"].tolist() == labels.tolist()
    ce = mean(
        F.cross_entropy(z, source["label"])
        for o in out_s.values()
        for z in (o.clip_logits.mean(1), o.video_logits)
    )
    pairs = {
        m: (VideoFeatures(out_s[m].v, out_s[m].V), VideoFeatures(out_t[m].v, out_t[m].V))
        for m in STREAMS
    }
    pseudo = {m: torch.as_tensor((TARGET + 3 * row) % CLASSES) for row, m in enumerate(STREAMS)}
    vca = vca_multimodal(pairs, source["label"], pseudo, CLASSES, gamma_scope=cfg.vca.gamma_scope).total
    fresh = ready(cfg)[0]  # its banks are as they were before the step
    contrast = fresh.contrast({"source": (source, out_s), "target": (target, out_t)}, at())
    close([terms["ce"], terms["contrast"], terms["vca"]], [ce, 0.3 * contrast, 0.7 * vca])
    close([sum(terms.values())], [total_loss(ce, contrast, vca, 0.3, 0.7)])
    for (
        m
    ) in STREAMS:  # both domains' features learn it: with one of them held fixed the slopes differ
        close(
            slopes(terms["vca"], features_of(method, m)), slopes(0.7 * vca, features_of(method, m))
        )
    fixed = {m: (s, VideoFeatures(*(x.detach() for x in t))) for m, (s, t) in pairs.items()}
    half = (
        0.7
        * vca_multimodal(fixed, source["label"], pseudo, CLASSES, gamma_scope=cfg.vca.gamma_scope).total
    )
    assert not torch.allclose(
        slopes(half, features_of(method, "rgb"))[0],
        slopes(terms["vca"], features_of(method, "rgb"))[0],
    )


def test_stcda_s_adversary_is_reversed_and_weighs_beta(tiny):
    cfg = tiny(alpha=0.0, beta=0.7, beta_schedule="constant", alignment="adversarial")
    method, _, (out_s, out_t), terms = step_of(cfg)
    plain = sum(
        domain_loss(d["clip"](out_s[m].v), d["clip"](out_t[m].v))
        + domain_loss(d["video"](out_s[m].V), d["video"](out_t[m].V))
        for m, d in method.discriminators.items()
    )
    reversal = cfg.comparison.grl_max * float(np.tanh(2.5))  # DANN's ramp half way
    close([terms["domain"]], [0.7 * plain])
    close(
        slopes(terms["domain"], features_of(method, "rgb")),
        slopes(plain, features_of(method, "rgb"), -0.7 * reversal),
    )


# --- the comparison methods
# ------------------------------------------------------------------------------------------
def test_mmd_brings_videos_together(tiny):
    _, _, (out_s, out_t), terms = step_of(tiny(method="mmd", trade_off=0.3))
    close([terms["mmd"]], [0.3 * mean(mk_mmd(out_s[m].V, out_t[m].V) for m in STREAMS)])
    assert terms["mmd"] > 0


def test_daaa_learns_the_domains_and_its_features_unlearn_them(tiny):
    cfg = tiny(method="daaa", trade_off=0.3, grl_max=0.6)
    method, _, (out_s, out_t), terms = step_of(cfg)
    classify = method.heads["domain"]
    plain = mean(domain_loss(classify[m](out_s[m].v), classify[m](out_t[m].v)) for m in STREAMS)
    reversal = 0.6 * float(np.tanh(2.5))
    close([terms["domain"]], [0.3 * plain])
    close(
        slopes(terms["domain"], features_of(method, "flow")),
        slopes(plain, features_of(method, "flow"), -0.3 * reversal),
    )
    own = list(classify["flow"].parameters())
    close(slopes(terms["domain"], own), slopes(plain, own, 0.3))


def test_mcd_lowers_minus_the_discrepancy(tiny):
    method, (source, _), (out_s, out_t), terms = step_of(tiny(method="mcd", trade_off=0.3))
    first, second = {m: method.model.streams[m].classifier for m in STREAMS}, method.heads["second"]
    apart = mean(
        classifier_discrepancy(z1, z2)
        for m in STREAMS
        for z1, z2 in (
            (first[m](out_t[m].v).mean(1), second[m](out_t[m].v).mean(1)),
            (first[m](out_t[m].V), second[m](out_t[m].V)),
        )
    )
    read = {m: StreamOutput(o.v, o.V, second[m](o.v), second[m](o.V)) for m, o in out_s.items()}
    ce = mean(
        F.cross_entropy(z, source["label"])
        for o in read.values()
        for z in (o.clip_logits.mean(1), o.video_logits)
    )
    close([terms["discrepancy"], terms["ce_2"]], [-0.3 * apart, 0.3 * ce])
    weights = [second["rgb"].weight, first["rgb"].weight]
    close(
        slopes(terms["discrepancy"], weights), slopes(apart, weights, -0.3)
    )  # the classifiers raise it
    close(
        slopes(terms["discrepancy"], features_of(method, "rgb")),
        slopes(apart, features_of(method, "rgb"), 0.3),
    )


@pytest.mark.parametrize("stage, weight", [(2, 1.0), (3, 5.0)])
def test_mm_sada_pairs_a_video_with_its_own_flow_and_with_anothers(tiny, stage, weight):
    method, _, outputs, terms = step_of(tiny(method="mm_sada", trade_off=0.3), stage)
    belong, loss = method.heads["correspondence"], []
    for out in outputs:
        rgb, flow = out["rgb"].v, out["flow"].v
        same = torch.stack([belong(torch.cat([rgb[i], flow[i]], -1)) for i in range(len(rgb))])
        other = torch.stack([belong(torch.cat([rgb[i], flow[i - 1]], -1)) for i in range(len(rgb))])
        loss.append(correspondence_loss(same, other))
    close([terms["correspondence"]], [0.3 * weight * mean(loss)])
    if stage == 3:
        (out_s, out_t), classify = outputs, method.heads["domain"]
        plain = sum(domain_loss(classify[m](out_s[m].v), classify[m](out_t[m].v)) for m in STREAMS)
        reversal = method.cfg.comparison.grl_max * float(np.tanh(2.5))
        close([terms["domain"]], [0.3 * 5 * plain])
        close(
            slopes(terms["domain"], features_of(method, "rgb")),
            slopes(plain, features_of(method, "rgb"), -1.5 * reversal),
        )


def test_ta3n_has_three_levels_with_the_published_reversals(tiny):
    method, _, (out_s, out_t), terms = step_of(tiny(method="ta3n", modalities="rgb", trade_off=0.3))
    heads, relations = (
        {k: h["rgb"] for k, h in method.heads.items()},
        method.model.streams["rgb"].aggregate.relations,
    )
    s, t = out_s["rgb"], out_t["rgb"]
    logits = [
        torch.stack([c(relations(v)[:, i]) for i, c in enumerate(heads["relation"].each)], 1)
        for v in (s.v, t.v)
    ]
    levels = {
        0.5: domain_loss(heads["clip"](s.v), heads["clip"](t.v)),
        0.75: domain_loss(*logits) + domain_loss(heads["video"](s.V), heads["video"](t.V)),
    }
    close([terms["domain"]], [0.3 * sum(levels.values())])
    weights = features_of(method, "rgb")
    expected = [
        sum(parts) for parts in zip(*(slopes(x, weights, -0.3 * c) for c, x in levels.items()))
    ]
    close(slopes(terms["domain"], weights), expected)
    V, z = torch.cat([s.V, t.V]), torch.cat([s.video_logits, t.video_logits])
    close([terms["entropy"]], [0.3 * 0.3 * attentive_entropy(z, heads["video"](V))])


def test_sava_attends_in_both_domains_and_orders_both(tiny):
    method, (source, _), (out_s, out_t), terms = step_of(tiny(method="sava", trade_off=0.3))
    weigh, classify, order = (method.heads[k] for k in ("attention", "domain", "order"))
    V_s, V_t = ({m: attend(o.v, weigh[m](o.v)) for m, o in side.items()} for side in (out_s, out_t))
    plain = mean(domain_loss(classify[m](V_s[m]), classify[m](V_t[m])) for m in STREAMS)
    named = mean(
        F.cross_entropy(method.model.streams[m].classifier(V_s[m]), source["label"])
        for m in STREAMS
    )
    generator, orders = at().generator, []
    for m in STREAMS:
        orders += [F.cross_entropy(*order[m](out[m].v, generator)) for out in (out_s, out_t)]
    close(
        [terms["domain"], terms["attention"], terms["order"]],
        [0.3 * plain, 0.3 * named, 0.3 * mean(orders)],
    )
    reversal, weights = (
        method.cfg.comparison.grl_max * float(np.tanh(2.5)),
        [*features_of(method, "rgb"), *weigh["rgb"].parameters()],
    )
    close(slopes(terms["domain"], weights), slopes(plain, weights, -0.3 * reversal))


def test_tcon_compares_the_source_with_the_target_moved_into_its_time(tiny):
    method, _, (out_s, out_t), terms = step_of(tiny(method="tcon", trade_off=0.3))
    parts = []
    for m in STREAMS:
        v_s, v_t, weigh, aggregate = (
            out_s[m].v,
            out_t[m].v,
            method.heads["attention"][m],
            method.model.streams[m].aggregate,
        )
        moved = co_attention(v_s, v_t, 3 * weigh(v_s), 3 * weigh(v_t)) @ v_t
        clip, video = (method.heads[k][m] for k in ("clip", "video"))
        parts.append(
            domain_loss(clip(v_s), clip(moved))
            + domain_loss(video(aggregate(v_s)), video(aggregate(moved)))
        )
    close([terms["domain"]], [0.3 * mean(parts)])
    reversal, weights = method.cfg.comparison.grl_max * float(np.tanh(2.5)), features_of(method, "rgb")
    close(
        slopes(terms["domain"], weights),
        [-0.3 * reversal * g for g in slopes(mean(parts), weights)],
    )
