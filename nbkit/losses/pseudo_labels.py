r"""Pseudo-labels of target videos by K-means that starts from the source classes (STCDA, sec. 3.2).

The printed centre is a *sum* of unit vectors and the distance is Euclidean. A sum of n vectors has
norm about n, so the class with the smallest sum is nearest to everything and takes all videos.
`centre='unit_sum'` divides the sum by its norm (the spherical K-means); `'mean'` divides by the
count; `'sum_literal'` keeps the printed form to look at.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError, require_one_of

CENTRES = ("unit_sum", "mean", "sum_literal")
FUSIONS = ("fused", "per_modality")


class KMeansStep(NamedTuple):
    """One assignment of target videos to classes."""

    centres: dict[str, Tensor]  # by modality (C, D), what it used
    labels: Tensor  # (M,)
    changed: int  # labels that differ from those of the step before
    mean_distance: float  # to the own centre


class PseudoLabels(NamedTuple):
    """Result of `kmeans_pseudo_labels`; by modality where fusion='per_modality'.

    labels (M,) int64; distances (M, C) of the last assignment; centres {m: (C, D)}; iterations:
    centre updates done (the most over modalities).
    """

    labels: Tensor | dict[str, Tensor]
    distances: Tensor | dict[str, Tensor]
    centres: dict[str, Tensor]
    iterations: int
    history: list[KMeansStep] | dict[str, list[KMeansStep]]


def _unit(V: Tensor) -> Tensor:
    V = V.detach()
    return F.normalize(V.to(torch.promote_types(V.dtype, torch.float32)), dim=-1)


def _centres(V: Tensor, y: Tensor, num_classes: int, centre: str) -> tuple[Tensor, Tensor]:
    """Class centres (C, D) and class counts (C,) of V (N, D); labels of -1 count nowhere."""
    require_one_of("centre", centre, CENTRES)
    V = _unit(V)
    classes = torch.arange(num_classes, device=V.device)
    Y = (y.to(V.device).unsqueeze(1) == classes).to(V)  # (N, C)
    sums, counts = Y.T @ V, Y.sum(0)  # (C, D), (C,)
    if centre == "unit_sum":
        return F.normalize(sums, dim=-1), counts
    if centre == "mean":
        return sums / counts.clamp(min=1).unsqueeze(1), counts
    return sums, counts


@torch.no_grad()
def source_centres(V: Tensor, y: Tensor, num_classes: int, centre: str = "unit_sum") -> Tensor:
    r"""Centres of the source classes, see `centre` in the module.

    $$C_m^{\mathcal{S}} = \sum_i \mathbf{1}_{[y_i = c]} \frac{V_i}{\|V_i\|}$$

    Shapes: V (N, D) video features of one modality, y (N,) -> (C, D). Raises NbkitError when a
    class has no source video: K-means could then never find it. Source: STCDA, section 3.2.
    """
    centres, counts = _centres(V, y, num_classes, centre)
    if (counts == 0).any():
        missing = (counts == 0).nonzero().flatten().tolist()
        raise NbkitError(
            f"classes {missing} have no source video; remove them from the class list or add videos"
        )
    return centres


@torch.no_grad()
def assign(V: dict[str, Tensor], centres: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    r"""Nearest class of unit vectors, both modalities together.

    $$\hat{y} = \arg\min_c \sum_m \|V_m - C_{m,c}\|_2$$

    Shapes: V {m: (M, D)}, centres {m: (C, D)} -> labels (M,) int64, distances (M, C) summed over
    m. Source: STCDA, section 3.2.
    """
    exact = "donot_use_mm_for_euclid_dist"
    distances = sum(torch.cdist(_unit(V[m]), centres[m], compute_mode=exact) for m in V)  # (M, C)
    return distances.argmin(dim=1), distances


@torch.no_grad()
def update_centres(V: Tensor, labels: Tensor, previous: Tensor, centre: str = "unit_sum") -> Tensor:
    """Centres of the target clusters; an empty cluster keeps its previous one.

    Shapes: V (M, D), labels (M,), previous (C, D) -> (C, D).
    """
    centres, counts = _centres(V, labels, previous.shape[0], centre)
    return torch.where((counts > 0).unsqueeze(1), centres, previous)


def _kmeans(
    V: dict[str, Tensor], centres: dict[str, Tensor], centre: str, iterations: int
) -> PseudoLabels:
    history: list[KMeansStep] = []
    for _ in range(1 + iterations):
        if history:
            before = history[-1].labels
            centres = {m: update_centres(V[m], before, centres[m], centre) for m in V}
        labels, distances = assign(V, centres)
        changed = len(labels)
        if history:
            changed = int((labels != before).sum())
        own = distances.gather(1, labels.unsqueeze(1)).mean().item()
        history.append(KMeansStep(centres, labels, changed, own))
        if changed == 0:
            break
    return PseudoLabels(labels, distances, centres, len(history) - 1, history)


@torch.no_grad()
def kmeans_pseudo_labels(
    Vs: dict[str, Tensor],
    ys: Tensor,
    Vt: dict[str, Tensor],
    num_classes: int,
    *,
    centre: str = "unit_sum",
    fusion: str = "fused",
    iterations: int = 50,
    fixed: bool = False,
) -> PseudoLabels:
    """Cluster the target videos from the source class centres until no label changes.

    No target label is used. Source: STCDA, section 3.2. Raises NbkitError for unknown options,
    unequal modalities, or a class without source videos.

    Args:
        Vs, ys: {m: (N, D)} source video features, and their labels (N,).
        Vt: {m: (M, D)} target video features.
        centre: see the module.
        fusion: 'fused' gives one label from the distances summed over modalities; 'per_modality'
            clusters each modality alone (the ablation "without spatio-temporal fusion").
        iterations: at most so many centre updates.
        fixed: keep the first assignment to the source centres (the ablation "fixed").
    """
    require_one_of("fusion", fusion, FUSIONS)
    if not Vs or set(Vs) != set(Vt):
        raise NbkitError(
            f"source has modalities {sorted(Vs)}, target has {sorted(Vt)}: they must be the same"
        )
    start = {m: source_centres(Vs[m], ys, num_classes, centre) for m in Vs}
    if fixed:
        iterations = 0
    if fusion == "fused":
        return _kmeans(Vt, start, centre, iterations)
    parts = {m: _kmeans({m: Vt[m]}, {m: start[m]}, centre, iterations) for m in Vt}
    return PseudoLabels(
        {m: part.labels for m, part in parts.items()},
        {m: part.distances for m, part in parts.items()},
        {m: part.centres[m] for m, part in parts.items()},
        max(part.iterations for part in parts.values()),
        {m: part.history for m, part in parts.items()},
    )
