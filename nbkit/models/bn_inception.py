"""BN-Inception (Ioffe and Szegedy, ICML 2015), the 2-D backbone of the recognition paper.

Frames go through as pictures and the pooled 1024-d features of a clip's frames are averaged (the
consensus of TSN). Modules carry the names of the published ImageNet file
`bn_inception-52deb4733.pth`, so it loads with `strict=True`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.inputs import FirstBatchCheck, modality_of

BGR_MEAN = (
    104.0,
    117.0,
    128.0,
)  # of the published weights: pictures in 0..255, channels in the order B, G, R
# [-1, 1] -> the grey levels around 128 that TSN trains flow on; no motion stays exactly 0
FLOW_SCALE = 127.5

# name: (channels in, 1x1, (3x3 reduce, 3x3), (double reduce, double), pool, channels after the
# pool) A block without a 1x1 branch halves the picture; its pool has no projection (0).
BLOCKS = {
    "3a": (192, 64, (64, 64), (64, 96), "avg", 32),
    "3b": (256, 64, (64, 96), (64, 96), "avg", 64),
    "3c": (320, 0, (128, 160), (64, 96), "max", 0),
    "4a": (576, 224, (64, 96), (96, 128), "avg", 128),
    "4b": (576, 192, (96, 128), (96, 128), "avg", 128),
    "4c": (576, 160, (128, 160), (128, 160), "avg", 128),
    "4d": (608, 96, (128, 192), (160, 192), "avg", 128),
    "4e": (608, 0, (128, 192), (192, 256), "max", 0),
    "5a": (1056, 352, (192, 320), (160, 224), "avg", 128),
    "5b": (1024, 352, (192, 320), (192, 224), "max", 128),
}


def block_units(block: str) -> dict[str, tuple[int, int, int, int]]:
    """The convolutions of one inception block: name -> (channels in, channels out, kernel side,
    stride).
    """
    c_in, one, (reduce3, three), (reduce_d, double), _, proj = BLOCKS[block]
    stride = 1 if one else 2
    units = {"1x1": (c_in, one, 1, 1)} if one else {}
    units |= {
        "3x3_reduce": (c_in, reduce3, 1, 1),
        "3x3": (reduce3, three, 3, stride),
        "double_3x3_reduce": (c_in, reduce_d, 1, 1),
        "double_3x3_1": (reduce_d, double, 3, 1),
        "double_3x3_2": (double, double, 3, stride),
    }
    if proj:
        units["pool_proj"] = (c_in, proj, 1, 1)
    return {f"inception_{block}_{name}": shape for name, shape in units.items()}


def all_units(in_channels: int) -> dict[str, tuple[int, int, int, int]]:
    """Every convolution of the network: name -> (channels in, channels out, kernel side, stride)."""
    units = {
        "conv1_7x7_s2": (in_channels, 64, 7, 2),
        "conv2_3x3_reduce": (64, 64, 1, 1),
        "conv2_3x3": (64, 192, 3, 1),
    }
    for block in BLOCKS:
        units |= block_units(block)
    return units


class BNInception(nn.Module):
    """BN-Inception for RGB (`in_channels=3`) or flow (2 channels, or 2 for each of several stacked
    steps).

    Public input: RGB in [0, 1] or flow in [-1, 1]; the sides should be multiples of 32 (224 in the
    paper). With `num_classes` a linear head `last_linear` is added; without it the network is a
    clip encoder.
    """

    out_features = 1024
    first_conv, head = "conv1_7x7_s2", "last_linear"

    def __init__(self, in_channels: int = 3, num_classes: int | None = None):
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.modality = modality_of(in_channels)
        self.check_input = FirstBatchCheck(self.modality)
        for name, (c_in, c_out, side, stride) in all_units(in_channels).items():
            self.add_module(name, nn.Conv2d(c_in, c_out, side, stride, padding=side // 2))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(c_out))
        self.map = nn.Identity()  # what passes here is the last feature map: a place to hook
        if num_classes is not None:
            self.last_linear = nn.Linear(self.out_features, num_classes)

    def normalise(self, x: Tensor) -> Tensor:
        """Public pictures (N, C, H, W) -> what the published weights expect: BGR 0..255 less the
        mean, flow x 127.5.
        """
        if self.modality == "flow":
            return x * FLOW_SCALE
        mean = x.new_tensor(BGR_MEAN).view(1, 3, 1, 1)
        return x.flip(1) * 255.0 - mean  # (N, 3, H, W), R G B -> B G R

    def features(self, x: Tensor) -> Tensor:
        """Public pictures (N, C, H, W) -> feature map (N, 1024, h, w), h = H / 32.

        Raises NbkitError for other channels, a side the strides cannot halve, or a first batch out
        of range.
        """
        self._check_shape(x)
        self.check_input(x)
        x = self._unit("conv1_7x7_s2", self.normalise(x))  # (N, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (N, 64, H/4, W/4)
        x = self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x))  # (N, 192, H/4, W/4)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (N, 192, H/8, W/8)
        for block in BLOCKS:
            x = self._block(block, x)
        return self.map(x)

    def clip_features(self, x: Tensor) -> Tensor:
        """Clips (N, C, T, H, W), or pictures (N, C, H, W) -> (N, 1024): space pooled, then the
        frames averaged.
        """
        if x.dim() == 4:
            return self.features(x).mean((2, 3))
        if x.dim() != 5:
            raise NbkitError(
                f"BNInception: takes clips (N, C, T, H, W) or pictures (N, C, H, W), not {tuple(x.shape)}"
            )
        n, _, t = x.shape[:3]
        frames = x.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
        pooled = self.features(frames).mean((2, 3))  # (N T, 1024)
        return pooled.view(n, t, -1).mean(1)  # (N, 1024)

    def forward(self, x: Tensor) -> Tensor:
        """`clip_features(x)` (N, 1024), or (N, num_classes) logits when there is a head."""
        pooled = self.clip_features(x)
        return pooled if self.num_classes is None else self.last_linear(pooled)

    def _unit(self, name: str, x: Tensor) -> Tensor:
        x = self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x))
        return F.relu(
            x, inplace=True
        )  # batch normalisation keeps its input, not its output: safe, and saves one map

    def _block(self, block: str, x: Tensor) -> Tensor:
        _, one, _, _, pool, proj = BLOCKS[block]
        pre = f"inception_{block}_"
        three = self._unit(pre + "3x3", self._unit(pre + "3x3_reduce", x))
        double = self._unit(pre + "double_3x3_1", self._unit(pre + "double_3x3_reduce", x))
        double = self._unit(pre + "double_3x3_2", double)
        if not proj:  # a halving block: the pooled map goes on as it is
            return torch.cat([three, double, F.max_pool2d(x, 3, 2, ceil_mode=True)], 1)
        pooled = F.avg_pool2d(x, 3, 1, 1) if pool == "avg" else F.max_pool2d(x, 3, 1, 1)
        return torch.cat(
            [self._unit(pre + "1x1", x), three, double, self._unit(pre + "pool_proj", pooled)], 1
        )

    def _check_shape(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise NbkitError(
                f"BNInception: takes pictures (N, {self.in_channels}, H, W), not {tuple(x.shape)}"
            )
        for side in x.shape[2:]:
            if _side_at_3c(side) < 4 or _side_at_3c(side) % 4:
                raise NbkitError(
                    f"BNInception: a side of {side} pixels cannot be halved five times; "
                    "use a multiple of 32 (224 in the paper)"
                )


def _side_at_3c(side: int) -> int:
    """The side of the map where block 3c halves it: there and in 4e the convolutions and the pool
    must agree.
    """
    side = (side + 1) // 2  # conv1
    for _ in range(2):  # pools that round up
        side = -(-(side - 1) // 2)
    return side
