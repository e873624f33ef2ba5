"""The two branches of the localizer in three sizes.

A key-frame branch maps frames (B, 3, H, W) in [0, 1] to (B, C, h, w).  A temporal branch has two
halves: `tf1` maps clips (B, 3, T, H, W) in [0, 1] to (B, D, t, h, w), `tf2` maps RoI maps
(R, D, t, 7, 7) to vectors (R, F).  Both have `channels` and `stride` (pixels); the temporal branch
also has `features`, F.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet50
from torchvision.ops import FrozenBatchNorm2d

from nbkit.models.i3d import ENDPOINTS, InceptionI3D
from nbkit.models.mobilenet import MEAN, STD, fuse
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


# --- small ---------------------------------------------------------------------------------------
class SmallKeyframe(nn.Module):
    """Four 3x3 convolutions, stride 4: an 80 x 80 frame gives a 20 x 20 map."""

    channels, stride = 64, 4

    def __init__(self, norm: Mode = "group"):
        super().__init__()
        plan = ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 64, 1))  # in, out, stride
        convolutions = [nn.Conv2d(a, b, 3, stride, 1, bias=False) for a, b, stride in plan]
        self.layers = nn.Sequential(*(_block(conv, norm) for conv in convolutions))

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames * 2 - 1)


class SmallTemporal(nn.Module):
    """Two 3-D convolutions and one over space, stride 4 in space, 2 in time; a small RoI head.

    The network sees each frame together with its change since the frame before.
    """

    channels, stride, features = 64, 4, 64

    def __init__(self, norm: Mode = "group"):
        super().__init__()
        self.first = nn.Sequential(
            _block(nn.Conv3d(6, 16, 3, (1, 2, 2), 1, bias=False), norm),
            _block(nn.Conv3d(16, 32, 3, 2, 1, bias=False), norm),
            _block(nn.Conv3d(32, 64, (1, 3, 3), 1, (0, 1, 1), bias=False), norm),
        )
        self.second = _block(nn.Conv2d(64, 64, 3, 2, 1, bias=False), norm)  # 7 x 7 -> 4 x 4
        self.fc = nn.Linear(64 * 16, self.features)

    def tf1(self, clips: Tensor) -> Tensor:
        # (B, 3, T, H, W), zero at the first frame
        change = torch.diff(clips, dim=2, prepend=clips[:, :, :1])
        return self.first(torch.cat([clips * 2 - 1, change * 4], dim=1))  # (B, 64, T/2, H/4, W/4)

    def tf2(self, rois: Tensor) -> Tensor:
        x = per_step(self.second, rois).mean(2).flatten(1)  # (R, 1024)
        return torch.relu(self.fc(x))


def _block(conv: nn.Module, norm: Mode) -> nn.Sequential:
    return nn.Sequential(conv, DomainNorm(conv.out_channels, norm), nn.ReLU(inplace=True))


# --- laptop --------------------------------------------------------------------------------------
def _mobilenet(weights: str | None, freeze: int) -> nn.Sequential:
    """MobileNetV2's layers; the first `freeze`, whose normalisation is folded in, stay frozen."""
    network = mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d)
    if weights is not None:
        load_pretrained(network, "mobilenet_v2" if weights == "imagenet" else weights)
    frozen = network.features[:freeze].eval()
    fuse(frozen)
    frozen.requires_grad_(False)
    return network.features.to(memory_format=torch.channels_last)  # half the time


class MobileNetKeyframe(nn.Module):
    """MobileNetV2 up to stride 16; its first layers stay as they were loaded."""

    channels, stride, frozen = 96, 16, 4

    def __init__(self, weights: str | None = None):
        super().__init__()
        self.layers = _mobilenet(weights, self.frozen)[:14]

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(imagenet_normalise(frames))


class MobileNetTemporal(nn.Module):
    """MobileNetV2 on every frame, a temporal convolution, MobileNetV2's last blocks on the RoI.

    The temporal convolution is added to its input and starts at zero: from plain image features.
    """

    channels, stride, features, frozen = 96, 16, 320, 7

    def __init__(self, weights: str | None = None):
        super().__init__()
        layers = _mobilenet(weights, self.frozen)
        self.first, self.second = layers[:14], layers[14:18]
        first = nn.Conv3d(96, 96, (3, 1, 1), padding=(1, 0, 0))
        last = nn.Conv3d(96, 96, 3, padding=1)
        self.motion = nn.Sequential(first, nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def tf1(self, clips: Tensor) -> Tensor:
        x = per_step(self.first, imagenet_normalise(clips))  # (B, 96, T, H/16, W/16)
        return x + self.motion(x)

    def tf2(self, rois: Tensor) -> Tensor:
        return per_step(self.second, rois).mean((2, 3, 4))  # (R, 320)


# --- paper ---------------------------------------------------------------------------------------
class ResNetKeyframe(nn.Module):
    """ResNet-50 up to conv4, batch normalisation frozen, stem and conv2 not trained."""

    channels, stride = 1024, 16

    def __init__(self, weights: str | None = None):
        super().__init__()
        network = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
        if weights is not None:
            load_pretrained(network, weights)
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.conv2, self.conv3, self.conv4 = network.layer1, network.layer2, network.layer3
        self.stem.requires_grad_(False)
        self.conv2.requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.conv2(self.stem(imagenet_normalise(frames)))  # (B, 256, H/4, W/4)
        return self.conv4(self.conv3(x))


class I3DTemporal(nn.Module):
    """I3D cut behind Mixed_4e (stride 16 in space, 4 in time); the rest runs on the RoI.

    The cut is our reconstruction: its stride is the key frame's.  `pool5a` keeps I3D's pooling in
    front of Mixed_5b, which would halve the 7 x 7 RoI.
    """

    stride, features = 16, 1024

    def __init__(self, weights: str | None = None, end: str = "Mixed_4e", pool5a: bool = False):
        super().__init__()
        self.end, self.pool5a = end, pool5a
        self.channels = {"Mixed_4e": 528, "Mixed_4f": 832}[end]
        self.network = InceptionI3D(in_channels=3)
        if weights is not None:
            load_pretrained(self.network, weights)
        for norm in self._norms():
            norm.requires_grad_(False)

    def _norms(self) -> list[nn.BatchNorm3d]:
        return [m for m in self.network.modules() if isinstance(m, nn.BatchNorm3d)]

    def train(self, mode: bool = True) -> I3DTemporal:
        super().train(mode)
        for norm in self._norms():  # frozen statistics, whatever the mode
            norm.eval()
        return self

    def tf1(self, clips: Tensor) -> Tensor:
        return self.network.features(clips, self.end)

    def tf2(self, rois: Tensor) -> Tensor:
        return self.network.tf2(rois, self.end, self.pool5a)


class I3DAboveMaps(I3DTemporal):
    """`I3DTemporal` whose layers up to Mixed_4d are frozen: it takes their stored maps for clips.

    `tf1` is Mixed_4e alone, so that the image-level discriminator still has something to move.
    """

    def __init__(self, weights: str | None = None):
        super().__init__(weights)
        for name in ENDPOINTS[: ENDPOINTS.index("Mixed_4e")]:
            delattr(self.network, name)

    def tf1(self, clips: Tensor) -> Tensor:  # (B, 512, t, h, w) -> (B, 528, t, h, w)
        return self.network.Mixed_4e(clips)
