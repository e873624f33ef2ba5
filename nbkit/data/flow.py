"""Dense optical flow between neighbouring frames, and its 8-bit storage."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nbkit.data.pixels import FLOW_LEVELS, ZERO
from nbkit.errors import NbkitError
from nbkit.files import sha256_of

# short side in pixels below which DIS must work at full resolution
SMALL = 160
# RAFT works on maps of an eighth of the side
STRIDE = 8
# pixels: four levels of its correlation pyramid need 16 cells
SMALLEST = 128


def _dis(height: int, width: int) -> Any:
    """DIS flow (Kroeger et al., ECCV 2016) set up for the frame size.

    OpenCV's presets stop at half or quarter resolution, where a limb of a 96-pixel picture is
    thinner than a patch: there we go down to full resolution (finest scale 0) and spare the
    variational refinement and the patches' mean normalisation instead. Inside a moving bar
    12 pixels wide the end-point error is then 0.5 pixels (1.4 ms per frame), against 1.5
    ("medium", 1.5 ms), 2.4 ("ultrafast") and 2.9 for no flow at all.
    """
    if min(height, width) >= SMALL:
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dis.setFinestScale(0)
    dis.setPatchSize(8)
    dis.setPatchStride(5)
    dis.setGradientDescentIterations(12)
    dis.setUseMeanNormalization(False)
    dis.setVariationalRefinementIterations(0)
    return dis


def _tvl1(height: int, width: int) -> Any:
    """TV-L1 flow (Zach et al., 2007), of the two-stream literature; a hundred times slower."""
    if not hasattr(cv2, "optflow"):
        raise NbkitError(
            "flow='tvl1' needs the contrib modules of OpenCV (cv2.optflow is absent): "
            "pip uninstall opencv-python-headless && pip install opencv-contrib-python-headless, "
            "or take flow='dis'."
        )
    return cv2.optflow.DualTVL1OpticalFlow_create()


ESTIMATORS = {"dis": _dis, "tvl1": _tvl1}


def estimator(
    method: str, height: int = SMALL, width: int = SMALL
) -> Callable[[np.ndarray], np.ndarray]:
    """What computes the flow of the frames of a video of this size.

    Raises:
        NbkitError: the method is unknown, or its library or its weights are missing.
    """
    if method == "raft":
        return pretrained_raft()
    if method not in ESTIMATORS:
        known = sorted([*ESTIMATORS, "raft"])
        raise NbkitError(f"flow: unknown method {method!r}; choose one of {known}.")
    return partial(_opencv_flow, ESTIMATORS[method](height, width))


def compute_flow(frames: np.ndarray, method: str = "dis", clip: float | None = 20.0) -> np.ndarray:
    """Forward optical flow: flow[t] moves frame t onto frame t + 1.

    Args:
        frames: uint8 (N, H, W, 3) RGB; N >= 2, H and W >= 16.
        method: 'dis', 'tvl1' or 'raft' (a network: needs published weights, and a GPU for any
            speed).
        clip: largest absolute displacement kept, in pixels (None: no clipping).

    Returns:
        float32 (N, H, W, 2): (u, v) = (right, down) in pixels per frame. The last one is
        repeated, so that there are N flows for N frames.

    Raises:
        NbkitError: an unknown method, too few or too small frames.
    """
    n, height, width = frames.shape[:3]
    if n < 2 or min(height, width) < 16:
        raise NbkitError(
            f"flow: needs at least 2 frames of at least 16x16 pixels, got {n} of {height}x{width}."
        )
    flow = estimator(method, height, width)(frames)
    if clip is not None:
        np.clip(flow, -clip, clip, out=flow)
    return flow


def _opencv_flow(of_pair: Any, frames: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> float32 (N, H, W, 2) on grey pictures; the last flow is repeated."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.empty((*frames.shape[:3], 2), np.float32)
    for t in range(len(frames) - 1):
        flow[t] = of_pair.calc(grey[t], grey[t + 1], None)
    flow[-1] = flow[-2]
    return flow


def quantise(flow: np.ndarray, clip: float) -> np.ndarray:
    """Flow in pixels -> uint8, byte = 128 + round(127 * clamp(flow / clip, -1, 1)).

    `clip` is the displacement in pixels that becomes byte 255. The bytes lie in 1..255, symmetric
    about 128: -flow becomes 256 - byte exactly.
    """
    return (np.rint(np.clip(flow / clip, -1, 1) * FLOW_LEVELS) + ZERO).astype(np.uint8)


def dequantise(stored: np.ndarray, clip: float) -> np.ndarray:
    """Bytes -> float32 flow in pixels, off by at most clip / 254 from what was stored."""
    return (stored.astype(np.float32) - ZERO) * np.float32(clip / FLOW_LEVELS)


# --- RAFT -----------------------------------------------------------------------------------------
@torch.inference_mode()
def raft_flow(
    network: nn.Module, frames: np.ndarray, device: str = "cpu", batch: int = 8, updates: int = 12
) -> np.ndarray:
    """Flow between neighbouring frames by a RAFT network (Teed and Deng, ECCV 2020), `batch` pairs
    at a time.

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


@lru_cache(maxsize=1)  # a cache of videos asks once per video
def pretrained_raft() -> Callable[[np.ndarray], np.ndarray]:
    """RAFT (large) with torchvision's weights, kept for the next call."""
    from torchvision.models import optical_flow  # slow to import

    network = optical_flow.raft_large(weights=None, progress=False)
    load_weights(network, optical_flow.Raft_Large_Weights.DEFAULT)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return partial(raft_flow, network.to(device).eval(), device=device)


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
