"""Classification loss and overall objective of STCDA (Song et al., CVPR 2021): Eqs. (9), (10)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nbkit.errors import NbkitError


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    r"""Eq. (9). Cross-entropy on labelled source data, of one modality m.

    $$\mathcal{L}_{CE} = -\mathop{\mathbb{E}}_{x^{\mathcal{S}}} \sum_{n=1}^{N^{\mathcal{S}}}
    \left[y^{\mathcal{S}} \log \phi_m(x^{\mathcal{S}}) \right]$$

    The sum inside the expectation would count the samples twice: it is read as the mean over
    samples. Shapes: logits (B, C), or (B, K, C) for K clips per video, each clip carrying its
    video's label; y (B,) in 0..C-1. Returns a scalar. Raises NbkitError for other shapes.
    Source: STCDA, Eq. (9).
    """
    if logits.dim() not in (2, 3) or y.shape != logits.shape[:1]:
        raise NbkitError(
            "logits must be (B, C) or (B, K, C) with y (B,); "
            f"got {tuple(logits.shape)} and {tuple(y.shape)}"
        )
    if logits.dim() == 3:
        y = y.unsqueeze(1).expand(logits.shape[:2]).reshape(-1)  # (B*K,)
        logits = logits.flatten(0, 1)  # (B*K, C)
    return F.cross_entropy(logits, y)


def total_loss(
    ce: Tensor | float, contrast: Tensor | float, vca: Tensor | float, alpha: float, beta: float
) -> Tensor | float:
    r"""Eq. (10). Overall objective.

    $$\mathcal{L} = \mathcal{L}_{CE} + \alpha \mathcal{L}_{Contrast} + \beta \mathcal{D}_{VCA}$$

    All terms are scalars; 0 stands for a term that a stage or a row does not have. alpha, beta
    >= 0 (the paper: alpha = 2, beta = 0.5). Source: STCDA, Eq. (10).
    """
    return ce + alpha * contrast + beta * vca
