"""Rows with domain classifiers.  Each class says what is exact and what is approximated.

DAAA: DANN on clips (Jamal et al., BMVC 2018).  TA3N: temporal attentive adversarial adaptation
(Chen et al., ICCV 2019).  MM-SADA: modality correspondence and one adversary per modality (Munro
and Damen, CVPR 2020).  No code is public of two, which are approximations: TCoN, temporal
co-attention (Pan et al., AAAI 2020), and SAVA, shuffle and attend (Choi et al., ECCV 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nbkit.losses.adversarial import gradient_reversal, ramp
from nbkit.losses.domain import (
    adversary,
    attentive_entropy,
    correspondence_loss,
    domain_attention,
    domain_loss,
    order_loss,
)
from nbkit.losses.objective import cross_entropy
from nbkit.methods.base import Adapting, Batch, Loss, Outputs, Step, Terms, mean
from nbkit.models.clip_heads import (
    ClipAttention,
    ClipOrder,
    DomainClassifier,
    attend,
    co_attention,
)
from nbkit.models.norm import use_domain
from nbkit.models.two_stream import Attention, StreamOutput

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig


class DAAA(Adapting):
    r"""$\mathcal{L} = \mathcal{L}_{CE} + \lambda\,\mathcal{L}_d(v^s, v^t)$, gradient reversed.

    Exact: the objective, one domain classifier per stream on clip features, trained end to end, and
    DANN's ramp 2 / (1 + exp(-10 p)) - 1 over stage 3. Approximated: our backbones for its C3D; the
    classifier's shape (D, 100, 1), because no code is public. Hyper-parameters: trade_off (lambda)
    = 1; grl_max, 1 in DANN, 0.2 by default here as in MM-SADA's code.
    """

    def make_heads(self) -> dict[str, nn.Module]:
        return {"domain": self.per_stream(lambda: DomainClassifier(self.cfg.model.feature_dim))}

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t, classify = self.outputs(target, "target"), self.heads["domain"]
        reversal = self.cfg.comparison.grl_max * ramp(step.progress)
        domain = mean(
            [adversary(classify[m], out_s[m].v, out_t[m].v, reversal) for m in self.cfg.streams]
        )
        return domain, {"domain": domain}


# Reversal coefficients of relations, videos and clips, and the weight of the attentive entropy. The
# published command lines differ by direction: UCF to HMDB (0.75, 0.75, 0.5) and 0.003, HMDB to UCF
# (1, 0.75, 0.5) and 0.3. One set serves all pairs here: the coefficients of the first, the entropy
# weight of the second.
RELATION, VIDEO, CLIP, GAMMA = 0.75, 0.75, 0.5, 0.3


class RelationClassifiers(nn.Module):
    """One domain classifier per relation.  Called, they give attention weights."""

    def __init__(self, dim: int, relations: int):
        super().__init__()
        self.each = nn.ModuleList(DomainClassifier(dim, dim) for _ in range(relations))

    def logits(self, R: Tensor) -> Tensor:
        """Relations R (B, r, D) -> domain logits (B, r)."""
        R = gradient_reversal(R, RELATION)
        return torch.stack([classify(R[:, i]) for i, classify in enumerate(self.each)], dim=1)

    def forward(self, R: Tensor) -> Tensor:
        return domain_attention(self.logits(R))


class TA3N(Adapting):
    r"""Adversaries on clips, relations, videos; relations that show their domain weigh more.

    $$\mathcal{L} = \mathcal{L}_{CE} + \lambda \left(\mathcal{L}_d^{clip} + \mathcal{L}_d^{relation}
    + \mathcal{L}_d^{video} + \gamma\,\mathcal{L}_{ae}\right), \qquad V = \sum_r (1 + w_r) R_r$$

    Exact: TRN-M in place of the configured aggregation (`AGGREGATION = "trn"` gives it to any other
    row), the three levels, attention and attentive entropy with their gradients as in the public
    code, its constant reversals. Approximated: K clips for its 5 frames, trained encoders for
    frozen frame features, no adaptive normalisation of its own (`bn_mode` does that); stage 2
    trains TRN on the source, and stage 3 adapts. Hyper-parameters: trade_off (lambda) = 1; beta =
    (0.75, 0.75, 0.5) for relations, videos, clips; gamma = 0.3. trade_off = 0 is *source only* with
    AGGREGATION = "trn".  Needs two clips or more.
    """

    def network(self) -> RunConfig:
        return self.cfg.replace(aggregation="trn")

    def make_heads(self) -> dict[str, nn.Module]:
        dim, relations = self.cfg.model.feature_dim, self.cfg.data.clips - 1
        return {
            "clip": self.per_stream(lambda: DomainClassifier(dim, dim)),
            "relation": self.per_stream(lambda: RelationClassifiers(dim, relations)),
            "video": self.per_stream(lambda: DomainClassifier(dim, dim)),
        }

    def attention(self) -> dict[str, Attention]:
        """The relation classifiers, once stage 3 trains them."""
        if self.uses_target and self.cfg.optim.epochs[2] > 0:
            return dict(self.heads["relation"].items())
        return {}

    def forward(self, source: Batch, target: Batch | None, step: Step) -> Loss:
        if self.active(step.stage):
            return super().forward(source, target, step)
        with use_domain(self.model, "source"):  # without attention: no classifier is trained yet
            ce = self.supervised(self.model(source), source["label"])
        return self.reduced(ce), {"ce": ce}

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        domain = mean([self.adversaries(m, out_s[m], out_t[m]) for m in self.cfg.streams])
        entropy = mean([self.entropy(m, out_s[m], out_t[m]) for m in self.cfg.streams])
        return domain + GAMMA * entropy, {"domain": domain, "entropy": entropy}

    def adversaries(self, m: str, s: StreamOutput, t: StreamOutput) -> Tensor:
        """The domain losses of the three levels, added up."""
        relations = self.model.streams[m].aggregate.relations
        classify = self.heads["relation"][m].logits
        of_clips = adversary(self.heads["clip"][m], s.v, t.v, CLIP)
        of_videos = adversary(self.heads["video"][m], s.V, t.V, VIDEO)
        of_relations = domain_loss(classify(relations(s.v)), classify(relations(t.v)))
        return of_clips + of_videos + of_relations

    def entropy(self, m: str, s: StreamOutput, t: StreamOutput) -> Tensor:
        """Attentive entropy of the videos of both domains."""
        V, logits = torch.cat([s.V, t.V]), torch.cat([s.video_logits, t.video_logits])
        return attentive_entropy(logits, self.heads["video"][m](gradient_reversal(V, VIDEO)))


class TCoN(Adapting):
    r"""Adversaries on source clips and on target clips brought into the source's time.

    $$\tilde v^t = A(v^s, v^t)\, v^t, \qquad
    \mathcal{L} = \mathcal{L}_{CE} + \lambda \left(\mathcal{L}_d(v^s, \tilde v^t) +
    \mathcal{L}_d(V^s, \tilde V^t)\right)$$

    Kept from the paper: cross-domain co-attention between a source and a target video, adversarial
    matching of what it aligned, clip (segment) and video level. Approximated, our reading: the form
    of A (`co_attention`; self-attention scaled to mean 1, before the reversal: the reversed domain
    loss is all that it learns from); videos are paired as the batch has them; the classifier reads
    clips and videos without attention, at test time too; DANN's ramp. Hyper-parameters (the paper's
    are not known): trade_off (lambda) = 1, grl_max.
    """

    def make_heads(self) -> dict[str, nn.Module]:
        dim = self.cfg.model.feature_dim
        return {
            "attention": self.per_stream(lambda: ClipAttention(dim)),
            "clip": self.per_stream(lambda: DomainClassifier(dim)),
            "video": self.per_stream(lambda: DomainClassifier(dim)),
        }

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        reversal = self.cfg.comparison.grl_max * ramp(step.progress)
        domain = mean([self.aligned(m, out_s[m].v, out_t[m].v, reversal) for m in self.cfg.streams])
        return domain, {"domain": domain}

    def aligned(self, m: str, v_s: Tensor, v_t: Tensor, reversal: float) -> Tensor:
        """Both adversaries of stream `m` on clips v_s, v_t (B, K, D), paired in order."""
        pairs = min(len(v_s), len(v_t))  # the domains' batches differ by one video at most
        v_s, v_t = v_s[:pairs], v_t[:pairs]
        weigh, aggregate = self.heads["attention"][m], self.model.streams[m].aggregate
        clips = v_s.shape[1]
        moved = co_attention(v_s, v_t, clips * weigh(v_s), clips * weigh(v_t)) @ v_t  # (B, K, D)
        of_clips = adversary(self.heads["clip"][m], v_s, moved, reversal)
        return of_clips + adversary(
            self.heads["video"][m], aggregate(v_s), aggregate(moved), reversal
        )


class SAVA(Adapting):
    r"""An adversary on videos whose discriminative clips weigh more, and clip-order prediction.

    $$\mathcal{L} = \mathcal{L}_{CE} + \lambda \left(\mathcal{L}_d(\tilde V^s, \tilde V^t) +
    \mathcal{L}_{order} + \mathcal{L}_{CE}(\tilde V^s)\right), \qquad \tilde V = \sum_k w_k v_k$$

    Kept from the paper: the adversary sees the attended video feature only; three shuffled clips,
    six orders, on source and target. Approximated, our reading: w is a softmax over clips of a
    two-layer score, and learns what is discriminative from the classification of attended source
    videos (it lies before the reversal, so the adversary moves it, too); the order head is a
    two-layer perceptron; the weights of the three terms are equal; the prediction at test time uses
    no attention. Hyper-parameters (the paper's weights are not known): trade_off (lambda) = 1,
    grl_max.
    """

    def make_heads(self) -> dict[str, nn.Module]:
        dim, clips = self.cfg.model.feature_dim, self.cfg.data.clips
        return {
            "attention": self.per_stream(lambda: ClipAttention(dim)),
            "order": self.per_stream(lambda: ClipOrder(dim, clips)),
            "domain": self.per_stream(lambda: DomainClassifier(dim)),
        }

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t, streams = self.outputs(target, "target"), self.cfg.streams
        reversal = self.cfg.comparison.grl_max * ramp(step.progress)
        V_s, V_t = self.attended(out_s), self.attended(out_t)  # (B, D) per stream
        classify, labels = self.heads["domain"], source["label"]
        terms = {
            "domain": mean([adversary(classify[m], V_s[m], V_t[m], reversal) for m in streams]),
            "order": mean([self.order(m, out_s[m].v, out_t[m].v, step) for m in streams]),
            "attention": mean([self.classified(m, V_s[m], labels) for m in streams]),
        }
        return sum(terms.values()), terms

    def attended(self, outputs: Outputs) -> dict[str, Tensor]:
        """The attended video feature (B, D) of every stream."""
        weigh = self.heads["attention"]
        return {m: attend(out.v, weigh[m](out.v)) for m, out in outputs.items()}

    def order(self, m: str, v_s: Tensor, v_t: Tensor, step: Step) -> Tensor:
        """Clip-order prediction, both domains weighing the same."""
        predict = self.heads["order"][m]
        of_source = order_loss(*predict(v_s, step.generator))
        return (of_source + order_loss(*predict(v_t, step.generator))) / 2

    def classified(self, m: str, V: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of attended source videos, by the stream's own classifier."""
        stream = self.model.streams[m]
        return cross_entropy(stream.classifier(stream.dropout(V)), labels)


# In the second stage of the public code the cross-entropy weighs 0.2 and the rest 1; in the first
# the correspondence weighs 5, the default that the code's call leaves in force.
WEIGHT = 5.0


class MMSADA(Adapting):
    r"""Do RGB and flow belong together? Asked in both domains; and one adversary per modality.

    $$\text{stage 2: } \mathcal{L}_{CE} + 5 \lambda\,\mathcal{L}_c, \qquad \text{stage 3: }
    \mathcal{L}_{CE} + 5 \lambda \left(\mathcal{L}_c + \mathcal{L}_d^{rgb} +
    \mathcal{L}_d^{flow}\right)$$

    Exact: the terms, their ratios in both stages (1 : 5 and 0.2 : 1 : 1 in the public code), head
    and classifier shapes (100 hidden units), reversal up to 0.2 along DANN's ramp. Approximated:
    pairs that do not match are made from the batch's features (a clip's RGB with the flow of the
    next video), so that every clip is in a pair of each kind, where the code gives half of the
    batch foreign flow; one cross-entropy per stream, where the paper sums the streams' logits.
    Hyper-parameters: trade_off (lambda) = 1, grl_max = 0.2. With one stream there is no
    correspondence, and only the adversary is left.
    """

    first_stage = 2

    def make_heads(self) -> dict[str, nn.Module]:
        dim, streams = self.cfg.model.feature_dim, len(self.cfg.streams)
        heads = {"domain": self.per_stream(lambda: DomainClassifier(dim))}
        if streams == 2:
            heads["correspondence"] = DomainClassifier(streams * dim)
        return heads

    def active(self, stage: int) -> bool:
        return super().active(stage) and (stage == 3 or len(self.cfg.streams) == 2)

    def own_loss(self, source: Batch, out_s: Outputs, target: Batch, step: Step) -> Loss:
        out_t = self.outputs(target, "target")
        reversal = self.cfg.comparison.grl_max * ramp(step.progress)
        terms: Terms = {}
        if "correspondence" in self.heads:
            both = self.correspondence(out_s) + self.correspondence(out_t)
            terms["correspondence"] = both / 2
        if step.stage == 2:
            return WEIGHT * terms["correspondence"], terms
        classify = self.heads["domain"]
        terms["domain"] = sum(
            adversary(classify[m], out_s[m].v, out_t[m].v, reversal) for m in self.cfg.streams
        )
        return WEIGHT * sum(terms.values()), terms

    def correspondence(self, out: Outputs) -> Tensor:
        """L_c of one domain's clips: with their own flow, and with that of the next video."""
        classify = self.heads["correspondence"]
        rgb, flow = out["rgb"].v, out["flow"].v  # (B, K, D) each
        foreign = flow.roll(1, dims=0)
        same = classify(torch.cat([rgb, flow], -1))  # (B, K) logits
        other = classify(torch.cat([rgb, foreign], -1))
        return correspondence_loss(same, other)
