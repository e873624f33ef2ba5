r"""Adversarial adaptation of an action detector: Agarwal et al., BMVC 2020, Eqs. (1)-(7).

All discriminators hand over **logits** x; the domain probability "target" is sigmoid(x), and every
logarithm is taken by `logsigmoid`, so that a confident discriminator gives large but finite losses.
Domain label: d = 0 source, d = 1 target.

Eqs. (1)-(3) are not legible in the copy of the paper this project was written from. What stands
here under those numbers is **our reconstruction**, from the works which the paper cites there
(Faster R-CNN; strong-weak alignment with a focal domain loss); each docstring says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError

Reduction = Literal["mean", "sum"]
# Adaptation modules: temporal image level, temporal instance level, spatial image level.
MODULES = ("t_img", "t_ins", "s_img")


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.beta = beta
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.beta * grad, None


def gradient_reversal(x: Tensor, beta: float = 1.0) -> Tensor:
    r"""Identity forward, gradient times $-\beta$ backward (Ganin et al. 2016).

    `beta` scales only what reaches the features; the discriminator above learns at full speed. It
    is a different quantity from the $\lambda$ of Eq. (7), which scales both: raising one does not
    replace the other.
    """
    return _Reverse.apply(x, beta)


def ramp(progress: float) -> float:
    """DANN's ramp, 2 / (1 + exp(-10 progress)) - 1: from 0 at progress 0 to about 1 at 1.

    Gradient reversal follows it: a classifier that knows nothing yet moves no feature.
    """
    decay = torch.exp(torch.tensor(-10.0 * progress, dtype=torch.float64))
    return 2.0 / (1.0 + float(decay)) - 1.0


def action_loss(rpn_cls: Tensor, rpn_reg: Tensor, roi_cls: Tensor, roi_reg: Tensor) -> Tensor:
    r"""Eq. (1), our reconstruction. The four losses of Faster R-CNN with equal weights.

    $$\mathcal L_{act}=\mathcal L^{rpn}_{cls}+\mathcal L^{rpn}_{reg}+\mathcal
    L^{roi}_{cls}+\mathcal L^{roi}_{reg}$$

    On labelled source frames: the first two from the key-frame branch, the last two from the
    temporal branch. Scalars in, scalar out.
    """
    return rpn_cls + rpn_reg + roi_cls + roi_reg


def focal_source(logit: Tensor, gamma: float) -> Tensor:
    r"""Eq. (2), our reconstruction: the source half of $\mathcal L_{D_S}$, `logit` (n_s,).

    $$-\frac{1}{n_s}\sum_i (1-d_i)\,P_i^{\gamma}\,\log(1-P_i), \qquad P=D_S(SF(K))$$
    """
    return _focal(-logit, gamma)


def focal_target(logit: Tensor, gamma: float) -> Tensor:
    r"""Eq. (3), our reconstruction: the target half of $\mathcal L_{D_S}$, `logit` (n_t,).

    $$-\frac{1}{n_t}\sum_j d_j\,(1-P_j)^{\gamma}\,\log P_j$$
    """
    return _focal(logit, gamma)


def _focal(right: Tensor, gamma: float) -> Tensor:
    """Mean of -(1-p)^gamma log p, p = sigmoid(right) being the probability of the true domain."""
    log_p, log_not_p = F.logsigmoid(right), F.logsigmoid(-right)
    return -(torch.exp(gamma * log_not_p) * log_p).mean()


def spatial_image_loss(source: Tensor, target: Tensor, gamma: float = 5.0) -> Tensor:
    r"""Eqs. (2)-(3) together, our reconstruction.

    $$\mathcal L_{D_S}=-\big(\frac1{n_s}\sum_i(1-d_i)P_i^\gamma\log(1-P_i)+\frac1{n_t}\sum_j
    d_j(1-P_j)^\gamma\log P_j\big)$$

    Args:
        source, target: (n_s,), (n_t,) logits of D_S, one per key frame.
        gamma: focusing. 0 gives plain binary cross-entropy; 5 (strong-weak alignment's default)
            makes frames that the discriminator already tells apart count for little, so that only
            look-alike scenes are aligned.
    """
    _not_empty("spatial_image_loss", source, target)
    return focal_source(source, gamma) + focal_target(target, gamma)


def temporal_image_loss(source: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    r"""Eq. (4). The domain loss of every position of a feature map.

    $$\mathcal L_{D_{Timg}}=-\big(\frac1{n_s}\sum_i\sum_{h,w}(1-d_i)\log(1-Q_i^{(h,w)})
    +\frac1{n_t}\sum_j\sum_{h,w}d_j\log Q_j^{(h,w)}\big)$$

    Args:
        source, target: (n, H, W) or (n, 1, H, W) logits of $D_{Timg}$; H, W may differ between
            the domains.
        reduction: 'sum' over the positions as printed; 'mean' divides by H W, which makes the
            three terms of Eq. (6) comparable (a 15 x 20 map would weigh 300 times the key frame's
            single probability).
    """
    _not_empty("temporal_image_loss", source, target)
    return _per_video(-source, reduction) + _per_video(target, reduction)


def _per_video(right: Tensor, reduction: Reduction) -> Tensor:
    """Sum or mean of -log sigmoid over everything but the first axis, mean over that."""
    cost = -F.logsigmoid(right).flatten(1)  # (n, H*W)
    return _reduce(cost, reduction).mean()


def _reduce(cost: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "mean":
        return cost.mean(-1)
    if reduction == "sum":
        return cost.sum(-1)
    raise NbkitError(f"adv_reduction={reduction!r}: choose 'mean' or 'sum'")


def temporal_instance_loss(
    source: Sequence[Tensor], target: Sequence[Tensor], reduction: Reduction = "mean"
) -> Tensor:
    r"""Eq. (5). The domain loss of every proposal.

    $$\mathcal L_{D_{Tinst}}=-\big(\frac1{n_s}\sum_i\sum_k(1-d_i)\log(1-R_{i,k})
    +\frac1{n_t}\sum_j\sum_k d_j\log R_{j,k}\big)$$

    Args:
        source, target: for each key frame the (K_i,) logits of its proposals; K_i may vary. A
            frame without any proposal counts in n and adds nothing.
        reduction: over the proposals of a frame, 'sum' as printed or 'mean'.
    """
    _not_empty("temporal_instance_loss", source, target)
    of_source = torch.stack([_instances(-frame, reduction) for frame in source]).mean()
    of_target = torch.stack([_instances(frame, reduction) for frame in target]).mean()
    return of_source + of_target


def _instances(right: Tensor, reduction: Reduction) -> Tensor:
    cost = -F.logsigmoid(right.flatten())  # (K,)
    if cost.numel() == 0:
        return cost.sum()
    return _reduce(cost, reduction)


def adversarial_loss(terms: Mapping[str, Tensor]) -> Tensor:
    r"""Eq. (6). The sum of the modules' losses, without inner weights.

    $$\mathcal L_{adv}(SF,TF,D)=\mathcal L_{D_S}+\mathcal L_{D_{Timg}}+\mathcal L_{D_{Tinst}}$$

    `terms` holds any subset of 't_img', 't_ins', 's_img' (the rows of the ablation).
    """
    if not terms or not set(terms) <= set(MODULES):
        raise NbkitError(f"adapt={sorted(terms)}: name one or more of {MODULES}")
    return sum(terms[name] for name in MODULES if name in terms)


def localization_objective(act: Tensor, adv: Tensor, lam: float) -> Tensor:
    r"""Eq. (7). $\mathcal L(V^s,K^s,V^t,K^t)=\mathcal L_{act}+\lambda\,\mathcal L_{adv}$

    Minimised by detector and discriminators alike: the min-max is done by `gradient_reversal`
    between them.
    """
    return act + lam * adv


def _not_empty(name: str, source: Sequence | Tensor, target: Sequence | Tensor) -> None:
    if len(source) == 0 or len(target) == 0:
        raise NbkitError(
            f"{name}: a batch needs at least one frame of each domain "
            f"(got {len(source)} source, {len(target)} target)"
        )
