r"""Spatio-temporal contrastive learning: Eqs. (1)-(4) of STCDA (Song et al., CVPR 2021).

Symbols: modality m in {rgb, flow}; B videos, K clips per video, D feature size, k bank entries per
anchor; `v (B, K, D)` clip features, `V (B, D)` video features. "View 1" is the anchor's modality,
"view 2" the other one. Everything is computed from log Theta = cosine / tau by log-sum-exp, so that
small temperatures cannot overflow.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbkit.errors import NbkitError, require_one_of

MULTI_POS = ("sum_in_log", "mean_of_logs")
NORMALISE = ("none", "mean", "log_candidates")


def _unit(x: Tensor) -> Tensor:
    # Half precision is too coarse for 1/tau = 14.
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def log_theta(a: Tensor, b: Tensor, tau: float) -> Tensor:
    r"""Eq. (3). Logarithm of the similarity of two features, their cosine over tau.

    $$\Theta(\{v_i^1, v_j^2\}) =
    \exp\left(\frac{v_i^1 \cdot v_j^2}{\|v_i^1\| \cdot \|v_j^2\|} \cdot \frac{1}{\tau}\right)$$

    Shapes: a (..., D), b (..., D), broadcast over the leading axes -> (...), each value in
    [-1/tau, 1/tau]. A zero vector has cosine 0 with everything. Source: STCDA, Eq. (3). tau is not
    printed; 0.07 is the value of the contrastive codes it builds on (CMC, IIC).
    """
    if tau <= 0:
        raise NbkitError(f"tau={tau} must be positive")
    return (_unit(a) * _unit(b)).sum(-1) / tau


def bank_log_theta(v: Tensor, bank: Tensor, tau: float, unit: bool = False) -> Tensor:
    """`log_theta` of anchors and many bank entries, by one matrix product.

    Shapes: v (B, K, D); bank (B, K, k, D), or (k, D) shared by all anchors -> (B, K, k).  `unit`:
    the entries have length 1, so their lengths need not be computed.
    """
    if bank.dim() not in (2, 4):
        raise NbkitError(f"bank entries must be (k, D) or (B, K, k, D), got {tuple(bank.shape)}")
    with torch.autocast(v.device.type, enabled=False):  # the product would fall to bf16 otherwise
        anchors, entries = _unit(v), bank if unit else _unit(bank)
        if bank.dim() == 2:
            return anchors @ entries.T / tau
        return torch.einsum("bnd,bnkd->bnk", anchors, entries) / tau


def clip_loss(
    v1: Tensor,
    V1: Tensor,
    v2: Tensor | None,
    bank2: Tensor | None,
    neg1: Tensor,
    neg_bank1: Tensor,
    *,
    tau: float = 0.07,
    multi_pos: str = "sum_in_log",
    unit_banks: bool = False,
) -> Tensor:
    r"""Eq. (1). Contrastive loss of every clip of one modality.

    $$\mathcal{L}_{clip}^{v_i^1} = -\log \frac{\Theta(\{v_i^1, V^1\}) + \Theta(\{v_i^1, v_i^2\})}
    {\Theta(\{v_i^1, V^1\}) + \sum_{j=1}^{k+1} \Theta(\{v_i^1, v_j^2\})
    + \sum_{j=1}^{k+1} \Theta(\{v_i^1, v_j^{neg}\})}$$

    The k+1 candidates of a block are the anchor's own entry (index 0) and k entries drawn from a
    memory bank. Raises NbkitError for an unknown option or a wrong shape. Source: STCDA, Eq. (1).

    Args:
        v1: (B, K, D) anchors.
        V1: (B, D) their video feature.
        v2: (B, K, D) the same clips in the other modality. None leaves the cross-view block out.
        bank2: (B, K, k, D) or (k, D) bank entries of the other modality; None where v2 is None.
        neg1: (B, K, D) the clips' own intra-negatives, live, with gradient.
        neg_bank1: (B, K, k, D) or (k, D) intra-negatives from the negative bank.
        multi_pos: 'sum_in_log' is the printed form. It has a trivial solution: V1 is a function of
            v1, so Theta(v1, V1) alone satisfies the sum. 'mean_of_logs' averages one -log per
            positive and asks for both.
        unit_banks: the bank entries have length 1, as `MemoryBank.draw` gives them.

    Returns:
        (B, K), each >= 0.
    """
    require_one_of("multi_pos", multi_pos, MULTI_POS)
    positives = [log_theta(v1, V1.unsqueeze(1), tau)]  # (B, K)
    negatives = []  # (B, K, n) each
    if v2 is not None:
        positives.append(log_theta(v1, v2, tau))  # index 0 of the cross-view block
        negatives.append(bank_log_theta(v1, bank2, tau, unit_banks))
    negatives.append(log_theta(v1, neg1, tau).unsqueeze(-1))  # index 0 of the negative block
    negatives.append(bank_log_theta(v1, neg_bank1, tau, unit_banks))
    positive = torch.stack(positives, dim=-1)  # (B, K, 1 or 2)
    log_denominator = torch.logsumexp(torch.cat([positive, *negatives], dim=-1), dim=-1)  # (B, K)
    if multi_pos == "sum_in_log":
        return log_denominator - torch.logsumexp(positive, dim=-1)
    return log_denominator - positive.mean(-1)


def video_loss(V1: Tensor, V2: Tensor, V_negs: Tensor, tau: float = 0.07) -> Tensor:
    r"""Eq. (2). Contrastive loss of the video features of one modality.

    $$\mathcal{L}_{vid}^{V^1} = -\log \frac{\Theta(\{V^1, V^2\})}{\Theta(\{V^1, V^2\}) +
    \Theta(\{V^1, V^{neg}\})}$$

    V^neg stands for several negatives (clips in the wrong order; a clip replaced by its negative):
    one term each. Shapes: V1 (B, D), V2 (B, D) the same videos in the other modality, V_negs
    (B, M, D) -> (B,), each >= 0. Raises NbkitError when V_negs is not (B, M, D).
    Source: STCDA, Eq. (2).
    """
    if V_negs.dim() != 3:
        raise NbkitError(f"V_negs must be (B, M, D), got {tuple(V_negs.shape)}")
    positive = log_theta(V1, V2, tau)  # (B,)
    negatives = log_theta(V1.unsqueeze(1), V_negs, tau)  # (B, M)
    candidates = torch.cat([positive.unsqueeze(-1), negatives], dim=-1)  # (B, 1 + M)
    return torch.logsumexp(candidates, dim=-1) - positive


def chance_level(candidates: int, positives: int = 1) -> float:
    """Loss over `candidates` equal logits whose numerator sums `positives`: log of their ratio.

    Eq. (1) with k bank entries per block has 2k+3 candidates; use positives=2 for 'sum_in_log', 1
    for 'mean_of_logs'. Eq. (2) with M negatives has 1+M candidates and one positive.
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
    scalar. Raises NbkitError when there is no term, or a chance level is missing.
    Source: STCDA, Eq. (4).

    Args:
        normalise: 'none' is the printed sum. 'mean' divides it by the number of its terms (4 for
            two modalities). 'log_candidates' first divides each term by its chance level (see
            `chance_level`), then averages: 1 means "no better than chance" whatever k is.
    """
    require_one_of("normalise", normalise, NORMALISE)
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
    if normalise == "none":
        return total
    return total / (len(clips) + len(videos))


class MemoryBank(nn.Module):
    """Unit features, one slot per clip: where the k negatives of Eq. (1) come from.

    Clip i of video n lives in slot n * slots_per_video + i. The bank is a buffer: it is saved with
    the model, moves with it, and never receives a gradient. Conventions of CMC: a uniform start in
    +-1/sqrt(dim/3), momentum 0.5, unit length after every update.

    Args:
        n_slots: number of clips of both domains together.
        momentum: in [0, 1), weight of the old entry.
        seed: of the random start.
    """

    def __init__(
        self,
        n_slots: int,
        dim: int,
        momentum: float = 0.5,
        seed: int = 0,
        *,
        slots_per_video: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise NbkitError(f"bank momentum={momentum} must lie in [0, 1)")
        if n_slots < 2 or n_slots % slots_per_video:
            raise NbkitError(
                f"n_slots={n_slots} must be at least 2, a multiple of "
                f"slots_per_video={slots_per_video}"
            )
        self.momentum, self.slots_per_video = momentum, slots_per_video
        bound = (dim / 3) ** -0.5
        generator = torch.Generator().manual_seed(seed)
        start = torch.rand(n_slots, dim, generator=generator) * 2 * bound - bound
        self.register_buffer("memory", F.normalize(start, dim=-1))  # (n_slots, dim)
        self.memory: Tensor

    def __len__(self) -> int:
        return self.memory.shape[0]

    def draw_indices(
        self, exclude: Tensor, k: int, generator: torch.Generator, exclude_same_video: bool = False
    ) -> Tensor:
        """Slots drawn uniformly with replacement: exclude (N,) anchors' own slots -> (N, k) int64.

        An anchor's own slot is left out; the published codes draw it too. exclude_same_video
        leaves out all slots of the anchor's video.
        """
        width = self.slots_per_video if exclude_same_video else 1
        if width >= len(self):
            raise NbkitError(
                f"a bank of {len(self)} slots has nothing left to draw after leaving out {width}"
            )
        first = exclude.to(self.memory.device) // width * width  # (N,) first slot left out
        # Drawn from a range with the left-out block cut out, then shifted over the gap: exactly
        # uniform.
        drawn = torch.randint(
            len(self) - width, (len(exclude), k), generator=generator, device=generator.device
        ).to(self.memory.device, non_blocking=True)  # (N, k)
        return drawn + width * (drawn >= first.unsqueeze(1))

    def draw(self, exclude: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Entries of `draw_indices`, of length 1, without gradient.

        Shapes: exclude (...) -> (..., k, dim).
        """
        chosen = self.draw_indices(exclude.flatten(), k, generator)
        memory = self.memory
        if len(self) <= chosen.numel():  # cheaper than what is drawn: no rounding of an update
            memory = _unit(memory)
        return memory[chosen].unflatten(0, exclude.shape)

    @torch.no_grad()
    def update(self, slots: Tensor, features: Tensor) -> None:
        """Mix unit features into their slots: slots (...), features (..., dim).

        With momentum 0.5 the new entry is the normalised midpoint of the old entry and the feature.
        Opposite vectors have no midpoint: the feature then takes the slot.
        """
        slots, features = self._last_writes(slots, features)
        mixed = self.momentum * self.memory[slots] + (1 - self.momentum) * features  # (N, dim)
        cancelled = mixed.norm(dim=-1, keepdim=True) < 1e-6
        self.memory[slots] = F.normalize(torch.where(cancelled, features, mixed), dim=-1)

    @torch.no_grad()
    def initialise(self, slots: Tensor, features: Tensor) -> None:
        """Overwrite slots (...) with unit features (..., dim), e.g. from a first forward pass."""
        slots, features = self._last_writes(slots, features)
        self.memory[slots] = features

    def _last_writes(self, slots: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        # A slot named twice keeps its last feature; index assignment alone leaves the winner
        # undefined on a GPU.
        needed = (*slots.shape, self.memory.shape[1])
        if features.shape != needed:
            raise NbkitError(
                f"{slots.numel()} slots need features {needed}, got {tuple(features.shape)}"
            )
        slots, features = slots.flatten().to(self.memory.device), features.flatten(0, -2)
        order = slots.argsort(stable=True)
        last = order[torch.searchsorted(slots[order], slots, right=True) - 1]  # (N,)
        return slots, F.normalize(features.to(self.memory)[last], dim=-1)
