r"""Pseudo-labels of target videos by K-means that starts from the source classes (STCDA, CVPR 2021,
section 3.2).

The printed centre is a *sum* of unit vectors and the distance is Euclidean. A sum of n vectors has
norm about n, so the class with the smallest sum is nearest to everything and takes all videos.
`centre='unit_sum'` divides the sum by its norm (the spherical K-means); `'mean'` divides by the
count; `'sum_literal'` keeps the printed form to look at.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError

CENTRES = ("unit_sum", "mean", "sum_literal")
FUSIONS = ("fused", "per_modality")


class KMeansStep(NamedTuple):
    """One assignment: centres {m: (C, D)} it used, labels (M,), how many changed, mean distance to
    the own centre.
    """

    centres: dict[str, Tensor]
    labels: Tensor
    changed: int
    mean_distance: float


class PseudoLabels(NamedTuple):
    """Result of `kmeans_pseudo_labels`.

    labels (M,) int64, or {m: (M,)} for fusion='per_modality'; distances (M, C), or {m: (M, C)}, of
    the last assignment; centres {m: (C, D)} that gave them; iterations: centre updates done (the
    most over modalities); history: one KMeansStep an assignment, or {m: [...]}.
    """

    labels: Tensor | dict[str, Tensor]
    distances: Tensor | dict[str, Tensor]
    centres: dict[str, Tensor]
    iterations: int
    history: list[KMeansStep] | dict[str, list[KMeansStep]]


def _unit(V: Tensor) -> Tensor:
    V = V.detach()
    return F.normalize(V if V.dtype == torch.float64 else V.float(), dim=-1)


def _centres(V: Tensor, y: Tensor, num_classes: int, centre: str) -> tuple[Tensor, Tensor]:
    """Class centres (C, D) and class counts (C,) of V (N, D); labels of -1 count nowhere."""
    if centre not in CENTRES:
        raise NbkitError(f"centre={centre!r} is not one of {', '.join(CENTRES)}")
    V = _unit(V)
    Y = (y.to(V.device).unsqueeze(1) == torch.arange(num_classes, device=V.device)).to(V)  # (N, C)
    sums, counts = Y.T @ V, Y.sum(0)  # (C, D), (C,)
    if centre == "unit_sum":
        return F.normalize(sums, dim=-1), counts
    return (sums / counts.clamp(min=1).unsqueeze(1) if centre == "mean" else sums), counts


@torch.no_grad()
def source_centres(V: Tensor, y: Tensor, num_classes: int, centre: str = "unit_sum") -> Tensor:
    r"""Centres of the source classes, $C_m^{\mathcal{S}} = \sum_i \mathbf{1}_{[y_i = c]} V_i /
    \|V_i\|$, see `centre`.

    V (N, D) video features of one modality, y (N,) -> (C, D). Raises NbkitError when a class has no
    source video: K-means could then never find it. Source: STCDA, section 3.2.
    """
    centres, counts = _centres(V, y, num_classes, centre)
    if (counts == 0).any():
        missing = (counts == 0).nonzero().flatten().tolist()
        raise NbkitError(
            f"classes {missing} have no source video; remove them from the class list or add videos"
        )
    return centres


@torch.no_grad()
def assign(
    V: dict[str, Tensor], centres: dict[str, Tensor], normalise: bool = True
) -> tuple[Tensor, Tensor]:
    r"""Nearest class, $\hat{y} = \arg\min_c \sum_m \|V_m - C_{m,c}\|_2$, both modalities together.

    V {m: (M, D)}, centres {m: (C, D)} -> labels (M,) int64, distances (M, C) summed over m.
    normalise: compare unit vectors (on the sphere); False compares features as they are. Source:
    STCDA, section 3.2.
    """
    distances = sum(
        torch.cdist(
            _unit(V[m]) if normalise else V[m].detach().to(centres[m]),
            centres[m],
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        for m in V
    )  # (M, C)
    return distances.argmin(dim=1), distances


@torch.no_grad()
def update_centres(V: Tensor, labels: Tensor, previous: Tensor, centre: str = "unit_sum") -> Tensor:
    """Centres of the target clusters: V (M, D), labels (M,), previous (C, D) -> (C, D). Empty
    clusters keep theirs.
    """
    centres, counts = _centres(V, labels, previous.shape[0], centre)
    return torch.where((counts > 0).unsqueeze(1), centres, previous)


def _kmeans(
    V: dict[str, Tensor], centres: dict[str, Tensor], centre: str, iterations: int, normalise: bool
) -> PseudoLabels:
    history: list[KMeansStep] = []
    labels, distances = assign(V, centres, normalise)
    own = distances.gather(1, labels.unsqueeze(1)).mean().item()
    history.append(KMeansStep(centres, labels, len(labels), own))
    for _ in range(iterations):
        centres = {m: update_centres(V[m], labels, centres[m], centre) for m in V}
        new, distances = assign(V, centres, normalise)
        own = distances.gather(1, new.unsqueeze(1)).mean().item()
        history.append(KMeansStep(centres, new, int((new != labels).sum()), own))
        labels = new
        if history[-1].changed == 0:
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
    normalise: bool = True,
) -> PseudoLabels:
    """Cluster the target videos, starting from the source class centres, until no label changes.

    Vs {m: (N, D)} source video features, ys (N,) their labels, Vt {m: (M, D)} target video
    features. centre: see the module. fusion: 'fused' gives one label from the distances summed over
    modalities; 'per_modality' clusters each modality alone (the ablation "without spatio-temporal
    fusion"). iterations: at most so many centre updates. fixed: keep the first assignment to the
    source centres (the ablation "fixed"). normalise: see `assign`. No target label is used. Source:
    STCDA, section 3.2. Raises NbkitError for unknown options, unequal modalities, or a class
    without source videos.
    """
    if fusion not in FUSIONS:
        raise NbkitError(f"fusion={fusion!r} is not one of {', '.join(FUSIONS)}")
    if not Vs or set(Vs) != set(Vt):
        raise NbkitError(
            f"source has modalities {sorted(Vs)}, target has {sorted(Vt)}: they must be the same"
        )
    start = {m: source_centres(Vs[m], ys, num_classes, centre) for m in Vs}
    iterations = 0 if fixed else iterations
    if fusion == "fused":
        return _kmeans(Vt, start, centre, iterations, normalise)
    parts = {m: _kmeans({m: Vt[m]}, {m: start[m]}, centre, iterations, normalise) for m in Vt}
    return PseudoLabels(
        {m: part.labels for m, part in parts.items()},
        {m: part.distances for m, part in parts.items()},
        {m: part.centres[m] for m, part in parts.items()},
        max(part.iterations for part in parts.values()),
        {m: part.history for m, part in parts.items()},
    )


def filter_labels(
    result: PseudoLabels,
    Vt: dict[str, Tensor],
    *,
    max_cosine_distance: float | None = None,
    min_per_class: int = 1,
) -> Tensor:
    """Drop doubtful pseudo-labels of a fused result: labels (M,) with -1 where dropped.

    max_cosine_distance: drop a video whose cosine distance (0..2, mean over modalities) to its
    centre is larger.
    min_per_class: then drop classes with fewer videos left. The defaults drop nothing, like the
    paper; CAN uses 3 and up to 0.05.
    """
    labels = result.labels.clone()
    if max_cosine_distance is not None:
        gaps = [
            1 - (_unit(Vt[m]) * _unit(result.centres[m])[labels]).sum(-1) for m in Vt
        ]  # each (M,)
        labels[torch.stack(gaps).mean(0) > max_cosine_distance] = -1
    for c in labels.unique().tolist():
        if c >= 0 and int((labels == c).sum()) < min_per_class:
            labels[labels == c] = -1
    return labels
