"""What each comparison row, and STCDA with an adversary, do of their own: their terms, by stage,
stream and sign.
"""

import math

import pytest
import torch
from method_steps import at, batches, built, same

from nbkit.methods.adapting import Adapting, adversary
from nbkit.methods.base import Method
from nbkit.methods.source_only import SourceOnly
from nbkit.methods.stcda import STCDA, STCL_FIELDS, VCA_FIELDS
from nbkit.models.clip_heads import DomainClassifier
from nbkit.train.loop import run
from nbkit.train.stages import stage_key


def test_adversary_pulls_features_one_way_and_the_classifier_the_other():
    torch.manual_seed(0)
    classify, s, t = DomainClassifier(3), torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    adversary(classify, s, t, 1.0).backward()
    reversed_, learned = s.grad.clone(), [p.grad.clone() for p in classify.parameters()]
    s.grad = None
    classify.zero_grad()
    adversary(classify, s, t, -1.0).backward()  # no reversal: the plain gradient
    assert s.grad.allclose(-reversed_) and all(
        p.grad.allclose(g) for p, g in zip(classify.parameters(), learned)
    )


def test_reversal_follows_danns_ramp(tiny):
    method = built(tiny(method="daaa", grl_max=0.7))
    assert [method.reversal(at(progress=p)) for p in (0.0, 0.5)] == pytest.approx(
        [0, 0.7 * math.tanh(2.5)]
    )


def test_mcd_features_lower_the_discrepancy_that_the_classifiers_raise(tiny):
    method = built(tiny(method="mcd", modalities="rgb")).train()
    second, stream = method.heads["second"]["rgb"], method.model.streams["rgb"]
    _, target = batches(method)
    disc = method.discrepancy("rgb", method.outputs(target, "target")["rgb"])
    (-disc).backward()
    with torch.no_grad():
        for p in (second.weight, stream.classifier.weight):
            p -= 0.01 * p.grad
        assert method.discrepancy("rgb", method.outputs(target, "target")["rgb"]) > disc
        for p in (second.weight, stream.classifier.weight):
            p += 0.01 * p.grad
        stream.project.weight -= 0.01 * stream.project.weight.grad
        assert method.discrepancy("rgb", method.outputs(target, "target")["rgb"]) < disc
    assert [set(method(*batches(method), at(s))) for s in (2, 3)] == [
        {"ce", "ce_2"},
        {"ce", "ce_2", "discrepancy"},
    ]


def test_ta3n_attends_in_stage_3_and_when_tested_only(tiny):
    method = built(tiny(method="ta3n", modalities="rgb"))
    aggregate, seen = method.model.streams["rgb"].aggregate, []
    aggregate.register_forward_hook(lambda module, *_: seen.append(module.attention is not None))
    method(*batches(method), at(2))
    method(*batches(method), at(3))
    method.outputs(batches(method)[1], "target")
    assert seen == [False, True, True, True]  # stage 2: source only; stage 3: both domains; test
    out = method.outputs(batches(method)[1], "target")["rgb"]
    R = aggregate.relations(out.v)
    w = method.heads["relation"]["rgb"](R)
    assert w.shape == (8, 2) and out.V.allclose(((1 + w)[..., None] * R).sum(1))
    assert (
        method.model.state_dict().keys()
        == built(tiny(method="source_only", modalities="rgb", aggregation="trn"))
        .model.state_dict()
        .keys()
    )


class Sharp(torch.nn.Module):
    """Large self-attention for every clip."""

    def forward(self, v):
        return torch.full(v.shape[:2], 3.0)


def test_tcon_aligns_what_is_only_late(tiny):
    """Target clips that are the source's in another order leave the sharp co-attention nothing to
    tell apart.
    """
    method = built(tiny(method="tcon", modalities="rgb"))
    v = 4 * torch.eye(3, 16).expand(8, 3, 16)
    method.heads["attention"]["rgb"] = Sharp()
    terms = [method.aligned("rgb", v, other, 0.0) for other in (v, v.roll(1, dims=1), -v)]
    assert (
        terms[1].item() == pytest.approx(terms[0].item(), abs=1e-4)
        and abs(terms[2] - terms[0]) > 1e-3
    )
    assert method.aligned("rgb", v, v[:7], 0.0).item() == pytest.approx(terms[0].item(), abs=1e-6)


def test_mm_sada_terms_by_stage_and_stream(tiny):
    two, one = built(tiny(method="mm_sada")), built(tiny(method="mm_sada", modalities="flow"))
    assert [set(two(*batches(two), at(s))) for s in (2, 3)] == [
        {"ce", "correspondence"},
        {"ce", "correspondence", "domain"},
    ]
    assert [set(one(*batches(one), at(s))) for s in (2, 3)] == [{"ce"}, {"ce", "domain"}]


# --- STCDA with an adversary in place of VCA
# ------------------------------------------------------------------------------


def test_stcda_adversarial_trains_without_pseudo_labels(tiny):
    found = run(tiny(alignment="adversarial", alpha=0.0))
    assert {"ce", "domain"} <= set(found.history.columns) and not {"vca", "pseudo_changed"} & set(
        found.history.columns
    )
    method = built(tiny(alignment="adversarial", alpha=0.0, beta_schedule="constant"))
    undecided = method(*batches(method), at(progress=0.0))["domain"].item()
    assert undecided == pytest.approx(
        method.cfg.vca.beta * 4 * math.log(2), rel=0.1
    )  # two streams, two levels


def test_a_class_of_its_own_shares_no_stage_by_accident(tiny):
    class Mine(Method):  # a row that is more than added terms, and says nothing of its stages
        def forward(self, source, target, step):
            return {"ce": 2 * super().forward(source, target, step)["ce"]}

    class Other(STCDA):
        pass

    class Added(Adapting):
        pass

    domains = built(tiny()).domains

    def keys(cls, stage, **fields):
        first, raised = (cls(tiny(**fields), domains) for _ in range(2))
        raised.version = 2  # as after a change of the code
        return {stage_key(first, stage), stage_key(raised, stage)}

    plain, found = (
        keys(SourceOnly, 2),
        [keys(cls, 3) for cls in (SourceOnly, Mine, Other, Added, STCDA)],
    )
    assert len(plain) == 1 and plain == keys(Added, 2) == keys(STCDA, 2, alpha=0.0)
    assert not plain & keys(Mine, 2) and len(keys(Mine, 2)) == 2
    assert [len(pair) for pair in found] == [1, 2, 2, 2, 2] and len(set.union(*found)) == 9


def test_stcda_stages_keep_their_names_and_the_option_has_its_own(tiny):
    default = built(tiny())
    assert {"labelled", *STCL_FIELDS, *VCA_FIELDS} <= set(default.signature(3))
    assert not {"alignment", "grl_max", "trade_off"} & set(default.signature(3))
    option = built(tiny(alignment="adversarial"))
    assert stage_key(option, 2) == stage_key(default, 2) and stage_key(option, 3) != stage_key(
        default, 3
    )
    off = built(tiny(alignment="adversarial", beta=0.0))
    assert stage_key(off, 3) == stage_key(built(tiny(beta=0.0)), 3) and off.discriminators is None
    assert same(default.model.state_dict(), option.model.state_dict())
