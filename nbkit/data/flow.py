"""Dense optical flow between neighbouring frames, and its 8-bit storage."""

import numpy as np

from nbkit.errors import NbkitError

ZERO = 128  # the byte that means "no motion": exact, so that a still picture stays still
LEVELS = 127  # bytes on each side of it
SMALL = 160  # short side in pixels below which DIS must work at full resolution


def _opencv():
    try:
        import cv2
    except ImportError as error:
        raise NbkitError("optical flow needs OpenCV: pip install opencv-contrib-python-headless") from error
    return cv2


def _dis(height, width):
    """DIS flow (Kroeger et al., ECCV 2016) set up for the frame size.

    OpenCV's presets stop at half or quarter resolution, where a limb of a 96-pixel picture is
    thinner than a patch: there we go down to full resolution (finest scale 0) and spare the
    variational refinement and the patches' mean normalisation instead.  Inside a moving bar 12
    pixels wide the end-point error is then 0.5 pixels (1.4 ms a frame), against 1.5 ("medium", 1.5
    ms), 2.4 ("ultrafast") and 2.9 for no flow at all.
    """
    cv2 = _opencv()
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


def _tvl1(height, width):
    """TV-L1 flow (Zach et al., 2007), what the two-stream literature uses; about a hundred times
    slower than DIS.
    """
    cv2 = _opencv()
    if not hasattr(cv2, "optflow"):
        raise NbkitError(
            "flow='tvl1' needs the contrib modules of OpenCV (cv2.optflow is absent): "
            "pip uninstall opencv-python-headless && pip install opencv-contrib-python-headless, or take flow='dis'."
        )
    return cv2.optflow.DualTVL1OpticalFlow_create()


# RAFT is no OpenCV estimator: see flow_raft.py
METHODS = {"dis": _dis, "tvl1": _tvl1, "raft": None}


def compute_flow(frames, method="dis", clip=20.0):
    """Forward optical flow: flow[t] moves frame t onto frame t + 1.

    frames  uint8 (N, H, W, 3), RGB; N >= 2, H and W >= 16 method  'dis', 'tvl1' or 'raft' (a
    network: needs published weights, and a GPU for any speed) clip    largest absolute displacement
    kept, pixels (None: no clipping) Returns float32 (N, H, W, 2): (u, v) = (right, down) in pixels
    per frame; the last one is repeated, so that there are N flows for N frames.  Raises NbkitError
    for an unknown method, too few or too small frames.
    """
    if method not in METHODS:
        raise NbkitError(f"flow: unknown method {method!r}; choose one of {sorted(METHODS)}.")
    n, height, width = frames.shape[:3]
    if n < 2 or min(height, width) < 16:
        raise NbkitError(f"flow: needs at least 2 frames of at least 16x16 pixels, got {n} of {height}x{width}.")
    if method == "raft":
        from nbkit.data.flow_raft import raft_flow  # torch and torchvision, only when asked for

        flow = raft_flow(frames)
    else:
        flow = _opencv_flow(frames, METHODS[method](height, width))
    if clip is not None:
        np.clip(flow, -clip, clip, out=flow)
    return flow


def _opencv_flow(frames, estimator):
    """uint8 (N, H, W, 3) -> float32 (N, H, W, 2) by an OpenCV estimator on grey pictures; the last
    flow is repeated.
    """
    cv2 = _opencv()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.empty((*frames.shape[:3], 2), np.float32)
    for t in range(len(frames) - 1):
        flow[t] = estimator.calc(grey[t], grey[t + 1], None)
    flow[-1] = flow[-2]
    return flow


def quantise(flow, clip):
    """Flow in pixels -> bytes, symmetric about 128: byte = 128 + round(127 * clamp(flow / clip, -1,
    1)).

    flow  float (..., 2), pixels;   clip  the displacement that becomes byte 255, pixels > 0
    Returns uint8 of the same shape, in 1..255; -flow becomes 256 - byte exactly.
    """
    return (np.rint(np.clip(flow / clip, -1, 1) * LEVELS) + ZERO).astype(np.uint8)


def dequantise(stored, clip):
    """Bytes -> float32 flow in pixels; off by at most clip / 254 from what was stored (within
    +-clip).
    """
    return (stored.astype(np.float32) - ZERO) * np.float32(clip / LEVELS)
