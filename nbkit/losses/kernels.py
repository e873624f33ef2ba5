"""Squared distances and the Gaussian mixture kernel that the alignment losses share."""

import torch
from torch import Tensor

# identical features have bandwidth 0; the kernel is then 1 on equal points and 0 elsewhere
MIN_BANDWIDTH = 1e-8


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """a (N, D), b (M, D) -> (N, M) squared Euclidean distances, >= 0, in float32 at least."""
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (a, b))
    with torch.autocast(a.device.type, enabled=False):
        # distances do not change under a common shift; small norms lose fewer digits in |a|^2 +
        # |b|^2 - 2ab
        centre = torch.cat([a, b]).detach().mean(0)
        a, b = a - centre, b - centre
        d2 = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return d2.clamp(min=0)


def gaussian_mixture_kernel(
    d2: Tensor, bandwidth: Tensor | float, num: int = 5, mul: float = 2.0
) -> Tensor:
    r"""Mixture of `num` Gaussian kernels whose bandwidths are the powers of `mul` around
    `bandwidth`.

    $$\kappa(a, b) = \sum_{u=0}^{num-1}
    \exp\left(-\frac{\|a-b\|^2}{\gamma \cdot mul^{\,u - \lfloor num/2 \rfloor}}\right)$$

    d2 (...) squared distances, bandwidth gamma broadcast against it -> (...), in [0, num]. STCDA
    only says "kernel"; this is the one of the alignment loss it extends (CAN, Kang et al., CVPR
    2019).
    """
    gamma = torch.as_tensor(bandwidth, dtype=d2.dtype, device=d2.device).clamp(min=MIN_BANDWIDTH)
    ratio = d2 / gamma
    return torch.stack([torch.exp(-ratio / mul ** (u - num // 2)) for u in range(num)]).sum(0)
