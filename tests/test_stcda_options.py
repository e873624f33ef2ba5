"""Each option that a row of Tables 5 and 6 consists of does in the method what its name says, and
nothing else.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from method_steps import at, batches, built

from nbkit.losses.pseudo_labels import kmeans_pseudo_labels
from nbkit.train.features import extract


def contrast(cfg):
    """The term of Eqs. 1-4 of one step, before its weight alpha; and the method."""
    method = built(cfg).eval()
    method.start_stage(1)
    return method(*batches(method), at(1))["contrast"].detach() / cfg.stcl.alpha, method


def test_clip_and_video_terms_add_up(tiny):
    fields = {"normalise": "none", "bank_init": "random"}
    whole, clip, video = (
        contrast(tiny(**fields, stcl_terms=t))[0] for t in ("clip+video", "clip", "video")
    )
    assert clip > 0 and video > 0
    torch.testing.assert_close(whole, clip + video)


def test_video_negatives_come_from_the_stream_that_is_asked_for(tiny):
    """The term of V differs, the term of v does not."""
    value = {
        (term, own): float(
            contrast(tiny(stcl_terms=term, video_neg_modality=own, bank_init="random"))[0]
        )
        for term in ("clip", "video")
        for own in ("own", "other")
    }
    assert value["clip", "own"] == value["clip", "other"]
    assert value["video", "own"] != value["video", "other"]


def test_neg_grad_bank_stops_the_gradient_through_the_negatives(tiny):
    for how, flows in (("live", True), ("bank", False)):
        _, method = contrast(tiny(neg_grad=how))
        batch = batches(method)[0]
        views = method.contrast.views(batch, method.outputs(batch, "source"), "source", at(1))
        assert all(
            view["v"].requires_grad
            and view["V_neg"].requires_grad == flows == view["v_neg"].requires_grad
            for view in views.values()
        )


def test_alpha_decays_to_zero_over_stage_3_only(tiny):
    decay, constant = (built(tiny(alpha_schedule=s)) for s in ("decay", "constant"))
    assert [decay._decay(at(3, p)) for p in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]
    assert decay._decay(at(2, 0.5)) == constant._decay(at(3, 0.5)) == 1.0
    assert float(decay.eval()(*batches(decay), at(3, 1.0))["contrast"]) == 0.0


def test_fixed_pseudo_labels_outlive_a_change_of_the_weights_updated_ones_do_not(tiny):
    for how, kept in (("fixed", True), ("updated", False)):
        method = built(tiny(pseudo_labels=how))
        method.start_epoch(3, 0)
        before = method.pseudo.clone()
        assert (before >= 0).all()
        with torch.no_grad():
            for (
                stream
            ) in method.model.streams.values():  # the network now sees every class as another one
                stream.project.weight.normal_(generator=torch.Generator().manual_seed(5))
        method.start_epoch(3, 1)
        assert torch.equal(before, method.pseudo) == kept


@pytest.mark.parametrize("fusion", ["fused", "per_modality"])
def test_pseudo_labels_are_those_of_the_fusion_that_is_asked_for(tiny, fusion):
    method = built(tiny(fusion=fusion))
    method.cluster()
    cfg = method.cfg
    source, target = (
        extract(method.model, method.domains.plain[d], d, cfg, torch.device("cpu"))
        for d in ("source", "target")
    )
    for row, m in enumerate(cfg.streams):
        streams = cfg.streams if fusion == "fused" else (m,)
        alone = kmeans_pseudo_labels(
            {s: source.V[s] for s in streams},
            source.labels,
            {s: target.V[s] for s in streams},
            len(method.domains.classes),
            centre=cfg.vca.kmeans_centre,
            iterations=cfg.vca.kmeans_iterations,
        ).labels
        assert torch.equal(method.pseudo[row], alone)


def test_without_fusion_the_streams_take_turns_in_the_batches(tiny):
    method = built(tiny(fusion="per_modality"))
    n = len(method.domains.train["target"])
    method.pseudo[0], method.pseudo[1] = torch.arange(n) % 8, (torch.arange(n) + 3) % 8
    label = method.domains.train["source"].labels
    steps = method.batches(3, 0)
    assert len(steps) > 1
    for i, (source, target) in enumerate(steps):
        right = [
            np.array_equal(label[source], method.pseudo[row].numpy()[target]) for row in (0, 1)
        ]
        assert right == [i % 2 == 0, i % 2 == 1]


def test_few_classes_do_not_shrink_a_class_aware_batch(tiny):
    method = built(tiny(cas_classes=8, cas_per_class=1))
    assert method.per_class() == 1
    method = built(
        tiny(cas_classes=16, cas_per_class=1)
    )  # the demo has eight classes: two videos of each keep 16
    assert method.per_class() == 2


@pytest.mark.parametrize(
    "levels, aggregation", [("clip", False), ("video", True), ("clip+video", True)]
)
@pytest.mark.parametrize("alignment", ["vca", "adversarial"])
def test_alignment_reaches_the_aggregation_only_by_the_video_level(
    tiny, levels, aggregation, alignment
):
    method = built(tiny(alpha=0.0, vca_levels=levels, alignment=alignment)).train()
    method.pseudo[:] = torch.arange(method.pseudo.shape[1]) % 8
    terms = method(*batches(method, 16), at())
    terms["vca" if alignment == "vca" else "domain"].backward()
    for stream in method.model.streams.values():
        reached = [
            p.grad is not None and bool(p.grad.abs().sum() > 0)
            for p in stream.aggregate.parameters()
        ]
        assert reached and all(reached) == aggregation == any(reached)
        assert bool(stream.project.weight.grad.abs().sum() > 0)


def test_gamma_scope_changes_the_alignment(tiny):
    value = []
    for scope in ("classpair", "batch"):
        method = built(tiny(alpha=0.0, gamma_scope=scope)).eval()
        method.pseudo[:] = torch.arange(method.pseudo.shape[1]) % 8
        value.append(float(method(*batches(method, 16), at(progress=1.0))["vca"]))
    assert value[0] != value[1]


@pytest.mark.parametrize("alignment, term", [("vca", "vca"), ("adversarial", "domain")])
def test_beta_s_schedule_holds_for_both_kinds_of_alignment(tiny, alignment, term):
    method = built(tiny(alpha=0.0, beta_schedule="ramp", alignment=alignment)).eval()
    method.pseudo[:] = torch.arange(method.pseudo.shape[1]) % 8
    assert float(method(*batches(method, 16), at(progress=0.0))[term]) == 0.0
    assert float(method(*batches(method, 16), at(progress=1.0))[term]) != 0.0


def test_target_only_takes_as_many_steps_as_the_row_it_bounds(tiny):
    bound, row = built(tiny(method="target_only")), built(tiny(method="source_only"))
    assert "steps" not in bound.signature(2)
    for videos in (5, 30):
        bound.domains = row.domains = SimpleNamespace(
            train={"source": range(16), "target": range(videos)}
        )
        steps = [index for index, _ in bound.batches(2, 0)]
        assert len(steps) == len(row.batches(2, 0)) == 2 and max(map(max, steps)) < videos
        assert bound.signature(2)["steps"] == "of the source"
