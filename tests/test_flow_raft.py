"""RAFT as a flow source: shapes, padding and cropping, batching, and its weights."""

import hashlib
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.models import Weights, WeightsEnum, optical_flow

from nbkit.data.flow import compute_flow, load_weights, padding, raft_flow
from nbkit.errors import NbkitError


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Places(torch.nn.Module):
    """A stand-in network: 'flow' = the first picture's red, and the second one's minus the first
    one's green.
    """

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, first, second, num_flow_updates):
        self.shapes.append(tuple(first.shape))
        return [
            torch.zeros_like(first[:, :2]),
            torch.stack([first[:, 0], second[:, 1] - first[:, 1]], 1),
        ]


def small() -> torch.nn.Module:
    return optical_flow.raft_small(weights=None, progress=False)


def frames(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_random_weights_at_a_small_size():
    torch.manual_seed(0)
    video = frames(3, 72, 90)
    flow = raft_flow(small().eval(), video, batch=2, updates=2)
    assert flow.shape == (3, 72, 90, 2) and flow.dtype == np.float32 and np.isfinite(flow).all()
    np.testing.assert_array_equal(flow[-1], flow[-2])
    assert np.abs(flow).max() > 0


@pytest.mark.parametrize("size", [(72, 90), (128, 128), (131, 240)])
def test_padding_is_cropped_away_and_every_pair_is_seen_once(size):
    network, video = Places(), frames(6, *size)
    flow = raft_flow(network, video, batch=2)
    scaled = video.astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(flow[:-1, ..., 0], scaled[:-1, ..., 0], atol=1e-6)
    np.testing.assert_allclose(
        flow[:-1, ..., 1], scaled[1:, ..., 1] - scaled[:-1, ..., 1], atol=1e-6
    )
    assert [s[0] for s in network.shapes] == [2, 2, 1]
    assert all(h % 8 == 0 and w % 8 == 0 and min(h, w) >= 128 for _, _, h, w in network.shapes)


@pytest.mark.parametrize(
    ("side", "padded"), [(16, 128), (127, 128), (128, 128), (129, 136), (240, 240)]
)
def test_padded_sides(side, padded):
    assert side + sum(padding(side)) == padded


def test_offline_it_says_which_file_to_put_where(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    with pytest.raises(NbkitError, match=f"put the file at {tmp_path}/raft_small_C_T_V2-01064c6d"):
        load_weights(small(), optical_flow.Raft_Small_Weights.DEFAULT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["another network", "text"])
def test_another_file_in_its_place_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path))
    path = tmp_path / "raft_small_C_T_V2-01064c6d.pth"
    if content == "text":
        path.write_text("<html>")
    else:
        torch.save(small().state_dict(), path)
    with pytest.raises(NbkitError, match=f"{path.name} could not be loaded"):
        load_weights(small(), optical_flow.Raft_Small_Weights.DEFAULT)


def test_a_local_file_is_enough(tmp_path, monkeypatch):
    network = small()
    part = tmp_path / "part.pth"
    torch.save(network.state_dict(), part)
    name = f"raft-{hashlib.sha256(part.read_bytes()).hexdigest()[:8]}.pth"
    part.rename(tmp_path / name)
    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path))
    weights = WeightsEnum("Own", {"V1": Weights(f"https://nowhere/{name}", None, {})}).V1
    loaded = small()
    load_weights(loaded, weights)
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_raft_is_a_method_of_compute_flow(monkeypatch):
    monkeypatch.setattr("nbkit.data.flow.pretrained_raft", lambda: partial(raft_flow, Places()))
    video = frames(3, 32, 40)
    flow = compute_flow(video, "raft", clip=0.5)
    expected = np.clip(video[:-1, ..., 0].astype(np.float32) / 127.5 - 1, -0.5, 0.5)
    np.testing.assert_allclose(flow[:-1, ..., 0], expected, atol=1e-6)
