"""BN-Inception (Ioffe and Szegedy, ICML 2015), the 2-D backbone of the recognition paper.

The network sees every frame as a picture; the mean over the frames of a clip is the clip's feature
(the consensus of TSN).  Modules carry the names of the published ImageNet file
`bn_inception-52deb4733.pth`, so it loads with `strict=True`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.inputs import FirstBatchCheck, modality_of

# Of the published weights: pictures in 0..255, channels in the order B, G, R.
BGR_MEAN = (104.0, 117.0, 128.0)
# From [-1, 1] to the grey levels around 128 that TSN trains flow on; no motion stays exactly 0.
FLOW_SCALE = 127.5


class Block(NamedTuple):
    """Channels of one inception block; a block without a 1x1 branch halves the picture."""

    c_in: int
    one: int  # 0: no such branch
    three_reduce: int
    three: int
    double_reduce: int
    double: int
    pool: str
    pool_proj: int  # 0: the pooled map goes on as it is


BLOCKS = {
    "3a": Block(192, 64, 64, 64, 64, 96, "avg", 32),
    "3b": Block(256, 64, 64, 96, 64, 96, "avg", 64),
    "3c": Block(320, 0, 128, 160, 64, 96, "max", 0),
    "4a": Block(576, 224, 64, 96, 96, 128, "avg", 128),
    "4b": Block(576, 192, 96, 128, 96, 128, "avg", 128),
    "4c": Block(576, 160, 128, 160, 128, 160, "avg", 128),
    "4d": Block(608, 96, 128, 192, 160, 192, "avg", 128),
    "4e": Block(608, 0, 128, 192, 192, 256, "max", 0),
    "5a": Block(1056, 352, 192, 320, 160, 224, "avg", 128),
    "5b": Block(1024, 352, 192, 320, 192, 224, "max", 128),
}


class BNInception(nn.Module):
    """Clip encoder (N, C, T, H, W) -> (N, 1024) for RGB, or u and v of flow of one or more steps.

    Public input: RGB in [0, 1] (C = 3) or flow in [-1, 1] (C even); the sides must be multiples
    of 32 (224 in the paper).
    """

    out_features = 1024
    first_conv, published_head = "conv1_7x7_s2", "last_linear"
    sees_pictures = True
    sees_order = False

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.in_channels = in_channels
        self.modality = modality_of(in_channels)
        self.check_input = FirstBatchCheck(self.modality)
        mean = torch.tensor(BGR_MEAN).view(1, 3, 1, 1)
        self.register_buffer("bgr_mean", mean, persistent=False)
        self._add_unit("conv1_7x7_s2", in_channels, 64, 7, 2)
        self._add_unit("conv2_3x3_reduce", 64, 64, 1)
        self._add_unit("conv2_3x3", 64, 192, 3)
        for name, block in BLOCKS.items():
            self._add_block(f"inception_{name}_", block)
        self.map = nn.Identity()  # the last feature map passes here: a place to hook
        self.gradcam_layers, self.gradcam_chain = [self.map], None

    def _add_unit(self, name: str, c_in: int, c_out: int, side: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(c_in, c_out, side, stride, padding=side // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(c_out))

    def _add_block(self, name: str, block: Block) -> None:
        stride = 2
        if block.one:
            stride = 1
            self._add_unit(name + "1x1", block.c_in, block.one, 1)
        self._add_unit(name + "3x3_reduce", block.c_in, block.three_reduce, 1)
        self._add_unit(name + "3x3", block.three_reduce, block.three, 3, stride)
        self._add_unit(name + "double_3x3_reduce", block.c_in, block.double_reduce, 1)
        self._add_unit(name + "double_3x3_1", block.double_reduce, block.double, 3)
        self._add_unit(name + "double_3x3_2", block.double, block.double, 3, stride)
        if block.pool_proj:
            self._add_unit(name + "pool_proj", block.c_in, block.pool_proj, 1)

    def normalise(self, x: Tensor) -> Tensor:
        """Turn public pictures (N, C, H, W) into what the published weights expect."""
        if self.modality == "flow":
            return x * FLOW_SCALE
        return x.flip(1) * 255.0 - self.bgr_mean  # (N, 3, H, W), R G B -> B G R

    def features(self, x: Tensor) -> Tensor:
        """Map public pictures (N, C, H, W) to the last feature map (N, 1024, H / 32, W / 32).

        Raises NbkitError for other channels or sides, or a first batch out of range.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise NbkitError(
                f"BNInception: takes pictures (N, {self.in_channels}, H, W), not {tuple(x.shape)}"
            )
        if any(side % 32 for side in x.shape[2:]):
            raise NbkitError(
                f"BNInception: sides of {tuple(x.shape[2:])} pixels cannot be halved five times; "
                "use a multiple of 32 (224 in the paper)"
            )
        self.check_input(x)
        x = self._unit("conv1_7x7_s2", self.normalise(x))  # (N, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (N, 64, H/4, W/4)
        x = self._unit("conv2_3x3", self._unit("conv2_3x3_reduce", x))  # (N, 192, H/4, W/4)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)  # (N, 192, H/8, W/8)
        for name, block in BLOCKS.items():
            x = self._block(f"inception_{name}_", block, x)
        return self.map(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (N, C, T, H, W) or pictures (N, C, H, W) to (N, 1024), pooled."""
        if x.dim() == 4:
            return self.features(x).mean((2, 3))
        if x.dim() != 5:
            raise NbkitError(
                "BNInception: takes clips (N, C, T, H, W) or pictures (N, C, H, W), "
                f"not {tuple(x.shape)}"
            )
        n, _, t = x.shape[:3]
        frames = x.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
        pooled = self.features(frames).mean((2, 3))  # (N T, 1024)
        return pooled.view(n, t, -1).mean(1)  # (N, 1024)

    def _unit(self, name: str, x: Tensor) -> Tensor:
        x = self.get_submodule(name)(x)
        x = self.get_submodule(f"{name}_bn")(x)
        # Batch normalisation keeps its input, not its output: in place is safe and saves one map.
        return F.relu(x, inplace=True)

    def _block(self, name: str, block: Block, x: Tensor) -> Tensor:
        three = self._unit(name + "3x3", self._unit(name + "3x3_reduce", x))
        double = self._unit(name + "double_3x3_reduce", x)
        double = self._unit(name + "double_3x3_1", double)
        double = self._unit(name + "double_3x3_2", double)
        if not block.one:
            pooled = F.max_pool2d(x, 3, 2, ceil_mode=True)
            return torch.cat([three, double, pooled], 1)
        pool = {"avg": F.avg_pool2d, "max": F.max_pool2d}[block.pool]
        pooled = pool(x, 3, 1, 1)
        one = self._unit(name + "1x1", x)
        pooled = self._unit(name + "pool_proj", pooled)
        return torch.cat([one, three, double, pooled], 1)
