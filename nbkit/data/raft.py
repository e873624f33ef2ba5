"""RAFT optical flow (Teed and Deng, ECCV 2020) with torchvision's networks, batched."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import optical_flow

from nbkit.errors import NbkitError
from nbkit.files import sha256_of

# RAFT works on maps of an eighth of the side
STRIDE = 8
# pixels: four levels of its correlation pyramid need 16 cells
SMALLEST = 128


@torch.inference_mode()
def raft_flow(
    network: nn.Module, frames: np.ndarray, device: str = "cpu", batch: int = 8, updates: int = 12
) -> np.ndarray:
    """Flow between neighbouring frames by a RAFT network, `batch` pairs at a time.

    Args:
        network: takes two batches of pictures (N, 3, H, W) in [-1, 1], H and W multiples of 8 and
            at least 128, and gives a list of flows (N, 2, H, W), the best one last.
        frames: uint8 (N, H, W, 3) RGB, N >= 2.
        updates: of the recurrent unit; 12 is torchvision's own number.

    Returns:
        float32 (N, H, W, 2) in pixels, (right, down); the last flow is repeated.
    """
    n, height, width = frames.shape[:3]
    top, bottom = padding(height)
    left, right = padding(width)
    flow = np.empty((n, height, width, 2), np.float32)
    for start in range(0, n - 1, batch):
        stop = min(start + batch, n - 1)
        chosen = np.ascontiguousarray(frames[start : stop + 1])
        x = torch.from_numpy(chosen).to(device).permute(0, 3, 1, 2)  # (b + 1, 3, H, W)
        x = x.float() / 127.5 - 1.0
        x = F.pad(x, (left, right, top, bottom), mode="replicate")  # (b + 1, 3, H', W')
        found = network(x[:-1], x[1:], num_flow_updates=updates)[-1]  # (b, 2, H', W')
        inside = found[:, :, top : top + height, left : left + width]  # (b, 2, H, W)
        flow[start:stop] = inside.permute(0, 2, 3, 1).float().cpu().numpy()  # (b, H, W, 2)
    flow[-1] = flow[-2]
    return flow


def padding(side: int) -> tuple[int, int]:
    """Pixels to add before and after, so that `side` becomes a multiple of 8 and at least 128."""
    extra = max(-(-side // STRIDE) * STRIDE, SMALLEST) - side
    return extra // 2, extra - extra // 2


@functools.lru_cache(maxsize=1)  # a cache of videos asks once per video
def pretrained_raft() -> Callable[[np.ndarray], np.ndarray]:
    """RAFT (large) with torchvision's weights, kept for the next call."""
    network = optical_flow.raft_large(weights=None, progress=False)
    load_weights(network, optical_flow.Raft_Large_Weights.DEFAULT)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return functools.partial(raft_flow, network.to(device).eval(), device=device)


def load_weights(network: nn.Module, weights: Any) -> None:
    """Load torchvision's file from the weights folder, downloading it where it is missing.

    Raises:
        NbkitError: no network, or another file in its place; says which file to put where.
    """
    folder = Path(os.environ.get("NBKIT_WEIGHTS") or "~/.cache/nbkit").expanduser()
    path = folder / weights.url.rpartition("/")[2]
    try:
        # downloads into a temporary file and checks it
        state = weights.get_state_dict(model_dir=str(folder), check_hash=True, progress=False)
        digest = sha256_of(path)
        if not digest.startswith(path.stem.rpartition("-")[2]):
            raise ValueError(f"its sha256 is {digest}")
        network.load_state_dict(state)
    except Exception as error:  # the network, the disk and torch each have their own errors
        raise NbkitError(
            f"flow='raft': the weights {path.name} could not be loaded ({error}). On a machine "
            f"with a network fetch {weights.url} and put the file at {path}"
        ) from error
