"""Each option that a row of Tables 5 and 6 consists of does what its name says, nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_steps import at, batches, built, terms_of

from nbkit.losses.pseudo_labels import kmeans_pseudo_labels
from nbkit.methods.base import TrainingData
from nbkit.methods.batches import extract


def contrast(cfg):
    """The term of Eqs. (1)-(4) of one step, and the method."""
    method = built(cfg).eval()
    method.start_stage(1)
    return terms_of(method, 1)["contrast"].detach(), method


def with_pseudo_labels(cfg):
    method = built(cfg)
    method.pseudo[:] = torch.arange(method.pseudo.shape[1]) % 8
    return method


def test_clip_and_video_terms_add_up(tiny):
    fields = {"normalise": "none", "bank_init": "random"}
    kinds = ("clip+video", "clip", "video")
    whole, clip, video = (contrast(tiny(**fields, stcl_terms=kind))[0] for kind in kinds)
    assert clip > 0 and video > 0
    torch.testing.assert_close(whole, clip + video)


def test_video_negatives_come_from_the_stream_that_is_asked_for(tiny):
    """The term of V differs, the term of v does not."""
    value = {}
    for term in ("clip", "video"):
        for pool in ("own", "other"):
            cfg = tiny(stcl_terms=term, video_neg_modality=pool, bank_init="random")
            value[term, pool] = float(contrast(cfg)[0])
    assert value["clip", "own"] == value["clip", "other"]
    assert value["video", "own"] != value["video", "other"]


def test_neg_grad_bank_stops_the_gradient_through_the_negatives(tiny):
    for how, flows in (("live", True), ("bank", False)):
        _, method = contrast(tiny(neg_grad=how))
        batch = batches(method)[0]
        outputs = method.outputs(batch, "source")
        views = method.contrast.views(method.model, batch, outputs, "source", at(1).generator)
        for view in views.values():
            assert view["v"].requires_grad
            assert view["V_neg"].requires_grad == flows == view["v_neg"].requires_grad


def test_alpha_decays_to_zero_over_stage_3_only(tiny):
    decay, constant = (built(tiny(alpha=2.0, alpha_schedule=s)) for s in ("decay", "constant"))
    assert [decay.alpha(at(3, p)) for p in (0.0, 0.5, 1.0)] == [2.0, 1.0, 0.0]
    assert decay.alpha(at(2, 0.5)) == constant.alpha(at(3, 0.5)) == 2.0
    loss, terms = decay.eval()(*batches(decay), at(3, 1.0))
    beta = decay.beta(at(3, 1.0))
    torch.testing.assert_close(loss, terms["ce"] + beta * terms["vca"])


@pytest.mark.parametrize("single_view2", ["residual", "augment", "none"])
def test_a_second_view_is_asked_for_where_there_is_one_stream(tiny, single_view2):
    one = built(tiny(modalities="rgb", single_view2=single_view2))
    assert one.views(2) == {"negatives": True, "second_view": single_view2}
    assert built(tiny(single_view2=single_view2)).views(2)["second_view"] == "none"
    assert built(tiny(alpha=0.0)).views(3) == {}


def test_stage_1_minimises_eq_4_itself(tiny):
    method = built(tiny(alpha=0.3)).eval()
    method.start_stage(1)
    loss, terms = method(*batches(method), at(1))
    assert set(terms) == {"contrast"} and torch.equal(loss, terms["contrast"])


@pytest.mark.parametrize("name", ["source_only", "stcda", "mmd", "mcd", "mm_sada", "source_target"])
@pytest.mark.parametrize("streams", [1, 2])
def test_ce_reduction_sums_over_streams(tiny, name, streams):
    """The sum counts each stream once; what other rows add to Eq. (9) keeps its ratio to it."""
    fields = {"method": name, "modalities": ("rgb", "rgb+flow")[streams - 1], "alpha": 0.0}
    fields |= {"beta": 0.0} if name == "stcda" else {}
    loss = {}
    for how in ("sum", "mean"):
        method = built(tiny(ce_reduction=how, **fields)).eval()
        loss[how] = method(*batches(method), at(3))[0]
    torch.testing.assert_close(loss["sum"], streams * loss["mean"])


def test_fixed_pseudo_labels_outlive_a_change_of_the_weights_updated_ones_do_not(tiny):
    for how, kept in (("fixed", True), ("updated", False)):
        method = built(tiny(pseudo_labels=how))
        method.start_epoch(3, 0)
        before = method.pseudo.clone()
        assert (before >= 0).all()
        with torch.no_grad():  # the network now sees every class as another one
            for stream in method.model.streams.values():
                stream.project.weight.normal_(generator=torch.Generator().manual_seed(5))
        method.start_epoch(3, 1)
        assert torch.equal(before, method.pseudo) == kept


@pytest.mark.parametrize("fusion", ["fused", "per_modality"])
def test_pseudo_labels_are_those_of_the_fusion_that_is_asked_for(tiny, fusion):
    method = built(tiny(fusion=fusion))
    method.cluster()
    cfg, device = method.cfg, torch.device("cpu")
    source = extract(method, method.data.plain["source"], "source", device)
    target = extract(method, method.data.plain["target"], "target", device)
    for row, m in enumerate(cfg.streams):
        streams = cfg.streams if fusion == "fused" else (m,)
        alone = kmeans_pseudo_labels(
            {s: source.V[s] for s in streams},
            source.labels,
            {s: target.V[s] for s in streams},
            len(method.data.classes),
            centre=cfg.vca.kmeans_centre,
            iterations=cfg.vca.kmeans_iterations,
        ).labels
        assert torch.equal(method.pseudo[row], alone)


def test_without_fusion_the_streams_take_turns_in_the_batches(tiny):
    method = built(tiny(fusion="per_modality"))
    videos = torch.arange(method.pseudo.shape[1])
    method.pseudo[0], method.pseudo[1] = videos % 8, (videos + 3) % 8
    label = method.data.train["source"].labels
    steps = method.batches(3, 0)
    assert len(steps) > 1
    for i, (source, target) in enumerate(steps):
        of_target = method.pseudo.numpy()[:, target]
        right = [np.array_equal(label[source], of_target[row]) for row in (0, 1)]
        assert right == [i % 2 == 0, i % 2 == 1]


def test_few_classes_do_not_shrink_a_class_aware_batch(tiny):
    assert built(tiny(cas_classes=8, cas_per_class=1)).per_class() == 1
    # The demo has eight classes: two videos of each keep 16.
    assert built(tiny(cas_classes=16, cas_per_class=1)).per_class() == 2


@pytest.mark.parametrize(
    "levels, aggregation", [("clip", False), ("video", True), ("clip+video", True)]
)
@pytest.mark.parametrize("alignment, term", [("vca", "vca"), ("adversarial", "domain")])
def test_alignment_reaches_the_aggregation_only_by_the_video_level(
    tiny, levels, aggregation, alignment, term
):
    method = with_pseudo_labels(tiny(alpha=0.0, vca_levels=levels, alignment=alignment)).train()
    terms_of(method, n=16)[term].backward()
    for stream in method.model.streams.values():
        reached = []
        for p in stream.aggregate.parameters():
            reached.append(p.grad is not None and bool(p.grad.abs().sum() > 0))
        assert reached and all(reached) == aggregation == any(reached)
        assert bool(stream.project.weight.grad.abs().sum() > 0)


def test_gamma_scope_changes_the_alignment(tiny):
    value = []
    for scope in ("classpair", "batch"):
        method = with_pseudo_labels(tiny(alpha=0.0, gamma_scope=scope)).eval()
        value.append(terms_of(method, progress=1.0, n=16)["vca"].item())
    assert value[0] != value[1]


@pytest.mark.parametrize("alignment, term", [("vca", "vca"), ("adversarial", "domain")])
def test_beta_s_schedule_holds_for_both_kinds_of_alignment(tiny, alignment, term):
    cfg = tiny(alpha=0.0, beta=0.7, beta_schedule="ramp", alignment=alignment)
    method = with_pseudo_labels(cfg).eval()
    for progress in (0.0, 0.5, 1.0):
        loss, terms = method(*batches(method, 16), at(progress=progress))
        assert terms[term].item() != 0.0  # unweighted
        torch.testing.assert_close(loss, terms["ce"] + 0.7 * progress * terms[term])


def test_target_only_takes_as_many_steps_as_the_row_it_bounds(tiny):
    bound, row = built(tiny(method="target_only")), built(tiny(method="source_only"))
    for videos in (5, 30):
        sizes = {"source": range(16), "target": range(videos)}
        bound.data = row.data = TrainingData([], sizes, sizes)
        steps = [index for index, _ in bound.batches(2, 0)]
        assert len(steps) == len(row.batches(2, 0)) == 2 and max(map(max, steps)) < videos
