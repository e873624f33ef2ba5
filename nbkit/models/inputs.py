"""What goes into a backbone: the range check of the first batch, and a first layer for another
number of channels.

Every encoder of the suite takes the same public input, RGB in [0, 1] and flow in [-1, 1] (pixels
divided by the clipping bound), and converts it itself to what its published weights were trained
on.
"""

import torch
from torch import Tensor

from nbkit.errors import NbkitError

SLACK = 0.05  # interpolation and half precision may step over the nominal range a little
PUBLIC_RANGE = {"rgb": (0.0, 1.0), "flow": (-1.0, 1.0)}


def modality_of(in_channels: int) -> str:
    """`rgb` for 3 input channels, `flow` for an even number (u and v of one or several steps)."""
    if in_channels == 3:
        return "rgb"
    if in_channels >= 2 and in_channels % 2 == 0:
        return "flow"
    raise NbkitError(
        f"in_channels: {in_channels} is neither 3 (RGB) nor an even number (u and v of the flow)"
    )


def check_range(x: Tensor, modality: str) -> None:
    """Raise NbkitError when the values of `x` (any shape) cannot be RGB in [0, 1], or flow in [-1,
    1].

    Catches bytes given for fractions, pictures divided by 255 twice, centred pictures, flow in
    pixels, and NaN.
    """
    low, high = PUBLIC_RANGE[modality]
    if not x.is_floating_point():
        raise NbkitError(
            f"{modality}: a backbone got {x.dtype}, not floats in [{low:g}, {high:g}]; {_cure(modality)}"
        )
    smallest, largest = (v.item() for v in torch.aminmax(x.detach().float()))
    found = f"{modality}: the first batch holds values from {smallest:.4g} to {largest:.4g}"
    wanted = f"the backbone takes {modality} in [{low:g}, {high:g}]"
    if not (smallest > -float("inf") and largest < float("inf")):  # NaN fails both comparisons
        raise NbkitError(f"{found}: not finite; look at the decoded video and the flow")
    if smallest < low - SLACK or largest > high + SLACK:
        raise NbkitError(f"{found}, but {wanted}; {_cure(modality)}")
    if modality == "rgb" and 0 < largest <= 1.5 / 255:
        raise NbkitError(f"{found}, but {wanted}; the pictures look divided by 255 twice")


def _cure(modality: str) -> str:
    if modality == "rgb":
        return "divide bytes by 255, and leave the mean and standard deviation to the backbone"
    return "divide flow in pixels by its clipping bound (flow_clip) and clip; decode bytes with dequantise first"


def adapt_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """A first-layer kernel (O, C, ...) for `in_channels` inputs: the mean over C, copied to each
    (O, in_channels, ...).

    The cross-modality initialisation of TSN (Wang et al., ECCV 2016, section 3.2).
    """
    mean = weight.mean(dim=1, keepdim=True)  # (O, 1, ...)
    return mean.expand(-1, in_channels, *weight.shape[2:]).contiguous()


class FirstBatchCheck:
    """Calls `check_range` on the first batch that passes it and never again (it reads values back
    to the host).
    """

    def __init__(self, modality: str):
        self.modality, self.done = modality, False

    def __call__(self, x: Tensor) -> None:
        if not self.done and not x.is_meta:  # tensors without memory only count operations
            check_range(x, self.modality)
            self.done = True
