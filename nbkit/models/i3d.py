"""Inception-I3D (Carreira and Zisserman, CVPR 2017), the 3-D backbone.

Modules carry the names of the published PyTorch files `rgb_imagenet.pt` and `flow_imagenet.pt`
(ImageNet, then Kinetics-400), so those load with `strict=True`.  Input of the published weights:
[-1, 1] for both modalities.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.inputs import FirstBatchCheck, modality_of

Triple = tuple[int, int, int]

# Kernel and stride of the pools, as (time, height, width).
POOLS: dict[str, tuple[Triple, Triple]] = {
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}
# name: (channels in, channels out, kernel side, stride)
STEM = {
    "Conv3d_1a_7x7": (0, 64, 7, 2),
    "Conv3d_2b_1x1": (64, 64, 1, 1),
    "Conv3d_2c_3x3": (64, 192, 3, 1),
}
# name: (channels in, 1x1, (3x3 reduce, 3x3), (second reduce, second 3x3), pool projection)
MIXED = {
    "Mixed_3b": (192, 64, (96, 128), (16, 32), 32),
    "Mixed_3c": (256, 128, (128, 192), (32, 96), 64),
    "Mixed_4b": (480, 192, (96, 208), (16, 48), 64),
    "Mixed_4c": (512, 160, (112, 224), (24, 64), 64),
    "Mixed_4d": (512, 128, (128, 256), (24, 64), 64),
    "Mixed_4e": (512, 112, (144, 288), (32, 64), 64),
    "Mixed_4f": (528, 256, (160, 320), (32, 128), 128),
    "Mixed_5b": (832, 256, (160, 320), (32, 128), 128),
    "Mixed_5c": (832, 384, (192, 384), (48, 128), 128),
}
ENDPOINTS = (
    "Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "MaxPool3d_3a_3x3", "Mixed_3b", "Mixed_3c",
    "MaxPool3d_4a_3x3", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", "MaxPool3d_5a_2x2",
    "Mixed_5b", "Mixed_5c",
)  # fmt: skip
AVG_POOL = (2, 7, 7)  # steps and cells of the last pool: one position for 16 frames of 224 x 224


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) of TensorFlow's 'SAME': ceil(size / stride) cells come out, the odd
    cell goes after.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Pad (N, C, T, H, W) with zeros for a 'SAME' convolution or pool.

    Zeros serve the max pools too (TensorFlow pads those with minus infinity): they only ever see
    maps after a ReLU.
    """
    sides = [same_padding(s, k, d) for s, k, d in zip(x.shape[2:], kernel, stride, strict=True)]
    pad = [
        p for before_after in reversed(sides) for p in before_after
    ]  # F.pad counts from the last axis
    return F.pad(x, pad) if any(pad) else x


class Unit3D(nn.Module):
    """'SAME' convolution, batch normalisation, ReLU; or, as the classifier, the convolution with a
    bias alone.
    """

    def __init__(
        self, c_in: int, c_out: int, side: int = 1, stride: int = 1, classifier: bool = False
    ):
        super().__init__()
        self.conv3d = nn.Conv3d(c_in, c_out, side, stride, bias=classifier)
        self.bn = None if classifier else nn.BatchNorm3d(c_out, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, T, H, W) -> (N, c_out, ceil(T / stride), ceil(H / stride), ceil(W / stride))."""
        x = self.conv3d(pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else F.relu(self.bn(x), inplace=True)


class MaxPoolSame(nn.Module):
    """Max pool with TensorFlow's 'SAME' padding, for maps that are not negative."""

    def __init__(self, kernel: Triple, stride: Triple):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """One inception module: four branches side by side, joined along the channels."""

    def __init__(
        self, c_in: int, one: int, first: tuple[int, int], second: tuple[int, int], proj: int
    ):
        super().__init__()
        self.b0 = Unit3D(c_in, one)
        self.b1a, self.b1b = Unit3D(c_in, first[0]), Unit3D(*first, 3)
        self.b2a, self.b2b = Unit3D(c_in, second[0]), Unit3D(*second, 3)
        self.b3a, self.b3b = MaxPoolSame((3, 3, 3), (1, 1, 1)), Unit3D(c_in, proj)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1
        )


