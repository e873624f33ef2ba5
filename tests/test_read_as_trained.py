"""How a trained network is read and how its rate falls: whose statistics, the fused prediction,
schedules, aggregation.
"""

from types import SimpleNamespace

import pytest
import torch
from method_steps import batches, built

from nbkit.methods.batches import estimate_statistics, extract
from nbkit.models.two_stream import make_aggregation
from nbkit.train.recognition import prepare
from nbkit.train.selection import target_features
from nbkit.train.steps import set_lr

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "fields, statistics, estimated",
    [
        ({"method": "source_only", "bn_mode": "per_domain"}, "source", False),
        ({"method": "adabn", "bn_mode": "per_domain"}, "target", True),
        ({"method": "adabn", "bn_mode": "shared"}, "target", True),
        ({"method": "daaa", "bn_mode": "per_domain"}, "target", True),
        ({"method": "stcda", "bn_mode": "per_domain"}, "target", True),
        (
            {"method": "stcda", "bn_mode": "shared"},
            "target",
            False,
        ),  # what training mixed is what is read
        ({"method": "target_only", "bn_mode": "per_domain"}, "target", True),
    ],
)
def test_the_test_videos_are_read_with_the_rows_statistics(tiny, fields, statistics, estimated):
    _, method, domains = prepare(tiny(**fields))
    twin = built(tiny(**fields))
    found, read = target_features(method, domains, CPU), {}
    for filled in (False, True):
        if filled:
            estimate_statistics(twin, twin.data.plain["target"], "target", CPU)
        for whose in ("source", "target"):
            read[whose, filled] = extract(twin, domains.test["target"], whose, CPU).V["rgb"]
    assert torch.equal(found.V["rgb"], read[statistics, estimated])
    assert not torch.allclose(
        read["target", True], read["target", False], atol=1e-3
    )  # so that it matters


def test_the_fused_prediction_is_the_mean_of_the_streams(tiny):
    for cls_on in ("both", "clip", "video"):
        _, method, domains = prepare(tiny(method="source_only", cls_on=cls_on))
        method.eval()
        out = method.outputs(batches(method)[1], "target")
        by_hand = {}
        for m, o in out.items():
            clip, video = (
                torch.stack([o.clip_logits[:, k] for k in range(3)]).sum(0) / 3,
                o.video_logits,
            )
            by_hand[m] = {
                "both": (clip.softmax(-1) + video.softmax(-1)) / 2,
                "clip": clip.softmax(-1),
                "video": video.softmax(-1),
            }[cls_on]
        found = method.model.probabilities(out)
        torch.testing.assert_close(
            found, by_hand | {"fused": (by_hand["rgb"] + by_hand["flow"]) / 2}
        )
        read = extract(method, domains.test["target"], "target", CPU)
        torch.testing.assert_close(
            read.probs["fused"], (read.probs["rgb"] + read.probs["flow"]) / 2
        )


def test_the_rate_falls_in_steps_or_along_half_a_cosine(tiny):
    def rate(cfg, stage, epoch, progress):
        optimizer = SimpleNamespace(param_groups=[{}, {}])
        set_lr(optimizer, cfg, stage, epoch, progress)
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
        return optimizer.param_groups[0]["lr"]

    cosine = tiny(lr=(0.4, 0.2, 0.1), lr_schedule="cosine")
    assert [rate(cosine, 2, 0, p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(
        [0.2, 0.2 * 0.8535534, 0.1, 0.0], abs=1e-7
    )
    assert rate(cosine, 3, 5, 0.0) == pytest.approx(0.1)
    steps = tiny(lr=(0.4, 0.2, 0.1), lr_schedule="step", lr_steps=(100, 200))
    found = [rate(steps, 1, epoch, 0.7) for epoch in (0, 99, 100, 199, 200, 299)]
    assert found == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004, 0.004])


@torch.no_grad()
def test_aggregations_against_loops():
    torch.manual_seed(0)
    v, dim = torch.randn(2, 3, 4), 4
    by_hand = {"mean": [(x[0] + x[1] + x[2]) / 3 for x in v]}
    made = {kind: make_aggregation(kind, dim, 3) for kind in ("mean", "concat_fc", "gru")}
    fc, gru = made["concat_fc"].fc, made["gru"].gru
    by_hand["concat_fc"] = [fc.weight @ torch.cat([x[0], x[1], x[2]]) + fc.bias for x in v]

    def last_state(x):
        h = torch.zeros(dim)
        for clip in x:
            i, s = gru.weight_ih_l0 @ clip + gru.bias_ih_l0, gru.weight_hh_l0 @ h + gru.bias_hh_l0
            reset, update = (
                torch.sigmoid(i[:dim] + s[:dim]),
                torch.sigmoid(i[dim : 2 * dim] + s[dim : 2 * dim]),
            )
            new = torch.tanh(i[2 * dim :] + reset * s[2 * dim :])
            h = (1 - update) * new + update * h
        return h

    by_hand["gru"] = [last_state(x) for x in v]
    for kind, module in made.items():
        torch.testing.assert_close(module(v), torch.stack(by_hand[kind]))
