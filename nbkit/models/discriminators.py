"""The three domain discriminators of Agarwal et al., BMVC 2020, and the module that applies them.

Every discriminator returns logits of "target". Their shapes are our reconstruction after the works
the paper cites: D_S after strong-weak alignment (SWDA), the other two after domain-adaptive Faster
R-CNN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.losses.adversarial import (
    MODULES,
    Reduction,
    gradient_reversal,
    spatial_image_loss,
    temporal_image_loss,
    temporal_instance_loss,
)


@dataclass
class Aspects:
    """What the discriminators see of one domain's B frames.

    Attributes:
        spatial: (B, C, h, w) key-frame map SF(K).
        temporal: (B, D, h, w) temporal map TF1(V), averaged over time.
        instances: B tensors (K_i, F), TF2(TF1(V)) of the RoIs of each frame; empty when nobody
            asks for them. On source frames
            these are the RoIs that are trained on (proposals, the labelled boxes and jittered
            copies, balanced), on target frames the best-scored proposals.
    """

    spatial: Tensor
    temporal: Tensor
    instances: list[Tensor]


class SpatialImageDiscriminator(nn.Module):
    """D_S: key-frame map (B, C, h, w) -> (B,), one logit per frame.

    Three 3x3 convolutions of stride 2, global mean, one linear unit. `norm='bn'` is SWDA's; with
    one image of each domain in a step its statistics are of one image, hence group normalisation by
    default.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (512, 128, 128),
        norm: Literal["gn", "bn"] = "gn",
        dropout: float = 0.5,
    ):
        super().__init__()
        layers = []
        for c_in, c_out in zip((channels, *widths), widths):
            layers += [
                nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False),
                nn.GroupNorm(8, c_out) if norm == "gn" else nn.BatchNorm2d(c_out),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x).mean((2, 3))).squeeze(1)


class TemporalImageDiscriminator(nn.Module):
    """D_Timg: temporal map (B, D, h, w) -> (B, 1, h, w), Q of Eq. (4) as logits. 1x1 convolutions,
    so no stride.
    """

    def __init__(self, channels: int, hidden: int = 512, init_std: float = 0.001):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1)
        )
        for conv in (self.layers[0], self.layers[2]):
            nn.init.normal_(conv.weight, std=init_std)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TemporalInstanceDiscriminator(nn.Module):
    """D_Tinst: RoI vectors (R, F) -> (R,), R of Eq. (5) as logits. Three linear layers."""

    def __init__(
        self, features: int, hidden: int = 1024, dropout: float = 0.5, init_std=(0.01, 0.01, 0.05)
    ):
        super().__init__()
        sizes = (features, hidden, hidden, 1)
        linear = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
        for layer, std in zip(linear, init_std):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(
            linear[0],
            nn.ReLU(),
            nn.Dropout(dropout),
            linear[1],
            nn.ReLU(),
            nn.Dropout(dropout),
            linear[2],
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).squeeze(1)


class Discriminators(nn.Module):
    """The discriminators of a subset of {'t_img', 't_ins', 's_img'}; they see features through
    gradient reversal.

    Args:
        adapt: names of the modules in use, at least one.
        spatial_channels, temporal_channels, instance_features: C, D, F of `Aspects`.
        hidden: width of each, {'s_img': (..., ..., ...), 't_img': int, 't_ins': int}; the
            papers' when None.
        gamma: focusing of D_S. reduction: 'mean' or the printed 'sum' in Eqs. (4)-(5).
    """

    def __init__(
        self,
        adapt: Iterable[str],
        spatial_channels: int,
        temporal_channels: int,
        instance_features: int,
        *,
        hidden: dict | None = None,
        ds_norm: Literal["gn", "bn"] = "gn",
        dropout: float = 0.5,
        init_std: float | None = None,
        gamma: float = 5.0,
        reduction: Reduction = "mean",
    ):
        super().__init__()
        self.adapt = check_adapt(adapt)
        hidden = {"s_img": (512, 128, 128), "t_img": 512, "t_ins": 1024, **(hidden or {})}
        self.gamma, self.reduction = gamma, reduction
        if "t_img" in self.adapt:
            std = {} if init_std is None else {"init_std": init_std}
            self.t_img = TemporalImageDiscriminator(temporal_channels, hidden["t_img"], **std)
        if "t_ins" in self.adapt:
            std = {} if init_std is None else {"init_std": (init_std,) * 3}
            self.t_ins = TemporalInstanceDiscriminator(
                instance_features, hidden["t_ins"], dropout, **std
            )
        if "s_img" in self.adapt:
            self.s_img = SpatialImageDiscriminator(
                spatial_channels, hidden["s_img"], ds_norm, dropout
            )

    def logits(self, aspects: Aspects, beta: float = 1.0) -> dict[str, Tensor | list[Tensor]]:
        """Per module its logits: s_img (B,), t_img (B, 1, h, w), t_ins list of (K_i,)."""
        out = {}
        if "t_img" in self.adapt:
            out["t_img"] = self.t_img(gradient_reversal(aspects.temporal, beta))
        if "t_ins" in self.adapt:
            counts = [len(x) for x in aspects.instances]
            flat = self.t_ins(gradient_reversal(torch.cat(aspects.instances), beta))
            out["t_ins"] = list(flat.split(counts))
        if "s_img" in self.adapt:
            out["s_img"] = self.s_img(gradient_reversal(aspects.spatial, beta))
        return out

    def forward(self, source: Aspects, target: Aspects, beta: float = 1.0) -> dict[str, Tensor]:
        """The terms of Eq. (6) that `adapt` names, each a scalar."""
        s, t = self.logits(source, beta), self.logits(target, beta)
        terms = {}
        if "t_img" in s:
            terms["t_img"] = temporal_image_loss(s["t_img"], t["t_img"], self.reduction)
        if "t_ins" in s:
            terms["t_ins"] = temporal_instance_loss(s["t_ins"], t["t_ins"], self.reduction)
        if "s_img" in s:
            terms["s_img"] = spatial_image_loss(s["s_img"], t["s_img"], self.gamma)
        return terms


def check_adapt(adapt: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of `MODULES`, each once; NbkitError for unknown ones."""
    asked = {adapt} if isinstance(adapt, str) else set(adapt)
    if asked - set(MODULES):
        raise NbkitError(f"adapt={sorted(asked)}: the modules are {', '.join(MODULES)}")
    return tuple(name for name in MODULES if name in asked)
