r"""Video-based contrastive alignment: Eqs. (5)-(8) of STCDA (Song et al., CVPR 2021).

Every equation is computed for all class pairs at once: one matrix of distances per pair of domains,
and products with the masks of Eq. (6).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nbkit.errors import NbkitError, require_one_of

LEVELS = ("clip", "video")
GAMMA_SCOPES = ("classpair", "batch")
# Identical features have bandwidth 0; the kernel is then 1 on equal points and 0 elsewhere.
MIN_BANDWIDTH = 1e-8
KERNELS = 5


class VideoFeatures(NamedTuple):
    """Features of N videos of one domain in one modality: clips v (N, K, D) and videos V (N, D)."""

    v: Tensor
    V: Tensor


class Alignment(NamedTuple):
    """Parts of Eq. (8), scalars: total = intra - inter, which hides which of them moves."""

    total: Tensor
    intra: Tensor
    inter: Tensor


# --- the kernel ----------------------------------------------------------------------------------
def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """a (N, D), b (M, D) -> (N, M) squared Euclidean distances, >= 0, in float32 at least."""
    a, b = _at_least_float32(a), _at_least_float32(b)
    with torch.autocast(a.device.type, enabled=False):
        # Distances do not change under a common shift; small norms lose fewer digits in
        # |a|^2 + |b|^2 - 2ab.
        centre = torch.cat([a, b]).detach().mean(0)
        a, b = a - centre, b - centre
        d2 = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return d2.clamp(min=0)


def gaussian_mixture_kernel(d2: Tensor, bandwidth: Tensor | float) -> Tensor:
    r"""Mixture of five Gaussian kernels whose bandwidths are powers of 2 around `bandwidth`.

    $$\kappa(a, b) = \sum_{u=0}^{4} \exp\left(-\frac{\|a-b\|^2}{\gamma \cdot 2^{u - 2}}\right)$$

    Shapes: d2 (...) squared distances, bandwidth gamma broadcast against it -> (...), in [0, 5].
    STCDA only says "kernel"; this is the one of the alignment loss it extends (CAN, Kang et al.,
    CVPR 2019).
    """
    gamma = torch.as_tensor(bandwidth, dtype=d2.dtype, device=d2.device).clamp(min=MIN_BANDWIDTH)
    ratio = d2 / gamma
    powers = [2.0 ** (u - KERNELS // 2) for u in range(KERNELS)]
    return torch.stack([torch.exp(-ratio / power) for power in powers]).sum(0)


def pair_distances(
    a: VideoFeatures, b: VideoFeatures, levels: tuple[str, ...] = LEVELS
) -> list[Tensor]:
    """Squared distances of all video pairs, one (Na, Nb, P) per level.

    P = Ka*Kb clip pairs for the level 'clip', 1 for 'video'.
    """
    found = []
    for level in levels:
        if level == "video":
            found.append(squared_distances(a.V, b.V).unsqueeze(-1))  # (Na, Nb, 1)
        else:
            (na, ka, _), (nb, kb, _) = a.v.shape, b.v.shape
            d2 = squared_distances(a.v.flatten(0, 1), b.v.flatten(0, 1))  # (Na*Ka, Nb*Kb)
            found.append(d2.view(na, ka, nb, kb).transpose(1, 2).reshape(na, nb, ka * kb))
    return found


def pair_kernel(d2: list[Tensor], gamma: Tensor) -> Tensor:
    """The bracket of Eq. (5): the kernels of the levels, each averaged over a pair's clip pairs.

    Shapes: d2 one (..., P) per level; gamma broadcast against (...) -> (...).
    """
    gamma = gamma.unsqueeze(-1)
    return sum(gaussian_mixture_kernel(level, gamma).mean(-1) for level in d2)


# --- Eqs. (5)-(8) --------------------------------------------------------------------------------
def class_mask(y: Tensor, num_classes: int) -> Tensor:
    r"""Eq. (6). Which samples have which class; the mask of a class pair is a product of two.

    $$\mu_{c_1c_2}(y_1, y_2) = \begin{cases} 1, \text{ if } y_1 = c_1, y_2 = c_2, \\ 0, \text{
    otherwise} \end{cases} \quad = Y_1[\cdot, c_1] \, Y_2[\cdot, c_2]$$

    Shapes: y (N,) -> Y (N, C) bool. A label of -1 (withheld) is a zero row and takes part in
    nothing. Source: STCDA, Eq. (6).
    """
    return y.unsqueeze(1) == torch.arange(num_classes, device=y.device)


def relation(kernel: Tensor, Y1: Tensor, Y2: Tensor) -> Tensor:
    r"""Eq. (5). Mean kernel value between samples of class c1 in one domain and c2 in another.

    $$r\left((X^{d_1}, y^{d_1}), (X^{d_2}, y^{d_2}); c_1, c_2\right) = \sum_{i=1}^{N^1}
    \sum_{j=1}^{N^2}
    \frac{\mu_{c_1 c_2}(y_i^{d_1}, y_j^{d_2})}{\sum_{i=1}^{N^1} \sum_{j=1}^{N^2} \mu_{c_1
    c_2}(y_i^{d_1}, y_j^{d_2})}
    \cdot \left[\kappa_m(v_i^{d_1}, v_j^{d_2}) + \kappa_m(V_i^{d_1}, V_j^{d_2})\right]$$

    Shapes: kernel (N1, N2) holds the bracket, from `pair_kernel`; masks Y1 (N1, C1), Y2 (N2, C2)
    -> (C1, C2). A class pair without samples gives 0. Source: STCDA, Eq. (5).
    """
    Y1, Y2 = Y1.to(kernel), Y2.to(kernel)
    counts = (Y1.sum(0).unsqueeze(1) * Y2.sum(0).unsqueeze(0)).clamp(min=1)  # (C1, C2)
    return Y1.T @ kernel @ Y2 / counts


def _numbers(chosen: Tensor, most: int) -> Tensor:
    """Positions of the True entries of a vector, at most `most`.

    On the CPU only those.  Elsewhere exactly `most`, with the True ones first: the host would have
    to wait for their count.  The others must then have no weight.
    """
    if chosen.device.type == "cpu":
        return chosen.nonzero().squeeze(1)
    return chosen.int().argsort(descending=True, stable=True)[:most]


def relation_within(d2: list[Tensor], gamma: Tensor, y: Tensor, Y: Tensor) -> Tensor:
    """`relation` inside one domain, r(d, d; c, c), under the bandwidth of every pair (c, c').

    The kernel inside class c changes with the other class c', because the bandwidth belongs to the
    pair. Only pairs of samples of one class count, so those are gathered first: (pairs, C) instead
    of (N, N, C) values. The diagonal i = j is kept (the biased estimator).

    Shapes: d2 one (N, N, P) per level, gamma (C, C') -> (C, C').
    """
    same = (y.unsqueeze(1) == y.unsqueeze(0)) & (y >= 0)  # (N, N)
    pairs = _numbers(same.flatten(), same.numel())
    i, j = pairs // len(y), pairs % len(y)  # (pairs,)
    kernel = pair_kernel([level[i, j].unsqueeze(1) for level in d2], gamma[y[i]])  # (pairs, C')
    Y = Y.to(kernel)
    return (Y[i] * Y[j]).T @ kernel / Y.sum(0).square().clamp(min=1).unsqueeze(1)


@torch.no_grad()
def bandwidths(
    within_source: list[Tensor],
    within_target: list[Tensor],
    across: list[Tensor],
    Ys: Tensor,
    Yt: Tensor,
    gamma_scope: str = "classpair",
) -> Tensor:
    """Bandwidth gamma of every class pair (C, C): rows source classes, columns target classes.

    Clip and video levels "share the same kernel": the mean of their bandwidths. A constant for the
    gradient. The first three arguments are `pair_distances`, Ys (Ns, C) and Yt (Nt, C) masks.

    Args:
        gamma_scope: 'classpair': mean squared distance over all ordered pairs of the samples
            {source of c} + {target of c'}, a sample with itself among them; CAN leaves those zeros
            out, which makes its bandwidth n / (n - 1) times ours for n samples. 'batch': the same
            mean over the whole batch, equal for all class pairs.
    """
    found = []
    for ss, tt, st in zip(within_source, within_target, across, strict=True):
        ss, tt, st = ss.mean(-1), tt.mean(-1), st.mean(-1)  # (Ns, Ns), (Nt, Nt), (Ns, Nt)
        Ys, Yt = Ys.to(ss), Yt.to(ss)
        if gamma_scope == "batch":
            n = ss.shape[0] + tt.shape[0]
            gamma = (ss.sum() + tt.sum() + 2 * st.sum()) / n**2
            found.append(gamma.expand(Ys.shape[1], Yt.shape[1]))
        else:
            source = ((ss @ Ys) * Ys).sum(0).unsqueeze(1)  # (C, 1) sum inside each source class
            target = ((tt @ Yt) * Yt).sum(0).unsqueeze(0)  # (1, C)
            pairs = (Ys.sum(0).unsqueeze(1) + Yt.sum(0).unsqueeze(0)).square()  # (C, C)
            found.append((source + target + 2 * Ys.T @ st @ Yt) / pairs.clamp(min=1))
    return torch.stack(found).mean(0)


def discrepancy(
    pair: tuple[VideoFeatures, VideoFeatures],
    y_source: Tensor,
    y_target: Tensor,
    num_classes: int,
    *,
    levels: tuple[str, ...] = LEVELS,
    gamma_scope: str = "classpair",
) -> Tensor:
    r"""Eq. (7). Squared distance of the kernel means of source class c1 and target class c2.

    $$\mathcal{D}(\hat{y}^{\mathcal{T}}; c_1, c_2) =
    r\left(\{X^{\mathcal{S}}, y^{\mathcal{S}}\}, \{X^{\mathcal{S}}, y^{\mathcal{S}}\}; c_1,
    c_1\right)
    + r\left(\{X^{\mathcal{T}}, \hat{y}^{\mathcal{T}}\}, \{X^{\mathcal{T}},
    \hat{y}^{\mathcal{T}}\}; c_2, c_2\right)
    - 2r\left(\{X^{\mathcal{S}}, y^{\mathcal{S}}\}, \{X^{\mathcal{T}}, \hat{y}^{\mathcal{T}}\};
    c_1, c_2\right)$$

    Shapes: pair = (source, target) `VideoFeatures`; y_source (Ns,), y_target (Nt,) pseudo-labels
    -> (C, C), >= 0, rows source classes, columns target classes. Options as in `vca`.
    Source: STCDA, Eq. (7).
    """
    _check(pair, levels, gamma_scope)
    source, target = pair
    y_source, y_target = y_source.to(source.V.device), y_target.to(source.V.device)
    within_source = pair_distances(source, source, levels)  # (Ns, Ns, P) per level
    within_target = pair_distances(target, target, levels)
    across = pair_distances(source, target, levels)
    Ys, Yt = class_mask(y_source, num_classes), class_mask(y_target, num_classes)
    gamma = bandwidths(within_source, within_target, across, Ys, Yt, gamma_scope)  # (C, C)
    ss = relation_within(within_source, gamma, y_source, Ys)  # (C, C)
    tt = relation_within(within_target, gamma.T, y_target, Yt).T  # (C, C)
    rows, columns = y_source.clamp(min=0).unsqueeze(1), y_target.clamp(min=0).unsqueeze(0)
    st = relation(pair_kernel(across, gamma[rows, columns]), Ys, Yt)  # (C, C)
    return ss + tt - 2 * st


def vca(
    pair: tuple[VideoFeatures, VideoFeatures],
    y_source: Tensor,
    y_target: Tensor,
    num_classes: int,
    *,
    levels: tuple[str, ...] = LEVELS,
    gamma_scope: str = "classpair",
) -> Alignment:
    r"""Eq. (8). Pull a class together across domains, push different ones apart, in one modality.

    $$\mathcal{D}_{VCA} = \mathop{\mathbb{E}}_{c} \mathcal{D}(\hat{y}^{\mathcal{T}}; c, c)
    - \mathop{\mathbb{E}}_{c} \left[\mathop{\mathbb{E}}_{c' \neq c}
    \mathcal{D}(\hat{y}^{\mathcal{T}}; c, c') \right]$$

    Both means run over the classes that have samples in both domains; without any (or any two), the
    term is 0 with zero gradient. Bounded: every relation lies in [0, 5] per level.
    Source: STCDA, Eq. (8).

    Args:
        pair: (source, target) `VideoFeatures`.
        y_source, y_target: (Ns,), (Nt,) in 0..C-1; -1 leaves a video out.
        levels: ('clip', 'video'), or one of them.
        gamma_scope: see `bandwidths`.
    """
    y_source, y_target = y_source.to(pair[0].V.device), y_target.to(pair[0].V.device)
    most = min(num_classes, len(y_source), len(y_target))
    if num_classes > most:  # most classes have no sample: number the others from 0, the rest is -1
        classes = _numbers(_shared(y_source, y_target, num_classes), most)
        renumbered = torch.full((num_classes + 1,), -1, device=classes.device)
        renumbered[classes] = torch.arange(len(classes), device=classes.device)
        y_source, y_target = renumbered[y_source], renumbered[y_target]
        num_classes = max(len(classes), 1)
    D = discrepancy(
        pair, y_source, y_target, num_classes, levels=levels, gamma_scope=gamma_scope
    )  # (C, C)
    present = _shared(y_source, y_target, num_classes).to(D)  # (C,)
    both = present.unsqueeze(1) * present  # (C, C)
    same = torch.eye(num_classes, dtype=D.dtype, device=D.device) * both
    other = both - same
    intra = (D * same).sum() / same.sum().clamp(min=1)
    inter = (D * other).sum() / other.sum().clamp(min=1)
    return Alignment(intra - inter, intra, inter)


def _shared(y_source: Tensor, y_target: Tensor, num_classes: int) -> Tensor:
    """Which classes have samples in both domains: bool (C,)."""
    return class_mask(y_source, num_classes).any(0) & class_mask(y_target, num_classes).any(0)


def _check(
    pair: tuple[VideoFeatures, VideoFeatures], levels: tuple[str, ...], gamma_scope: str
) -> None:
    if not levels or not set(levels) <= set(LEVELS):
        raise NbkitError(f"levels={levels!r} must be taken from {', '.join(LEVELS)}")
    require_one_of("gamma_scope", gamma_scope, GAMMA_SCOPES)
    for features in pair:
        if features.v.dim() != 3 or features.V.dim() != 2:
            shapes = f"{tuple(features.v.shape)} and {tuple(features.V.shape)}"
            raise NbkitError(f"need v (N, K, D) and V (N, D), got {shapes}")
