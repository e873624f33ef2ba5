"""The two branches of the localizer in three sizes.

A key-frame branch maps frames (B, 3, H, W) in [0, 1] to (B, C, h, w). A temporal branch has two
halves: `tf1` maps clips (B, 3, T, H, W) in [0, 1] to (B, D, t, h, w), `tf2` maps RoI maps (R, D, t,
7, 7) to vectors (R, F). Both tell their `channels` and their `stride` in pixels; the temporal
branch also its `features` F.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet50
from torchvision.ops import FrozenBatchNorm2d

from nbkit.models.i3d import InceptionI3D
from nbkit.models.mobilenet import MEAN, STD, find_weights, fuse
from nbkit.models.norm import DomainNorm, Mode
from nbkit.models.weights import load_pretrained


def imagenet_normalise(x: Tensor) -> Tensor:
    """[0, 1] RGB with channels on axis 1 -> zero mean, unit variance over ImageNet."""
    shape = (1, 3) + (1,) * (x.dim() - 2)
    return (x - x.new_tensor(MEAN).view(shape)) / x.new_tensor(STD).view(shape)


def per_step(layers: nn.Module, x: Tensor) -> Tensor:
    """Apply 2-D layers to each time step: (N, C, t, h, w) -> (N, C', t, h', w')."""
    n, c, t, h, w = x.shape
    y = layers(x.transpose(1, 2).reshape(n * t, c, h, w))  # (N*t, C', h', w')
    return y.reshape(n, t, *y.shape[1:]).transpose(1, 2)


def _block(conv: nn.Module, norm: Mode) -> nn.Sequential:
    return nn.Sequential(conv, DomainNorm(conv.out_channels, norm), nn.ReLU(inplace=True))


# ----------------------------------------------------------------------------------------------------------
# small
class SmallKeyframe(nn.Module):
    """Four 3x3 convolutions, stride 4: an 80 x 80 frame gives a 20 x 20 map."""

    channels, stride = 64, 4

    def __init__(self, norm: Mode = "group"):
        super().__init__()
        plan = ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 64, 1))
        self.layers = nn.Sequential(
            *(_block(nn.Conv2d(a, b, 3, s, 1, bias=False), norm) for a, b, s in plan)
        )

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames * 2 - 1)


