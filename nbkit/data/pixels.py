"""Stored bytes, and the floats that a network reads."""

from __future__ import annotations

import torch
from torch import Tensor

# the byte that means "no motion": exact, so that a still picture stays still
ZERO = 128
# bytes on each side of it
FLOW_LEVELS = 127


def floats(x: Tensor, modality: str) -> Tensor:
    """Bytes of RGB in [0, 1] and bytes of flow in [-1, 1], float32; other types stay as they are.

    Called where the network is: a quarter of the bytes then cross the bus, and a chunk of clips is
    large only while it is needed.
    """
    if x.dtype != torch.uint8:
        return x
    found = x.to(torch.float32, memory_format=torch.contiguous_format)
    return found.div_(255) if modality == "rgb" else found.sub_(ZERO).mul_(1 / FLOW_LEVELS)
