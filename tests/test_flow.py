"""Optical flow of known motions, its alignment with RGB, and its 8-bit storage."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import sliding, texture

from nbkit.data import flow as flow_module
from nbkit.data.flow import compute_flow, dequantise, quantise
from nbkit.errors import NbkitError


@pytest.mark.parametrize("step", [(1, 0), (-3, 0), (0, 2), (4, -3)])
def test_end_point_error_on_a_translating_pattern(step):
    flow = compute_flow(sliding(4, 96, step))
    assert flow.shape == (4, 96, 96, 2) and flow.dtype == np.float32
    inner = flow[:, 8:-8, 8:-8]
    error = np.linalg.norm(inner - np.array(step, np.float32), axis=-1).mean()
    assert error < 0.1, f"{error:.3f} pixels"
    assert np.array_equal(flow[-1], flow[-2])  # N flows for N frames


def test_a_thin_limb_moves_over_a_still_background():
    """What OpenCV's own presets miss at this size: a moving bar 12 pixels wide."""
    ground, limb = texture(96, 1), texture(96, 2)
    frames = []
    for t in range(3):
        frame = ground.copy()
        frame[20:76, 40 + 3 * t : 52 + 3 * t] = limb[20:76, 40:52]
        frames.append(frame)
    flow = compute_flow(np.stack(frames))[0]
    bar = flow[24:72, 41:51]
    assert np.linalg.norm(bar - [3, 0], axis=-1).mean() < 1.0  # zero flow would have 3.0
    far = np.concatenate([flow[:, :30], flow[:, 66:]], axis=1)
    assert np.abs(far).mean() < 0.1


def test_flow_and_rgb_are_aligned_in_time():
    """A bar that jumps once: the flow's energy correlates best with the frame difference at offset
    0.
    """
    rng = np.random.default_rng(0)
    position = np.cumsum(rng.integers(0, 5, 16))  # irregular steps
    big = texture(200, 3)
    frames = np.stack([big[40:136, p : p + 96] for p in position])
    energy = np.abs(compute_flow(frames)).mean((1, 2, 3))[:-1]
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    scores = {s: np.corrcoef(np.roll(energy, s)[3:-3], change[3:-3])[0, 1] for s in range(-3, 4)}
    assert max(scores, key=scores.get) == 0 and scores[0] > 0.9


def test_mirrored_frames_have_mirrored_flow_with_u_negated():
    frames = sliding(3, 96, (2, 1))
    flow = compute_flow(frames)
    mirrored = compute_flow(frames[:, :, ::-1])
    expected = flow[:, :, ::-1] * np.array([-1, 1], np.float32)
    assert np.abs(mirrored - expected)[:, 8:-8, 8:-8].mean() < 0.1
    # and exactly so in storage
    stored = quantise(flow, 8)[:, :, ::-1].copy()
    stored[..., 0] = np.negative(stored[..., 0])
    assert np.array_equal(stored, quantise(expected, 8))


def test_clip_limits_the_displacement():
    assert np.abs(compute_flow(sliding(3, 64, (4, 0)), clip=1.5)).max() == 1.5


def test_the_dis_settings_follow_the_frame_size():
    assert flow_module._dis(96, 96).getFinestScale() == 0
    assert flow_module._dis(240, 320).getFinestScale() == 1


def test_tvl1_agrees_or_says_what_to_install(monkeypatch):
    frames = sliding(3, 48, (1, 0))
    if hasattr(cv2, "optflow"):
        inner = compute_flow(frames[:2], "tvl1")[0, 8:-8, 8:-8]
        assert np.linalg.norm(inner - [1, 0], axis=-1).mean() < 0.2
        monkeypatch.delattr(cv2, "optflow")
    with pytest.raises(NbkitError, match="opencv-contrib-python-headless"):
        compute_flow(frames, "tvl1")


def test_refusals():
    frames = sliding(3, 32)
    with pytest.raises(NbkitError, match="farneback"):
        compute_flow(frames, "farneback")
    with pytest.raises(NbkitError, match="at least 2 frames"):
        compute_flow(frames[:1])
    with pytest.raises(NbkitError, match="16x16"):
        compute_flow(frames[:, :8])


@given(st.floats(0.5, 40), st.lists(st.floats(-50, 50), min_size=2, max_size=20))
def test_storage_is_symmetric_and_within_half_a_step(clip, values):
    flow = np.array(values, np.float32)
    stored = quantise(flow, clip)
    assert stored.min() >= 1
    assert np.array_equal(quantise(-flow, clip), np.negative(stored))
    error = np.abs(dequantise(stored, clip) - np.clip(flow, -clip, clip))
    assert error.max() <= clip / 254 * 1.001
    assert dequantise(quantise(np.zeros(1), clip), clip)[0] == 0