class SmallTemporal(nn.Module):
    """Two 3-D convolutions and one over space, stride 4 in space and 2 in time; a small head on the
    RoI.

    The third convolution has no extent in time: it holds most of the weights, and costs a third
    this way. The network sees each frame together with its change since the frame before, so that
    motion is in the input from the first step.
    """

    channels, stride, features = 64, 4, 64

    def __init__(self, norm: Mode = "group"):
        super().__init__()
        plan = (
            (6, 16, 3, (1, 2, 2)),
            (16, 32, 3, (2, 2, 2)),
            (32, 64, 1, 1),
        )  # in, out, frames, stride
        self.first = nn.Sequential(
            *(
                _block(nn.Conv3d(a, b, (t, 3, 3), s, (t // 2, 1, 1), bias=False), norm)
                for a, b, t, s in plan
            )
        )
        self.second = _block(nn.Conv2d(64, 64, 3, 2, 1, bias=False), norm)  # 7 x 7 -> 4 x 4
        self.fc = nn.Linear(64 * 16, self.features)

    def tf1(self, clips: Tensor) -> Tensor:
        change = torch.diff(
            clips, dim=2, prepend=clips[:, :, :1]
        )  # (B, 3, T, H, W), zero at the first frame
        return self.first(torch.cat([clips * 2 - 1, change * 4], dim=1))  # (B, 64, T/2, H/4, W/4)

    def tf2(self, rois: Tensor) -> Tensor:
        x = per_step(self.second, rois).mean(2).flatten(1)  # (R, 1024)
        return torch.relu(self.fc(x))


# ---------------------------------------------------------------------------------------------------------
# laptop
def _mobilenet(weights: str | Path | None, freeze: int) -> nn.Sequential:
    """MobileNetV2's feature layers with frozen batch normalisation; the first `freeze` of them are
    not trained.

    `weights`: a file in torchvision's own layout; 'imagenet' = the installed one, see
    `mobilenet.find_weights`.
    In layers that are not trained the normalisation is part of the convolution, and channels lie
    last: half the time.
    """
    network = mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d)
    if weights is not None:
        load_pretrained(
            network, find_weights() if weights == "imagenet" else weights, download=False
        )
    frozen = network.features[:freeze].eval()
    fuse(frozen)
    _freeze(frozen)
    return network.features.to(memory_format=torch.channels_last)


def _freeze(layers) -> None:
    for p in layers.parameters():
        p.requires_grad_(False)


class MobileNetKeyframe(nn.Module):
    """MobileNetV2 up to stride 16; its first `freeze` layers stay as they were loaded."""

    channels, stride = 96, 16

    def __init__(self, weights: str | Path | None = None, freeze: int = 4):
        super().__init__()
        self.layers = _mobilenet(weights, freeze)[:14]

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(imagenet_normalise(frames))


class MobileNetTemporal(nn.Module):
    """MobileNetV2 on every frame, a temporal convolution, and MobileNetV2's last blocks on the RoI.

    The temporal convolution is added to its input and starts at zero, so that training starts from
    plain image features and learns how much motion to mix in.
    """

    channels, stride, features = 96, 16, 320

    def __init__(self, weights: str | Path | None = None, freeze: int = 7):
        super().__init__()
        layers = _mobilenet(weights, freeze)
        self.freeze, self.first, self.second = freeze, layers[:14], layers[14:18]
        self.motion = nn.Sequential(
            nn.Conv3d(96, 96, (3, 1, 1), padding=(1, 0, 0)),
            nn.ReLU(),
            nn.Conv3d(96, 96, (3, 3, 3), padding=1),
        )
        nn.init.zeros_(self.motion[-1].weight)
        nn.init.zeros_(self.motion[-1].bias)

    def tf1(self, clips: Tensor) -> Tensor:
        x = per_step(self.first, imagenet_normalise(clips))  # (B, 96, T, H/16, W/16)
        return x + self.motion(x)

    def tf2(self, rois: Tensor) -> Tensor:
        return per_step(self.second, rois).mean((2, 3, 4))  # (R, 320)


# ----------------------------------------------------------------------------------------------------------
# paper
class ResNetKeyframe(nn.Module):
    """ResNet-50 up to conv4 (1024 channels, stride 16), batch normalisation frozen, stem and conv2
    not trained.
    """

    channels, stride = 1024, 16

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        network = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
        if weights is not None:
            load_pretrained(network, weights)
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.conv2, self.conv3, self.conv4 = network.layer1, network.layer2, network.layer3
        _freeze(self.stem)
        _freeze(self.conv2)

    def forward(self, frames: Tensor) -> Tensor:
        return self.conv4(self.conv3(self.conv2(self.stem(imagenet_normalise(frames)))))


class I3DTemporal(nn.Module):
    """I3D cut behind Mixed_4e (528 channels, stride 16 in space and 4 in time); the rest runs on
    the RoI.

    The cut is our reconstruction (the paper does not print it): stride 16 equals the key frame's
    map. A map that was averaged over time has one step, so the 3 x 3 x 3 kernels of the second half
    then see only their centre slice.

    Args:
        end: last endpoint of TF1, 'Mixed_4e' (528 channels) or 'Mixed_4f' (832).
        pool5a: keep I3D's pooling in front of Mixed_5b, which would halve the 7 x 7 RoI.
    """

    stride, features = 16, 1024

    def __init__(
        self, weights: str | Path | None = None, end: str = "Mixed_4e", pool5a: bool = False
    ):
        super().__init__()
        self.end, self.pool5a, self.channels = end, pool5a, {"Mixed_4e": 528, "Mixed_4f": 832}[end]
        self.network = InceptionI3D(in_channels=3)
        if weights is not None:
            load_pretrained(self.network, weights)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm3d):
                _freeze(module)

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.network.modules():  # frozen statistics, whatever the mode
            if isinstance(module, nn.BatchNorm3d):
                module.eval()
        return self

    def tf1(self, clips: Tensor) -> Tensor:
        return self.network.tf1(clips, self.end)

    def tf2(self, rois: Tensor) -> Tensor:
        return self.network.tf2(rois, self.end, self.pool5a)
