r"""Discrepancies between domains of the comparison methods: kernel means and two classifiers.

DAN (Long et al., ICML 2015) and MCD (Saito et al., CVPR 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nbkit.errors import NbkitError
from nbkit.losses.alignment import gaussian_mixture_kernel, squared_distances


def mk_mmd(source: Tensor, target: Tensor) -> Tensor:
    r"""Squared distance of the kernel means of two samples, with five Gaussian kernels (DAN).

    $$\hat D_k^2 = \frac{1}{n_s^2} \sum_{i,j} k(x_i^s, x_j^s) + \frac{1}{n_t^2} \sum_{i,j} k(x_i^t,
    x_j^t)
    - \frac{2}{n_s n_t} \sum_{i,j} k(x_i^s, x_j^t), \qquad
    k(a, b) = \sum_{u=1}^{5} \exp\left(-\frac{\|a - b\|^2}{\gamma_u}\right)$$

    Shapes: source (n_s, D), target (n_t, D) -> scalar in [0, 10]; the sizes may differ. The
    bandwidths are powers of 2 around the mean squared distance of all pairs of different samples
    of both domains, held constant for the gradient: those of TA3N's public code. The kernels weigh
    the same, where DAN can also learn their weights. The biased estimator (pairs i = j count) is
    zero for equal samples and never negative. Raises NbkitError for a domain without samples.
    """
    ns, nt = len(source), len(target)
    if ns == 0 or nt == 0:
        raise NbkitError(
            "mk_mmd: a batch needs at least one video of each domain "
            f"(got {ns} source, {nt} target)"
        )
    both = torch.cat([source, target])  # (n, D)
    d2 = squared_distances(both, both)  # (n, n)
    gamma = d2.detach().sum() / ((ns + nt) * (ns + nt - 1))  # the diagonal adds nothing
    k = gaussian_mixture_kernel(d2, gamma)  # (n, n)
    return k[:ns, :ns].mean() + k[ns:, ns:].mean() - 2 * k[:ns, ns:].mean()


def classifier_discrepancy(logits1: Tensor, logits2: Tensor) -> Tensor:
    r"""Mean absolute difference of two classifiers' probabilities (MCD).

    $$d(p_1, p_2) = \frac{1}{C} \sum_{c=1}^{C} |p_{1c} - p_{2c}|$$

    Shapes: logits1, logits2 (B, C) -> scalar in [0, 2 / C], the mean over the batch.
    """
    return (logits1.softmax(-1) - logits2.softmax(-1)).abs().mean()
