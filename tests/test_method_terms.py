"""What each comparison row, and STCDA with an adversary, do of their own.

Their terms, by stage, stream and sign.
"""

from __future__ import annotations

import math

import pytest
import torch
from method_steps import at, batches, built, same, terms_of

from nbkit.losses.domain import adversary
from nbkit.methods import METHODS, Entry
from nbkit.methods.base import Adapting, Method
from nbkit.methods.source_only import SourceOnly
from nbkit.methods.stcda import STCDA
from nbkit.models.clip_heads import DomainClassifier
from nbkit.train.recognition import run, stage_key


def test_adversary_pulls_features_one_way_and_the_classifier_the_other():
    torch.manual_seed(0)
    classify, s, t = DomainClassifier(3), torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    adversary(classify, s, t, 1.0).backward()
    reversed_, learned = s.grad.clone(), [p.grad.clone() for p in classify.parameters()]
    s.grad = None
    classify.zero_grad()
    adversary(classify, s, t, -1.0).backward()  # no reversal: the plain gradient
    assert s.grad.allclose(-reversed_)
    assert all(p.grad.allclose(g) for p, g in zip(classify.parameters(), learned))


def test_reversal_follows_danns_ramp(tiny, monkeypatch):
    method, found = built(tiny(method="daaa", grl_max=0.7, modalities="rgb")), []

    def seen(classify, source, target, reversal):
        found.append(reversal)
        return adversary(classify, source, target, reversal)

    monkeypatch.setattr("nbkit.methods.adversarial.adversary", seen)
    for progress in (0.0, 0.5):
        terms_of(method, progress=progress)
    assert found == pytest.approx([0, 0.7 * math.tanh(2.5)])


def test_mcd_features_lower_the_discrepancy_that_the_classifiers_raise(tiny):
    method = built(tiny(method="mcd", modalities="rgb")).train()
    second, stream = method.heads["second"]["rgb"], method.model.streams["rgb"]
    _, target = batches(method)

    def apart():
        return method.discrepancy("rgb", method.outputs(target, "target")["rgb"])

    before = apart()
    (-before).backward()
    with torch.no_grad():
        for p in (second.weight, stream.classifier.weight):
            p -= 0.01 * p.grad
        assert apart() > before
        for p in (second.weight, stream.classifier.weight):
            p += 0.01 * p.grad
        stream.project.weight -= 0.01 * stream.project.weight.grad
        assert apart() < before
    assert set(terms_of(method, 2)) == {"ce", "ce_2"}
    assert set(terms_of(method, 3)) == {"ce", "ce_2", "discrepancy"}


def test_ta3n_attends_in_stage_3_and_when_tested_only(tiny):
    method = built(tiny(method="ta3n", modalities="rgb"))
    aggregate, seen = method.model.streams["rgb"].aggregate, []

    def note(module, args, options, output):
        seen.append("attention" in options)

    aggregate.register_forward_hook(note, with_kwargs=True)
    method(*batches(method), at(2))
    method(*batches(method), at(3))
    out = method.outputs(batches(method)[1], "target")["rgb"]
    assert seen == [False, True, True, True]  # stage 2: source only; stage 3: both domains; test
    R = aggregate.relations(out.v)
    w = method.heads["relation"]["rgb"](R)
    assert w.shape == (8, 2) and out.V.allclose(((1 + w)[..., None] * R).sum(1))
    plain = built(tiny(method="source_only", modalities="rgb", aggregation="trn"))
    assert method.model.state_dict().keys() == plain.model.state_dict().keys()
    assert built(tiny(method="ta3n", epochs=(0, 1, 0))).attention() == {}


class Sharp(torch.nn.Module):
    """Large self-attention for every clip."""

    def forward(self, v):
        return torch.full(v.shape[:2], 3.0)