class InceptionI3D(nn.Module):
    """I3D for RGB (`in_channels=3`) or flow (`in_channels=2`); with `num_classes` it has the
    published head `logits`.

    Public input (N, C, T, H, W): RGB in [0, 1], flow in [-1, 1].  Strides: 16 in space and 4 in
    time at Mixed_4e, 32 and 8 at the end; any size works ('SAME' padding rounds up).
    """

    out_features = 1024
    first_conv, head = "Conv3d_1a_7x7.conv3d", "logits"

    def __init__(self, in_channels: int = 3, num_classes: int | None = None, dropout: float = 0.5):
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.modality = modality_of(in_channels)
        self.check_input = FirstBatchCheck(self.modality)
        for name in ENDPOINTS:
            self.add_module(name, self._endpoint(name, in_channels))
        self.dropout = nn.Dropout(dropout)
        if num_classes is not None:
            self.logits = Unit3D(self.out_features, num_classes, classifier=True)

    @staticmethod
    def _endpoint(name: str, in_channels: int) -> nn.Module:
        if name in POOLS:
            return MaxPoolSame(*POOLS[name])
        if name in MIXED:
            return Mixed(*MIXED[name])
        c_in, c_out, side, stride = STEM[name]
        return Unit3D(c_in or in_channels, c_out, side, stride)

    def normalise(self, x: Tensor) -> Tensor:
        """Public clips -> the [-1, 1] of the published weights."""
        return x if self.modality == "flow" else x * 2.0 - 1.0

    def features(self, x: Tensor, end: str = "Mixed_5c") -> Tensor:
        """Public clips (N, C, T, H, W) -> the map at endpoint `end`; (N, 1024, T/8, H/32, W/32) at
        the last one.

        Raises NbkitError for an unknown endpoint, another number of channels or a first batch out
        of range.
        """
        if x.dim() != 5 or x.shape[1] != self.in_channels:
            raise NbkitError(
                f"InceptionI3D: takes clips (N, {self.in_channels}, T, H, W), not {tuple(x.shape)}"
            )
        self.check_input(x)
        return self._run(self.normalise(x), ENDPOINTS[: _position(end) + 1])

    def pool(self, x: Tensor) -> Tensor:
        """The (2, 7, 7) average pool at stride 1 of a map (N, 1024, t, h, w); smaller maps are
        pooled whole.
        """
        window = [min(k, s) for k, s in zip(AVG_POOL, x.shape[2:], strict=True)]
        return F.avg_pool3d(
            x, window, stride=1
        )  # (N, 1024, t - 1, h - 6, w - 6), at least one position

    def clip_features(self, x: Tensor) -> Tensor:
        """Public clips (N, C, T, H, W) -> (N, 1024): the mean over the positions of `pool` (one for
        16 x 224 x 224).
        """
        return self.pool(self.features(x)).mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """`clip_features(x)`, or with a head the logits (N, num_classes), averaged over the
        positions of the pool.
        """
        if self.num_classes is None:
            return self.clip_features(x)
        return self.logits(self.dropout(self.pool(self.features(x)))).mean((2, 3, 4))

    def tf1(self, x: Tensor, end: str = "Mixed_4e") -> Tensor:
        """The localizer's first part: public clips -> (N, 528, T/4, H/16, W/16) at Mixed_4e (832
        channels at 4f).
        """
        return self.features(x, end)

    def tf2(self, roi: Tensor, start: str = "Mixed_4e", pool5a: bool = False) -> Tensor:
        """The localizer's second part: RoI maps (R, 528, h, w) or (R, 528, t, h, w) -> (R, 1024),
        mean over all cells.

        Runs what follows endpoint `start` (Mixed_4f, 5b, 5c), without the stride of MaxPool3d_5a
        unless `pool5a`, so a 7 x 7 map keeps its side.  Maps pooled over time have one step: 3-D
        kernels then see their centre slice only.
        """
        roi = roi.unsqueeze(2) if roi.dim() == 4 else roi  # (R, 528, t, h, w)
        rest = [n for n in ENDPOINTS[_position(start) + 1 :] if pool5a or n not in POOLS]
        return self._run(roi, rest).mean((2, 3, 4))

    def _run(self, x: Tensor, names) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


def _position(endpoint: str) -> int:
    if endpoint not in ENDPOINTS:
        raise NbkitError(
            f"InceptionI3D: no endpoint {endpoint!r}; there are {', '.join(ENDPOINTS)}"
        )
    return ENDPOINTS.index(endpoint)
