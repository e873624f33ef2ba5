"""Inception-I3D (Carreira and Zisserman, CVPR 2017), the 3-D backbone.

Modules carry the names of the published PyTorch files `rgb_imagenet.pt` and `flow_imagenet.pt`
(ImageNet, then Kinetics-400), so those load with `strict=True`.  They were trained on input in
[-1, 1], for both modalities.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.inputs import FirstBatchCheck, modality_of
from nbkit.models.norm import DomainNorm, Mode

Triple = tuple[int, int, int]  # time, height, width
AVG_POOL = (2, 7, 7)  # of the last pool: one position for 16 frames of 224 x 224


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) of TensorFlow's 'SAME' along one axis.

    ceil(size / stride) cells come out; an odd cell of padding goes after.
    """
    cells = -(-size // stride)
    total = max((cells - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad (N, C, T, H, W) with zeros for a 'SAME' convolution or pool.

    Zeros serve the max pools too (TensorFlow pads those with minus infinity), because those only
    see maps after a ReLU.
    """
    padding: list[int] = []
    for axis in (2, 1, 0):  # F.pad counts from the last axis
        padding += same_padding(x.shape[2 + axis], kernel[axis], stride[axis])
    if not any(padding):
        return x
    return F.pad(x, padding)


class Unit3D(nn.Module):
    """'SAME' convolution, batch normalisation, ReLU."""

    def __init__(self, c_in: int, c_out: int, side: int = 1, stride: int = 1):
        super().__init__()
        self.conv3d = nn.Conv3d(c_in, c_out, side, stride, bias=False)
        self.bn = nn.BatchNorm3d(c_out, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:  # (N, c_in, T, H, W)
        if x.shape[2] == 1 and self.conv3d.stride[0] == 1:
            x = self._of_one_step(x)
        else:
            x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
            x = self.conv3d(x)  # (N, c_out, T / stride, H / stride, W / stride), rounded up
        return F.relu(self.bn(x), inplace=True)

    def _of_one_step(self, x: Tensor) -> Tensor:
        """The same convolution of maps with one step: only the kernel's centre meets no padding."""
        side = self.conv3d.kernel_size[0]
        centre = self.conv3d.weight[:, :, side // 2]  # (c_out, c_in, side, side)
        x = x.squeeze(2).contiguous(memory_format=torch.channels_last)  # half the time
        bias = self.conv3d.bias  # there is one where the normalisation is folded in
        return F.conv2d(x, centre, bias, padding=side // 2).unsqueeze(2)


class MaxPoolSame(nn.Module):
    """Max pool with TensorFlow's 'SAME' padding, for maps that are not negative."""

    def __init__(self, kernel: Triple, stride: Triple):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] == 1 and self.stride == (1, 1, 1):  # the same, a fifth faster in `tf2`
            side = self.kernel[1]
            return F.max_pool2d(x.squeeze(2), side, 1, side // 2).unsqueeze(2)
        x = pad_same(x, self.kernel, self.stride)
        return F.max_pool3d(x, self.kernel, self.stride)


class Mixed(nn.Module):
    """One inception module: four branches side by side, joined along the channels.

    Args:
        c_in: channels of the input.
        one: channels of the 1x1x1 branch.
        first, second: channels of the two 3x3x3 branches, (reduced, out).
        proj: channels of the branch behind the pool.
    """

    def __init__(
        self, c_in: int, one: int, first: tuple[int, int], second: tuple[int, int], proj: int
    ):
        super().__init__()
        self.b0 = Unit3D(c_in, one)
        self.b1a = Unit3D(c_in, first[0])
        self.b1b = Unit3D(*first, 3)
        self.b2a = Unit3D(c_in, second[0])
        self.b2b = Unit3D(*second, 3)
        self.b3a = MaxPoolSame((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(c_in, proj)

    def forward(self, x: Tensor) -> Tensor:
        one = self.b0(x)
        first = self.b1b(self.b1a(x))
        second = self.b2b(self.b2a(x))
        pooled = self.b3b(self.b3a(x))
        return torch.cat([one, first, second, pooled], 1)


# Endpoint: (kind, arguments).  The input channels of the first one depend on the modality.
LAYERS = {
    "Conv3d_1a_7x7": (Unit3D, (None, 64, 7, 2)),
    "MaxPool3d_2a_3x3": (MaxPoolSame, ((1, 3, 3), (1, 2, 2))),
    "Conv3d_2b_1x1": (Unit3D, (64, 64, 1)),
    "Conv3d_2c_3x3": (Unit3D, (64, 192, 3)),
    "MaxPool3d_3a_3x3": (MaxPoolSame, ((1, 3, 3), (1, 2, 2))),
    "Mixed_3b": (Mixed, (192, 64, (96, 128), (16, 32), 32)),
    "Mixed_3c": (Mixed, (256, 128, (128, 192), (32, 96), 64)),
    "MaxPool3d_4a_3x3": (MaxPoolSame, ((3, 3, 3), (2, 2, 2))),
    "Mixed_4b": (Mixed, (480, 192, (96, 208), (16, 48), 64)),
    "Mixed_4c": (Mixed, (512, 160, (112, 224), (24, 64), 64)),
    "Mixed_4d": (Mixed, (512, 128, (128, 256), (24, 64), 64)),
    "Mixed_4e": (Mixed, (512, 112, (144, 288), (32, 64), 64)),
    "Mixed_4f": (Mixed, (528, 256, (160, 320), (32, 128), 128)),
    "MaxPool3d_5a_2x2": (MaxPoolSame, ((2, 2, 2), (2, 2, 2))),
    "Mixed_5b": (Mixed, (832, 256, (160, 320), (32, 128), 128)),
    "Mixed_5c": (Mixed, (832, 384, (192, 384), (48, 128), 128)),
}
ENDPOINTS = list(LAYERS)


class InceptionI3D(nn.Module):
    """Clip encoder (N, C, T, H, W) -> (N, 1024) for RGB (C = 3) or flow (C = 2).

    Public input: RGB in [0, 1], flow in [-1, 1].  Strides: 16 in space and 4 in time at Mixed_4e,
    32 and 8 at the end; any size works ('SAME' padding rounds up).
    """

    out_features = 1024
    first_conv, published_head = "Conv3d_1a_7x7.conv3d", "logits"
    sees_pictures = False
    sees_order = True

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.in_channels = in_channels
        self.modality = modality_of(in_channels)
        self.check_input = FirstBatchCheck(self.modality)
        for name, (kind, arguments) in LAYERS.items():
            if name == ENDPOINTS[0]:
                arguments = (in_channels, *arguments[1:])
            self.add_module(name, kind(*arguments))
        self.gradcam_layers, self.gradcam_chain = [self.Mixed_5c], None

    def normalise(self, x: Tensor) -> Tensor:
        """Turn public clips into the [-1, 1] of the published weights."""
        if self.modality == "flow":
            return x
        return x * 2.0 - 1.0

    def features(self, x: Tensor, end: str = "Mixed_5c") -> Tensor:
        """Map public clips (N, C, T, H, W) to the output of endpoint `end`.

        The last endpoint gives (N, 1024, T/8, H/32, W/32), Mixed_4e (N, 528, T/4, H/16, W/16).
        Raises NbkitError for other channels, or a first batch out of range.
        """
        if x.dim() != 5 or x.shape[1] != self.in_channels:
            raise NbkitError(
                f"InceptionI3D: takes clips (N, {self.in_channels}, T, H, W), not {tuple(x.shape)}"
            )
        self.check_input(x)
        return self._run(self.normalise(x), ENDPOINTS[: ENDPOINTS.index(end) + 1])

    def pool(self, x: Tensor) -> Tensor:
        """Average a map (N, 1024, t, h, w) over windows of (2, 7, 7), or over a smaller map whole.

        Returns (N, 1024, t - 1, h - 6, w - 6), at least one position per axis.
        """
        window = [min(cells, side) for cells, side in zip(AVG_POOL, x.shape[2:], strict=True)]
        return F.avg_pool3d(x, window, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map public clips (N, C, T, H, W) to (N, 1024), the mean over the positions of `pool`."""
        return self.pool(self.features(x)).mean((2, 3, 4))

    def tf2(self, roi: Tensor, start: str = "Mixed_4e", pool5a: bool = False) -> Tensor:
        """Run the localizer's second part: what follows endpoint `start` (Mixed_4e or Mixed_4f).

        RoI maps (R, 528, h, w) or (R, 528, t, h, w) become (R, 1024), the mean over all cells.
        MaxPool3d_5a runs only with `pool5a`, so that a 7 x 7 map keeps its side.  Maps pooled over
        time have one step: 3-D kernels then see only their centre slice.
        """
        if roi.dim() == 4:
            roi = roi.unsqueeze(2)  # (R, 528, 1, h, w)
        names = ENDPOINTS[ENDPOINTS.index(start) + 1 :]
        if not pool5a:
            names.remove("MaxPool3d_5a_2x2")
        return self._run(roi, names).mean((2, 3, 4))

    def _run(self, x: Tensor, names: Iterable[str]) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


class FrozenI3D:
    """The Kinetics network, never trained: clips (N, C, T, H, W) -> features (N, 1024).

    The flow network starts from the RGB weights too: its two channels get the mean of the RGB
    filters.  It computes in bfloat16 where the processor can; the features then differ by about
    1.5 percent of their norm.
    """

    out_features = InceptionI3D.out_features

    def __init__(self, in_channels: int, weights: str | Path = "kinetics400", device: str = "cpu"):
        from nbkit.files import sha256_of
        from nbkit.models.weights import PUBLISHED

        self.in_channels, self.weights, self.device = in_channels, weights, device
        self.half = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
        entry, precision = PUBLISHED.get(str(weights)), "bf16" if self.half else "f32"
        content = entry.sha256 or entry.git_blob if entry else sha256_of(Path(weights))
        # part of the name of what is computed with it
        self.key = f"i3d-{in_channels}-{content[:16]}-{precision}"

    @cached_property
    def network(self) -> InceptionI3D:
        """The network, read when the first clip comes: most runs find all features stored."""
        from nbkit.models.mobilenet import fuse  # here, because it loads torchvision
        from nbkit.models.weights import load_pretrained

        network = InceptionI3D(self.in_channels)
        load_pretrained(network, self.weights)
        network.eval().requires_grad_(False)
        fuse(network)
        return network.to(self.device, memory_format=torch.channels_last_3d)

    @torch.inference_mode()
    def clip_features(self, x: Tensor) -> Tensor:
        """Map public clips (N, C, T, H, W) to (N, 1024)."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            return self.network(self._placed(x)).float()

    @torch.inference_mode()
    def clip_maps(self, x: Tensor, end: str) -> Tensor:
        """Map public clips (N, C, T, H, W) to the output of endpoint `end`."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            return self.network.features(self._placed(x), end).float()

    def _placed(self, x: Tensor) -> Tensor:
        return x.to(self.device).contiguous(memory_format=torch.channels_last_3d)


class ClipFeatureEncoder(nn.Module):
    """Trainable head over frozen clip features (N, 1, F) -> (N, F): standardise, drop out.

    The stream's own linear layer F -> D follows.
    """

    sees_pictures, sees_order = False, True
    gradcam_layers: list[nn.Module] = []  # features have no places left
    gradcam_chain = None

    def __init__(self, bn_mode: Mode = "per_domain", dropout: float = 0.5):
        super().__init__()
        self.out_features = InceptionI3D.out_features
        self.norm_in = DomainNorm(self.out_features, bn_mode, affine=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm_in(x.squeeze(1)))
