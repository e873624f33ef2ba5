r"""Spatio-temporal contrastive learning: Eqs. (1)-(4) of STCDA (Song et al., CVPR 2021).

Symbols: modality m in {rgb, flow}; B videos, K clips a video, D feature size, k bank entries an
anchor; `v (B, K, D)` clip features, `V (B, D)` video features. "View 1" is the anchor's modality,
"view 2" the other one. Everything is computed as log Theta = cosine / tau and log-sum-exp, so that
small temperatures cannot overflow.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError

MULTI_POS = ("sum_in_log", "mean_of_logs")
VIDEO_POS = ("all", "leave_one_out")
NORMALISE = ("none", "mean", "log_candidates")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise NbkitError(f"{name}={value!r} is not one of {', '.join(allowed)}")


def _unit(x: Tensor) -> Tensor:
    """Unit vectors along the last axis, in float32 at least (half precision is too coarse for 1/tau
    = 14).
    """
    x = x if x.dtype == torch.float64 else x.float()
    return F.normalize(x, dim=-1)


def cosine_logits(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """log Theta(a, b) = cosine(a, b) / tau over the last axis; the leading axes broadcast.

    a (..., D), b (..., D) -> (...), each value in [-1/tau, 1/tau]. A zero vector has cosine 0 with
    everything.
    """
    if tau <= 0:
        raise NbkitError(f"tau={tau} must be positive")
    return (_unit(a) * _unit(b)).sum(-1) / tau


def theta(a: Tensor, b: Tensor, tau: float) -> Tensor:
    r"""Eq. (3). Similarity of two features.

    $$\Theta(\{v_i^1, v_j^2\}) =
    \exp\left(\frac{v_i^1 \cdot v_j^2}{\|v_i^1\| \cdot \|v_j^2\|} \cdot \frac{1}{\tau}\right)$$

    Shapes: a (..., D), b (..., D), broadcast over the leading axes -> (...). Range [exp(-1/tau),
    exp(1/tau)].
    Source: STCDA, Eq. (3). tau is not printed; 0.07 is the value of the contrastive codes it builds
    on (CMC, IIC).
    """
    return cosine_logits(a, b, tau).exp()


def _candidate_logits(anchors: Tensor, candidates: Tensor, tau: float) -> Tensor:
    """anchors (B, K, D) against their own (B, K, k, D) or against shared (k, D) candidates -> (B,
    K, k).
    """
    if candidates.dim() not in (2, 4):
        raise NbkitError(
            f"bank entries must be (k, D) or (B, K, k, D), got {tuple(candidates.shape)}"
        )
    with torch.autocast(anchors.device.type, enabled=False):  # matmul would fall to bf16 otherwise
        a, c = _unit(anchors), _unit(candidates)
        if c.dim() == 2:
            return a @ c.T / tau
        return torch.einsum("bnd,bnkd->bnk", a, c) / tau


def leave_one_out_mean(v: Tensor) -> Tensor:
    """Video feature of each clip built from the *other* clips: v (B, K, D) -> (B, K, D), mean over
    the K-1 others.
    """
    if v.shape[1] < 2:
        raise NbkitError("video_pos='leave_one_out' needs at least two clips a video")
    return (v.sum(1, keepdim=True) - v) / (v.shape[1] - 1)


def clip_loss(
    v1: Tensor,
    V1: Tensor,
    v2: Tensor | None,
    bank2: Tensor | None = None,
    neg1: Tensor | None = None,
    neg_bank1: Tensor | None = None,
    *,
    tau: float = 0.07,
    multi_pos: str = "sum_in_log",
    video_pos_detach: bool = False,
    video_pos: str = "all",
) -> Tensor:
    r"""Eq. (1). Contrastive loss of every clip of one modality.

    $$\mathcal{L}_{clip}^{v_i^1} = -\log \frac{\Theta(\{v_i^1, V^1\}) + \Theta(\{v_i^1, v_i^2\})}
    {\Theta(\{v_i^1, V^1\}) + \sum_{j=1}^{k+1} \Theta(\{v_i^1, v_j^2\})
    + \sum_{j=1}^{k+1} \Theta(\{v_i^1, v_j^{neg}\})}$$

    The k+1 candidates of a block are the anchor's own entry (index 0) and k entries drawn from a
    memory bank.

    Shapes: v1 (B, K, D) anchors; V1 (B, D) their video feature; v2 (B, K, D) the same clips in the
    other modality, or None when there is no other view (the cross-view block is left out, bank
    included); bank2 (B, K, k, D) or (k, D) bank entries of the other modality; neg1 (B, K, D) the
    clips' own intra-negatives (live, with gradient); neg_bank1 (B, K, k, D) or (k, D)
    intra-negatives from the negative bank. Returns (B, K), each >= 0.

    multi_pos: 'sum_in_log' is the printed form. It has a trivial solution: V1 is a function of v1,
    so Theta(v1, V1) alone satisfies the sum. 'mean_of_logs' averages one -log per positive and asks
    for both. video_pos: 'all' uses V1; 'leave_one_out' the mean of the other clips.
    video_pos_detach: no gradient through V1. Raises NbkitError for an unknown option or a wrong
    shape. Source: STCDA, Eq. (1).
    """
    _choice("multi_pos", multi_pos, MULTI_POS)
    _choice("video_pos", video_pos, VIDEO_POS)
    own_video = V1.unsqueeze(1) if video_pos == "all" else leave_one_out_mean(v1)  # (B, 1 or K, D)
    own_video = own_video.detach() if video_pos_detach else own_video
    positives = [cosine_logits(v1, own_video, tau)]  # (B, K)
    negatives = []  # each (B, K, n)
    if v2 is not None:
        positives.append(cosine_logits(v1, v2, tau))  # index 0 of the cross-view block
        if bank2 is not None:
            negatives.append(_candidate_logits(v1, bank2, tau))
    if neg1 is not None:
        negatives.append(
            cosine_logits(v1, neg1, tau).unsqueeze(-1)
        )  # index 0 of the negative block
    if neg_bank1 is not None:
        negatives.append(_candidate_logits(v1, neg_bank1, tau))
    pos = torch.stack(positives, dim=-1)  # (B, K, 1 or 2)
    log_denominator = torch.logsumexp(torch.cat([pos, *negatives], dim=-1), dim=-1)  # (B, K)
    log_numerator = torch.logsumexp(pos, dim=-1) if multi_pos == "sum_in_log" else pos.mean(-1)
    return log_denominator - log_numerator


def video_loss(V1: Tensor, V2: Tensor, V_negs: Tensor, tau: float = 0.07) -> Tensor:
    r"""Eq. (2). Contrastive loss of the video features of one modality.

    $$\mathcal{L}_{vid}^{V^1} = -\log \frac{\Theta(\{V^1, V^2\})}{\Theta(\{V^1, V^2\}) +
    \Theta(\{V^1, V^{neg}\})}$$

    V^neg stands for several negatives (clips in the wrong order; a clip replaced by its negative):
    one term each.

    Shapes: V1 (B, D), V2 (B, D) the same videos in the other modality, V_negs (B, M, D) -> (B,),
    each >= 0. Raises NbkitError when V_negs is not (B, M, D). Source: STCDA, Eq. (2).
    """
    if V_negs.dim() != 3:
        raise NbkitError(f"V_negs must be (B, M, D), got {tuple(V_negs.shape)}")
    positive = cosine_logits(V1, V2, tau)  # (B,)
    negatives = cosine_logits(V1.unsqueeze(1), V_negs, tau)  # (B, M)
    return (
        torch.logsumexp(torch.cat([positive.unsqueeze(-1), negatives], dim=-1), dim=-1) - positive
    )


def chance_level(candidates: int, positives: int = 1) -> float:
    """log(candidates / positives): loss over `candidates` equal logits whose numerator sums
    `positives` of them.

    Eq. (1) with k bank entries a block has 2k+3 candidates; use positives=2 for 'sum_in_log', 1 for
    'mean_of_logs'. Eq. (2) with M negatives has 1+M candidates and one positive.
    """
    if not 0 < positives < candidates:
        raise NbkitError(
            f"chance_level needs 0 < positives < candidates, got {positives} and {candidates}"
        )
    return math.log(candidates / positives)


def contrastive_loss(
    clip_terms: dict[str, Tensor],
    video_terms: dict[str, Tensor],
    *,
    normalise: str = "none",
    clip_chance: float | None = None,
    video_chance: float | None = None,
) -> Tensor:
    r"""Eq. (4). Clip and video terms of both modalities together.

    $$\mathcal{L}_{Contrast} = \mathop{\mathbb{E}}_{X} \sum_{m \in \{\mathbb{S}, \mathbb{T}\}}
    \left[\mathop{\mathbb{E}}_{i} \left(\mathcal{L}_{clip}^{v_{i}^{m}} \right) +
    \mathcal{L}_{vid}^{V^{m}} \right]$$

    Shapes: clip_terms {m: (B, K)}, video_terms {m: (B,)}; either may be empty (an ablation) ->
    scalar.
    normalise: 'none' is the printed sum. 'mean' divides it by the number of terms in it (4 for two
    modalities). 'log_candidates' first divides each term by its chance level, `clip_chance` and
    `video_chance` (see `chance_level`), then averages, so that 1 means "no better than chance"
    whatever k is. Raises NbkitError when there is no term, or a chance level is missing. Source:
    STCDA, Eq. (4).
    """
    _choice("normalise", normalise, NORMALISE)
    clips = [term.mean() for term in clip_terms.values()]  # E over X and i
    videos = [term.mean() for term in video_terms.values()]
    if not clips and not videos:
        raise NbkitError("contrastive_loss got neither clip nor video terms")
    if normalise == "log_candidates":
        if (clips and not clip_chance) or (videos and not video_chance):
            raise NbkitError(
                "normalise='log_candidates' needs clip_chance and video_chance: see chance_level()"
            )
        clips = [term / clip_chance for term in clips]
        videos = [term / video_chance for term in videos]
    total = torch.stack(clips + videos).sum()
    return total if normalise == "none" else total / (len(clips) + len(videos))
