"""RAFT optical flow (Teed and Deng, ECCV 2020) with torchvision's networks, batched."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import optical_flow

from nbkit.errors import NbkitError

# RAFT works on maps of an eighth of the side
STRIDE = 8
# pixels: four levels of its correlation pyramid need 16 cells
SMALLEST = 128
# of the recurrent unit, torchvision's own number
UPDATES = 12


class RaftFlow:
    """Flow between neighbouring frames by a RAFT network, `batch` pairs at a time.

    `network` takes two batches of pictures (N, 3, H, W) in [-1, 1], H and W multiples of 8 and at
    least 128, and gives a list of flows (N, 2, H, W), the best one last.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device | None = None,
        batch: int = 8,
        updates: int = UPDATES,
    ):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval()
        self.batch, self.updates = batch, updates

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) RGB, N >= 2 -> float32 (N, H, W, 2) in pixels, (right, down).

        The last flow is repeated.
        """
        n, height, width = frames.shape[:3]
        top, bottom = padding(height)
        left, right = padding(width)
        flow = np.empty((n, height, width, 2), np.float32)
        for start in range(0, n - 1, self.batch):
            stop = min(start + self.batch, n - 1)
            x = self._pictures(frames[start : stop + 1])  # (b + 1, 3, H, W)
            x = F.pad(x, (left, right, top, bottom), mode="replicate")  # (b + 1, 3, H', W')
            found = self.network(x[:-1], x[1:], num_flow_updates=self.updates)[-1]  # (b, 2, H', W')
            inside = found[:, :, top : top + height, left : left + width]  # (b, 2, H, W)
            flow[start:stop] = inside.permute(0, 2, 3, 1).float().cpu().numpy()  # (b, H, W, 2)
        flow[-1] = flow[-2]
        return flow

    def _pictures(self, frames: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        return x.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def padding(side: int) -> tuple[int, int]:
    """Pixels to add before and after, so that `side` becomes a multiple of 8 and at least 128."""
    extra = max(-(-side // STRIDE) * STRIDE, SMALLEST) - side
    return extra // 2, extra - extra // 2


@functools.lru_cache(maxsize=1)  # a cache of videos asks once per video
def pretrained_raft() -> RaftFlow:
    """RAFT (large) with torchvision's weights, kept for the next call."""
    network = optical_flow.raft_large(weights=None, progress=False)
    load_weights(network, optical_flow.Raft_Large_Weights.DEFAULT)
    return RaftFlow(network)


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
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(path.stem.rpartition("-")[2]):
            raise ValueError(f"its sha256 is {digest}")
        network.load_state_dict(state)
    except Exception as error:  # the network, the disk and torch each have their own errors
        raise NbkitError(
            f"flow='raft': the weights {path.name} could not be loaded ({error}). On a machine "
            f"with a network fetch {weights.url} and put the file at {path}"
        ) from error
