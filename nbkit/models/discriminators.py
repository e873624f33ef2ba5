"""The three domain discriminators of Agarwal et al., BMVC 2020, and the module that applies them.

Every discriminator returns logits of "target".  Their shapes are our reconstruction after the works
that the paper cites: D_S after strong-weak alignment (SWDA), the others after domain-adaptive
Faster R-CNN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nbkit.config.localization import Adaptation
from nbkit.losses.adversarial import (
    gradient_reversal,
    spatial_image_loss,
    temporal_image_loss,
    temporal_instance_loss,
)


@dataclass
class Aspects:
    """What the discriminators see of one domain's B frames.

    Attributes:
        spatial: (B, C, h, w), key-frame map SF(K).
        temporal: (B, D, h, w), TF1(V) averaged over time.
        instances: B tensors (K_i, F), TF2(TF1(V)) of each frame's RoIs: on source frames those that
            are trained on, labelled boxes among them; on target frames the best-scored proposals.
    """

    spatial: Tensor
    temporal: Tensor
    instances: list[Tensor]


@dataclass(frozen=True)
class DiscriminatorShape:
    """Widths, dropout and deviations of initial weights; the defaults are the cited papers'."""

    s_img: tuple[int, ...] = (512, 128, 128)
    t_img: int = 512
    t_ins: int = 1024
    dropout: float = 0.5
    t_img_std: float = 0.001
    t_ins_std: tuple[float, float, float] = (0.01, 0.01, 0.05)


class SpatialImageDiscriminator(nn.Module):
    """D_S: key-frame map (B, C, h, w) -> (B,), one logit per frame.

    Three 3x3 convolutions of stride 2, global mean, one linear unit.  `norm='bn'` is SWDA's; with
    one image of each domain in a step its statistics are of one image, hence 'gn' by default.
    """

    def __init__(self, channels: int, shape: DiscriminatorShape, norm: str = "gn"):
        super().__init__()
        layers: list[nn.Module] = []
        for width in shape.s_img:
            layers.append(nn.Conv2d(channels, width, 3, 2, 1, bias=False))
            layers.append(nn.GroupNorm(8, width) if norm == "gn" else nn.BatchNorm2d(width))
            layers += [nn.ReLU(), nn.Dropout(shape.dropout)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.layers(x).mean((2, 3))  # (B, width)
        return self.last(pooled).squeeze(1)


class TemporalImageDiscriminator(nn.Module):
    """D_Timg: temporal map (B, D, h, w) -> (B, 1, h, w), Q of Eq. (4) as logits, place by place."""

    def __init__(self, channels: int, shape: DiscriminatorShape):
        super().__init__()
        first, last = nn.Conv2d(channels, shape.t_img, 1), nn.Conv2d(shape.t_img, 1, 1)
        _initialise((first, last), (shape.t_img_std, shape.t_img_std))
        self.layers = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TemporalInstanceDiscriminator(nn.Module):
    """D_Tinst: RoI vectors (R, F) -> (R,), R of Eq. (5) as logits.  Three linear layers."""

    def __init__(self, features: int, shape: DiscriminatorShape):
        super().__init__()
        width = shape.t_ins
        linear = [nn.Linear(features, width), nn.Linear(width, width), nn.Linear(width, 1)]
        _initialise(linear, shape.t_ins_std)
        layers: list[nn.Module] = []
        for hidden in linear[:2]:
            layers += [hidden, nn.ReLU(), nn.Dropout(shape.dropout)]
        self.layers = nn.Sequential(*layers, linear[2])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


def _initialise(layers: Sequence[nn.Module], deviations: Sequence[float]) -> None:
    for layer, std in zip(layers, deviations, strict=True):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)


class Discriminators(nn.Module):
    """Discriminators `modules` of a row, any of t_img, t_ins, s_img, behind gradient reversal.

    `channels` are C, D, F of `Aspects`.
    """

    def __init__(
        self,
        modules: Sequence[str],
        channels: tuple[int, int, int],
        shape: DiscriminatorShape,
        adaptation: Adaptation,
    ):
        super().__init__()
        self.names = tuple(modules)
        self.gamma, self.reduction = adaptation.gamma, adaptation.adv_reduction
        spatial, temporal, features = channels
        if "t_img" in modules:
            self.t_img = TemporalImageDiscriminator(temporal, shape)
        if "t_ins" in modules:
            self.t_ins = TemporalInstanceDiscriminator(features, shape)
        if "s_img" in modules:
            self.s_img = SpatialImageDiscriminator(spatial, shape, adaptation.ds_norm)

    def logits(self, seen: Aspects, beta: float = 1.0) -> dict[str, Tensor | list[Tensor]]:
        """Logits by module: s_img (B,), t_img (B, 1, h, w), t_ins a list of (K_i,)."""
        found: dict[str, Tensor | list[Tensor]] = {}
        if "t_img" in self.names:
            found["t_img"] = self.t_img(gradient_reversal(seen.temporal, beta))
        if "t_ins" in self.names:
            counts = [len(vectors) for vectors in seen.instances]
            vectors = torch.cat(seen.instances)  # (sum K_i, F)
            found["t_ins"] = list(self.t_ins(gradient_reversal(vectors, beta)).split(counts))
        if "s_img" in self.names:
            found["s_img"] = self.s_img(gradient_reversal(seen.spatial, beta))
        return found

    def forward(self, source: Aspects, target: Aspects, beta: float = 1.0) -> dict[str, Tensor]:
        """The terms of Eq. (6), each a scalar, by module."""
        s, t = self.logits(source, beta), self.logits(target, beta)
        terms = {}
        if "t_img" in s:
            terms["t_img"] = temporal_image_loss(s["t_img"], t["t_img"], self.reduction)
        if "t_ins" in s:
            terms["t_ins"] = temporal_instance_loss(s["t_ins"], t["t_ins"], self.reduction)
        if "s_img" in s:
            terms["s_img"] = spatial_image_loss(s["s_img"], t["s_img"], self.gamma)
        return terms