def test_tcon_aligns_what_is_only_late(tiny):
    """The source's clips in another order leave the co-attention nothing to tell apart."""
    method = built(tiny(method="tcon", modalities="rgb"))
    v = 4 * torch.eye(3, 16).expand(8, 3, 16)
    method.heads["attention"]["rgb"] = Sharp()
    same_, late, other = (method.aligned("rgb", v, t, 0.0) for t in (v, v.roll(1, dims=1), -v))
    assert late.item() == pytest.approx(same_.item(), abs=1e-4)
    assert abs(other - same_) > 1e-3
    assert method.aligned("rgb", v, v[:7], 0.0).item() == pytest.approx(same_.item(), abs=1e-6)


def test_mm_sada_terms_by_stage_and_stream(tiny):
    two, one = built(tiny(method="mm_sada")), built(tiny(method="mm_sada", modalities="flow"))
    assert set(terms_of(two, 2)) == {"ce", "correspondence"}
    assert set(terms_of(two, 3)) == {"ce", "correspondence", "domain"}
    assert set(terms_of(one, 2)) == {"ce"}
    assert set(terms_of(one, 3)) == {"ce", "domain"}


# --- STCDA with an adversary in place of VCA -----------------------------------------------------
def test_stcda_adversarial_trains_without_pseudo_labels(tiny):
    columns = set(run(tiny(alignment="adversarial", alpha=0.0)).history.columns)
    assert {"ce", "domain"} <= columns and not {"vca", "pseudo_changed"} & columns
    method = built(tiny(alignment="adversarial", alpha=0.0, beta_schedule="constant"))
    undecided = terms_of(method, progress=0.0)["domain"].item()
    assert undecided == pytest.approx(4 * math.log(2), rel=0.1)  # two streams, two levels


# --- which stages are shared ---------------------------------------------------------------------
class Mine(Method):
    """A row that is more than added terms, and says nothing of its stages."""


class Other(STCDA):
    """A variant of STCDA."""


class Added(Adapting):
    """A row with terms of its own."""


def test_a_class_of_its_own_shares_no_stage_by_accident(tiny, monkeypatch):
    data = built(tiny()).data
    for name in ("mine", "other", "added"):
        monkeypatch.setitem(METHODS, name, Entry(f"test_method_terms.{name.title()}"))

    def keys(cls, method, stage, **fields):
        entry = METHODS[method]
        found = []
        for version in (1, 2):  # as before and after a change of the class
            monkeypatch.setitem(METHODS, method, entry._replace(version=version))
            made = cls(tiny(method=method, **fields), data)
            found.append(stage_key(made, stage, "data"))
        monkeypatch.setitem(METHODS, method, entry)
        return set(found)

    plain = keys(SourceOnly, "source_only", 2)
    assert len(plain) == 1 and plain == keys(Added, "added", 2)
    assert plain == keys(STCDA, "stcda", 2, alpha=0.0)
    assert not plain & keys(Mine, "mine", 2) and len(keys(Mine, "mine", 2)) == 2
    found = [
        keys(SourceOnly, "source_only", 3),
        keys(Mine, "mine", 3),
        keys(Other, "other", 3),
        keys(Added, "added", 3),
        keys(STCDA, "stcda", 3),
    ]
    assert [len(pair) for pair in found] == [1, 2, 2, 2, 2] and len(set.union(*found)) == 9


def test_rows_of_stcda_share_what_they_have_in_common(tiny):
    def keys(**fields):
        method = built(tiny(**fields))
        return [stage_key(method, stage, "data") for stage in (2, 3)]

    both, stcl, vca = keys(), keys(beta=0.0), keys(alpha=0.0)
    assert both[0] == stcl[0] and both[1] != stcl[1]
    assert vca[0] == keys(method="source_only")[0] != both[0]
    assert keys(alpha=0.0, beta=0.0) == keys(method="source_only")
    option = keys(alignment="adversarial")
    assert option[0] == both[0] and option[1] != both[1]
    off = built(tiny(alignment="adversarial", beta=0.0))
    assert keys(alignment="adversarial", beta=0.0) == stcl and off.discriminators is None
    networks = [built(tiny(**f)).model.state_dict() for f in ({}, {"alignment": "adversarial"})]
    assert same(*networks)
