"""RAFT optical flow (Teed and Deng, ECCV 2020) with torchvision's networks: batched, on the GPU
when there is one.
"""

import functools
import multiprocessing
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nbkit.errors import NbkitError
from nbkit.models.weights import load_pretrained

STRIDE = 8  # RAFT works on maps of an eighth of the side
SMALLEST = 128  # pixels: four levels of its correlation pyramid need 16 cells
UPDATES = 12  # of the recurrent unit, torchvision's own number
VARIANTS = ("large", "small")


class RaftFlow:
    """Flow between neighbouring frames by a RAFT network, `batch` pairs at a time.

    network  torchvision's `raft_large` or `raft_small`, or another that takes two batches of
    pictures (N, 3, H, W) in
             [-1, 1], H and W multiples of 8 and at least 128, and gives a list of flows (N, 2, H,
             W), the best one last
    """

    def __init__(
        self, network: torch.nn.Module, device: str | torch.device | None = None, batch: int = 8, updates: int = UPDATES
    ):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.to(self.device).eval()
        self.batch, self.updates = batch, updates

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) RGB, N >= 2 -> float32 (N, H, W, 2), (right, down) in pixels; the last
        one is repeated.
        """
        n, height, width = frames.shape[:3]
        pad = padding(height) + padding(width)  # top, bottom, left, right
        flow = np.empty((n, height, width, 2), np.float32)
        for start in range(0, n - 1, self.batch):
            stop = min(start + self.batch, n - 1)
            x = self._pictures(frames[start : stop + 1], pad)  # (b + 1, 3, H', W')
            # (b, 2, H', W')
            estimate = self.network(x[:-1], x[1:], num_flow_updates=self.updates)[-1]
            inside = estimate[:, :, pad[0] : pad[0] + height, pad[2] : pad[2] + width]
            flow[start:stop] = inside.permute(0, 2, 3, 1).float().cpu().numpy()  # (b, H, W, 2)
        flow[-1] = flow[-2]
        return flow

    def _pictures(self, frames: np.ndarray, pad: tuple[int, int, int, int]) -> torch.Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)
        x = x.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # (b + 1, 3, H, W)
        return F.pad(x, (pad[2], pad[3], pad[0], pad[1]), mode="replicate")


def padding(side: int) -> tuple[int, int]:
    """Pixels to add before and after, so that `side` becomes a multiple of 8 and at least 128."""
    extra = max(-(-side // STRIDE) * STRIDE, SMALLEST) - side
    return extra // 2, extra - extra // 2


def build_raft(variant: str = "large") -> torch.nn.Module:
    """torchvision's RAFT without weights; raises NbkitError for an unknown variant."""
    from torchvision.models import optical_flow

    if variant not in VARIANTS:
        raise NbkitError(f"flow='raft': unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    return getattr(optical_flow, f"raft_{variant}")(weights=None, progress=False)


@functools.lru_cache(maxsize=1)  # a cache of videos asks once a video
def pretrained_raft(
    variant: str = "large", weights: str | Path | None = None, device: str | None = None, batch: int = 8
) -> RaftFlow:
    """RAFT with published weights, or those of the file `weights`; kept for the next call.

    Raises NbkitError offline, saying which file to put where, and in a worker process: a forked one
    cannot use the GPU, and the batches already fill it.
    """
    if multiprocessing.parent_process() is not None:
        raise NbkitError("flow='raft' runs in one process, pairs of frames in batches: set workers=1")
    network = build_raft(variant)
    load_pretrained(network, weights or f"raft_{variant}")
    return RaftFlow(network, device, batch)


def raft_flow(frames: np.ndarray, variant: str = "large", **options) -> np.ndarray:
    """RAFT flow of a video: uint8 (N, H, W, 3) -> float32 (N, H, W, 2) in pixels; `options` as in
    `pretrained_raft`.
    """
    return pretrained_raft(variant, **options)(frames)
