r"""Video-based contrastive alignment: Eqs. (5)-(8) of STCDA (Song et al., CVPR 2021).

Every class pair is computed at once: one matrix of distances per pair of domains and products with
one-hot matrices. `relation` and `discrepancy` are Eqs. (5) and (7) for one class pair, as printed;
`vca` uses their all-pairs forms.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError
from nbkit.losses.kernels import gaussian_mixture_kernel, squared_distances

LEVELS = ("clip", "video")
GAMMA_SCOPES = ("classpair", "batch")


class VideoFeatures(NamedTuple):
    """Features of N videos of one domain in one modality: clips v (N, K, D) and videos V (N, D)."""

    v: Tensor
    V: Tensor


class Alignment(NamedTuple):
    """Parts of Eq. (8): total = intra - inter, scalars. Log the parts apart: the total alone hides
    which one moves.
    """

    total: Tensor
    intra: Tensor
    inter: Tensor


def class_mask(y1: Tensor, y2: Tensor, c1: int, c2: int) -> Tensor:
    r"""Eq. (6). Which pairs of samples have classes (c1, c2).

    $$\mu_{c_1c_2}(y_1, y_2) = \begin{cases} 1, \text{ if } y_1 = c_1, y_2 = c_2, \\ 0, \text{
    otherwise.} \end{cases}$$

    Shapes: y1 (N1,), y2 (N2,) -> (N1, N2) bool. Source: STCDA, Eq. (6).
    """
    return (y1 == c1).unsqueeze(1) & (y2 == c2).unsqueeze(0)


def relation(kernel: Tensor, y1: Tensor, y2: Tensor, c1: int, c2: int) -> Tensor:
    r"""Eq. (5). Mean kernel value between samples of class c1 in one domain and of class c2 in
    another (or the same).

    $$r\left((X^{d_1}, y^{d_1}), (X^{d_2}, y^{d_2}); c_1, c_2\right) = \sum_{i=1}^{N^1}
    \sum_{j=1}^{N^2}
    \frac{\mu_{c_1 c_2}(y_i^{d_1}, y_j^{d_2})}{\sum_{i=1}^{N^1} \sum_{j=1}^{N^2} \mu_{c_1
    c_2}(y_i^{d_1}, y_j^{d_2})}
    \cdot \left[\kappa_m(v_i^{d_1}, v_j^{d_2}) + \kappa_m(V_i^{d_1}, V_j^{d_2})\right]$$

    Shapes: kernel (N1, N2) holds the bracket, from `pair_kernel`; y1 (N1,), y2 (N2,) -> scalar.
    The diagonal i = j is kept (the biased estimator). A class pair without samples gives 0.
    Source: STCDA, Eq. (5).
    """
    mu = class_mask(y1, y2, c1, c2).to(kernel)  # (N1, N2)
    return (mu * kernel).sum() / mu.sum().clamp(min=1)


def _check(
    pair: tuple[VideoFeatures, VideoFeatures], levels: tuple[str, ...], gamma_scope: str
) -> None:
    if not levels or any(level not in LEVELS for level in levels):
        raise NbkitError(f"levels={levels!r} must be taken from {', '.join(LEVELS)}")
    if gamma_scope not in GAMMA_SCOPES:
        raise NbkitError(f"gamma_scope={gamma_scope!r} is not one of {', '.join(GAMMA_SCOPES)}")
    for features in pair:
        if features.v.dim() != 3 or features.V.dim() != 2:
            shapes = f"{tuple(features.v.shape)} and {tuple(features.V.shape)}"
            raise NbkitError(f"need v (N, K, D) and V (N, D), got {shapes}")


def pair_distances(
    a: VideoFeatures, b: VideoFeatures, levels: tuple[str, ...] = LEVELS
) -> list[Tensor]:
    """Squared distances of all video pairs, one (Na, Nb, P) a level, with P = Ka*Kb clip pairs, or
    1 for videos.
    """
    out = []
    for level in levels:
        if level == "video":
            out.append(squared_distances(a.V, b.V).unsqueeze(-1))  # (Na, Nb, 1)
        else:
            (na, ka, _), (nb, kb, _) = a.v.shape, b.v.shape
            d2 = squared_distances(a.v.flatten(0, 1), b.v.flatten(0, 1))  # (Na*Ka, Nb*Kb)
            out.append(d2.view(na, ka, nb, kb).transpose(1, 2).reshape(na, nb, ka * kb))
    return out


def pair_kernel(d2: list[Tensor], gamma: list[Tensor], num: int = 5, mul: float = 2.0) -> Tensor:
    """The bracket of Eq. (5): sum over levels of the kernel, averaged over the clip pairs of two
    videos.

    d2: one (..., P) a level; gamma: one bandwidth a level, broadcast against (...) -> (...).
    """
    return sum(
        gaussian_mixture_kernel(d, g.unsqueeze(-1), num, mul).mean(-1)
        for d, g in zip(d2, gamma, strict=True)
    )


class _Blocks(NamedTuple):
    """Distances within source, within target and across, one (N1, N2, P) tensor a level each."""

    ss: list[Tensor]
    tt: list[Tensor]
    st: list[Tensor]


def _blocks(pair: tuple[VideoFeatures, VideoFeatures], levels: tuple[str, ...]) -> _Blocks:
    source, target = pair
    return _Blocks(
        pair_distances(source, source, levels),
        pair_distances(target, target, levels),
        pair_distances(source, target, levels),
    )


@torch.no_grad()
def bandwidths(
    blocks: _Blocks,
    Ys: Tensor,
    Yt: Tensor,
    gamma_scope: str = "classpair",
    share_bandwidth: bool = True,
) -> list[Tensor]:
    """Bandwidth gamma of every class pair, one (C, C) tensor a level: rows source classes, columns
    target classes.

    'classpair': mean squared distance over all ordered pairs of the samples {source of c} + {target
    of c'}, a sample with itself among them; CAN leaves those zeros out, which makes its bandwidth n
    / (n - 1) times ours for n samples. 'batch': the same mean over the whole batch, equal for all
    class pairs. share_bandwidth: clip and video levels use the mean of their two bandwidths ("share
    the same kernel"). Constants for the gradient. Ys (Ns, C), Yt (Nt, C) one-hot.
    """
    out = []
    ns, nt = Ys.sum(0).unsqueeze(1), Yt.sum(0).unsqueeze(0)  # (C, 1), (1, C)
    for ss, tt, st in zip(*(([d.mean(-1) for d in block]) for block in blocks), strict=True):
        if gamma_scope == "batch":
            n = ss.shape[0] + tt.shape[0]
            gamma = ((ss.sum() + tt.sum() + 2 * st.sum()) / n**2).expand(Ys.shape[1], Yt.shape[1])
        else:
            within_s = (
                ((ss @ Ys) * Ys).sum(0).unsqueeze(1)
            )  # (C, 1) sum of distances inside each source class
            within_t = ((tt @ Yt) * Yt).sum(0).unsqueeze(0)  # (1, C)
            gamma = (within_s + within_t + 2 * Ys.T @ st @ Yt) / (ns + nt).square().clamp(min=1)
        out.append(gamma)
    return [torch.stack(out).mean(0)] * len(out) if share_bandwidth else out


def _one_hot(y: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """y (N,) -> (N, C); a label of -1 (withheld or filtered out) is a zero row and takes part in
    nothing.
    """
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    return (y.to(like.device).unsqueeze(1) == torch.arange(num_classes, device=like.device)).to(
        dtype
    )


def discrepancy(
    pair: tuple[VideoFeatures, VideoFeatures],
    y_source: Tensor,
    y_target: Tensor,
    c1: int,
    c2: int,
    *,
    levels: tuple[str, ...] = LEVELS,
    gamma_scope: str = "classpair",
    share_bandwidth: bool = True,
    kernel_num: int = 5,
    kernel_mul: float = 2.0,
) -> Tensor:
    r"""Eq. (7). Squared distance of the kernel means of source class c1 and target class c2.

    $$\mathcal{D}(\hat{y}^{\mathcal{T}}; c_1, c_2) =
    r\left(\{X^{\mathcal{S}}, y^{\mathcal{S}}\}, \{X^{\mathcal{S}}, y^{\mathcal{S}}\}; c_1, c_1\right)
    + r\left(\{X^{\mathcal{T}}, \hat{y}^{\mathcal{T}}\}, \{X^{\mathcal{T}}, \hat{y}^{\mathcal{T}}\}; c_2, c_2\right)
    - 2r\left(\{X^{\mathcal{S}}, y^{\mathcal{S}}\}, \{X^{\mathcal{T}}, \hat{y}^{\mathcal{T}}\}; c_1,
    c_2\right)$$

    Shapes: pair = (source, target) `VideoFeatures`; y_source (Ns,), y_target (Nt,) pseudo-labels ->
    scalar >= 0. Options as in `vca`. One class pair at a time, easy to read; `discrepancies` gives
    all of them at once. Source: STCDA, Eq. (7).
    """
    _check(pair, levels, gamma_scope)
    blocks = _blocks(pair, levels)
    classes = int(max(c1, c2)) + 1
    Ys, Yt = (_one_hot(y, classes, pair[0].V) for y in (y_source, y_target))
    gamma = [g[c1, c2] for g in bandwidths(blocks, Ys, Yt, gamma_scope, share_bandwidth)]
    kss, ktt, kst = (
        pair_kernel(block, gamma, kernel_num, kernel_mul) for block in blocks
    )  # (N1, N2) each
    return (
        relation(kss, y_source, y_source, c1, c1)
        + relation(ktt, y_target, y_target, c2, c2)
        - 2 * relation(kst, y_source, y_target, c1, c2)
    )


def _within(
    d2: list[Tensor], gamma: list[Tensor], y: Tensor, Y: Tensor, num: int, mul: float
) -> Tensor:
    """r(d, d; c, c) under the bandwidth of every class pair it appears in -> (C own class, C other
    class).

    The kernel inside class c changes with the other class, because the bandwidth belongs to the
    pair. Only pairs of samples of one class count, so those are gathered first: (pairs, C) instead
    of (N, N, C) values.
    """
    i, j = ((y.unsqueeze(1) == y.unsqueeze(0)) & (y >= 0)).nonzero(as_tuple=True)  # (pairs,)
    kernel = pair_kernel(
        [d[i, j].unsqueeze(1) for d in d2], [g[y[i]] for g in gamma], num, mul
    )  # (pairs, C)
    return Y[i].T @ kernel / Y.sum(0).square().clamp(min=1).unsqueeze(1)


def discrepancies(
    pair: tuple[VideoFeatures, VideoFeatures],
    y_source: Tensor,
    y_target: Tensor,
    num_classes: int,
    *,
    levels: tuple[str, ...] = LEVELS,
    gamma_scope: str = "classpair",
    share_bandwidth: bool = True,
    kernel_num: int = 5,
    kernel_mul: float = 2.0,
) -> Tensor:
    """All class pairs of Eq. (7) at once: (C, C), rows source classes, columns target classes; see
    `discrepancy`.
    """
    _check(pair, levels, gamma_scope)
    blocks = _blocks(pair, levels)
    Ys, Yt = (_one_hot(y, num_classes, pair[0].V) for y in (y_source, y_target))
    y_source, y_target = y_source.to(Ys.device), y_target.to(Ys.device)
    gamma = bandwidths(blocks, Ys, Yt, gamma_scope, share_bandwidth)
    ss = _within(blocks.ss, gamma, y_source, Ys, kernel_num, kernel_mul)  # (C, C)
    tt = _within(blocks.tt, [g.T for g in gamma], y_target, Yt, kernel_num, kernel_mul).T  # (C, C)
    rows, cols = y_source.clamp(min=0).unsqueeze(1), y_target.clamp(min=0).unsqueeze(0)
    cross = pair_kernel(
        blocks.st, [g[rows, cols] for g in gamma], kernel_num, kernel_mul
    )  # (Ns, Nt)
    counts = (Ys.sum(0).unsqueeze(1) * Yt.sum(0).unsqueeze(0)).clamp(min=1)
    return ss + tt - 2 * (Ys.T @ cross @ Yt) / counts


def vca(
    pair: tuple[VideoFeatures, VideoFeatures],
    y_source: Tensor,
    y_target: Tensor,
    num_classes: int,
    *,
    levels: tuple[str, ...] = LEVELS,
    gamma_scope: str = "classpair",
    share_bandwidth: bool = True,
    kernel_num: int = 5,
    kernel_mul: float = 2.0,
) -> Alignment:
    r"""Eq. (8). Pull the same class together across domains, push different classes apart, in one
    modality.

    $$\mathcal{D}_{VCA} = \mathop{\mathbb{E}}_{c} \mathcal{D}(\hat{y}^{\mathcal{T}}; c, c)
    - \mathop{\mathbb{E}}_{c} \left[\mathop{\mathbb{E}}_{c' \neq c}
    \mathcal{D}(\hat{y}^{\mathcal{T}}; c, c') \right]$$

    Shapes: pair = (source, target) `VideoFeatures`; y_source (Ns,), y_target (Nt,) in 0..C-1, -1
    leaves a video out. Both means run over the classes that have samples in both domains; without
    any (or any two), the term is 0 with zero gradient. levels: ('clip', 'video'), or one of them.
    gamma_scope, share_bandwidth: see `bandwidths`. Bounded: the kernel lies in [0, kernel_num] and
    so does every relation a level. Source: STCDA, Eq. (8).
    """
    D = discrepancies(
        pair,
        y_source,
        y_target,
        num_classes,
        levels=levels,
        gamma_scope=gamma_scope,
        share_bandwidth=share_bandwidth,
        kernel_num=kernel_num,
        kernel_mul=kernel_mul,
    )
    Ys, Yt = (_one_hot(y, num_classes, D) for y in (y_source, y_target))
    present = (Ys.any(0) & Yt.any(0)).to(D)  # (C,)
    both = present.unsqueeze(1) * present  # (C, C)
    same = torch.eye(num_classes, dtype=D.dtype, device=D.device) * both
    other = both - same
    intra = (D * same).sum() / same.sum().clamp(min=1)
    inter = (D * other).sum() / other.sum().clamp(min=1)
    return Alignment(intra - inter, intra, inter)


def vca_multimodal(
    pairs: dict[str, tuple[VideoFeatures, VideoFeatures]],
    y_source: Tensor,
    y_target: Tensor | dict[str, Tensor],
    num_classes: int,
    *,
    modal: str = "sum",
    **options,
) -> Alignment:
    """The modalities together in Eq. (8): pairs {m: (source, target)} -> one Alignment.

    modal='sum' adds the modalities' terms (kernel per modality, as the paper says); 'concat' aligns
    the concatenated unit-scaled features once. y_target is shared, or {m: (Nt,)} for the ablation
    without spatio-temporal fusion.
    """
    if modal == "sum":
        parts = [
            vca(
                p,
                y_source,
                y_target[m] if isinstance(y_target, dict) else y_target,
                num_classes,
                **options,
            )
            for m, p in pairs.items()
        ]
        return Alignment(*(torch.stack(term).sum() for term in zip(*parts, strict=True)))
    if modal != "concat" or isinstance(y_target, dict):
        raise NbkitError(
            f"modal={modal!r} must be 'sum' or 'concat', and 'concat' needs shared pseudo-labels"
        )
    joined = tuple(
        VideoFeatures(
            *(
                torch.cat([F.normalize(p[side][i], dim=-1) for p in pairs.values()], -1)
                for i in (0, 1)
            )
        )
        for side in (0, 1)
    )
    return vca(joined, y_source, y_target, num_classes, **options)
