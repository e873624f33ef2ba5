"""The range check of the first batch that goes into a backbone.

Every encoder takes the same public input, RGB in [0, 1] and flow in [-1, 1] (pixels divided by the
clipping bound), and converts it itself to what its published weights were trained on.
"""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from nbkit.errors import NbkitError

SLACK = 0.05  # interpolation and half precision may step over the nominal range a little
PUBLIC_RANGE = {"rgb": (0.0, 1.0), "flow": (-1.0, 1.0)}
REMEDY = {
    "rgb": "divide bytes by 255, and leave the mean and standard deviation to the backbone",
    "flow": "divide flow in pixels by its clipping bound (flow_clip) and clip; decode bytes with "
    "dequantise first",
}


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
    """Raise NbkitError when values cannot be RGB in [0, 1], or flow in [-1, 1].

    Catches bytes given for fractions, pictures divided by 255 twice, centred pictures, flow in
    pixels, and NaN.  `x` may have any shape.
    """
    low, high = PUBLIC_RANGE[modality]
    remedy = REMEDY[modality]
    if not x.is_floating_point():
        raise NbkitError(
            f"{modality}: a backbone got {x.dtype}, not floats in [{low:g}, {high:g}]; {remedy}"
        )
    smallest, largest = torch.stack(torch.aminmax(x.detach().float())).tolist()
    found = f"{modality}: the first batch holds values from {smallest:.4g} to {largest:.4g}"
    wanted = f"the backbone takes {modality} in [{low:g}, {high:g}]"
    if not (isfinite(smallest) and isfinite(largest)):
        raise NbkitError(f"{found}: not finite; look at the decoded video and the flow")
    if smallest < low - SLACK or largest > high + SLACK:
        raise NbkitError(f"{found}, but {wanted}; {remedy}")
    if modality == "rgb" and 0 < largest <= 1.5 / 255:
        raise NbkitError(f"{found}, but {wanted}; the pictures look divided by 255 twice")


class FirstBatchCheck:
    """Call `check_range` on the first batch that passes it, and never again.

    The check copies values back to the host, which would slow every step.
    """

    def __init__(self, modality: str):
        self.modality, self.done = modality, False

    def __call__(self, x: Tensor) -> None:
        if self.done or x.is_meta:  # tensors without memory only count operations
            return
        check_range(x, self.modality)
        self.done = True
