"""The localizer in three sizes: `small` (from scratch, minutes on a CPU), `laptop` (MobileNetV2),
`paper` (ResNet-50, I3D).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch

from nbkit.errors import NbkitError
from nbkit.models.discriminators import Discriminators
from nbkit.models.localizer import Localizer, LocalizerSettings
from nbkit.models.localizer_parts import (
    I3DTemporal,
    MobileNetKeyframe,
    MobileNetTemporal,
    ResNetKeyframe,
    SmallKeyframe,
    SmallTemporal,
)
from nbkit.models.norm import Mode

Size = Literal["small", "laptop", "paper"]
SIZES: tuple[Size, ...] = ("small", "laptop", "paper")


def default_settings(size: Size, height: int = 240) -> LocalizerSettings:
    """Anchors and counts of a size, for frames `height` pixels high."""
    if size == "small":
        sides = tuple(round(f * height) for f in (0.25, 0.35, 0.475))  # 16, 22, 30 at 64 pixels
        return LocalizerSettings(
            anchor_sizes=sides,
            anchor_ratios=(1.0, 2.0, 3.0),
            rpn_batch=64,
            rpn_iou=(0.3, 0.6),
            pre_nms=(200, 200),
            post_nms=(32, 24),
            target_proposals=8,
            roi_batch=8,
            roi_positive=0.5,
            jitter_copies=4,
            jitter=0.1,
            classifier_std=None,
        )
    if size == "laptop":
        sides = tuple(round(f * height) for f in (0.25, 0.45, 0.7, 0.95))
        return LocalizerSettings(
            anchor_sizes=sides,
            anchor_ratios=(1.0, 2.0, 3.0),
            rpn_batch=64,
            rpn_iou=(0.3, 0.6),
            pre_nms=(1000, 1000),
            post_nms=(100, 50),
            target_proposals=24,
            roi_batch=24,
            roi_positive=0.5,
            jitter_copies=4,
            classifier_std=None,
        )
    if size == "paper":
        return LocalizerSettings()
    raise NbkitError(f"size={size!r}: choose one of {', '.join(SIZES)}")


def build_localizer(
    size: Size,
    n_classes: int,
    *,
    height: int = 240,
    norm: Mode = "group",
    weights: dict[str, str | None] | None = None,
    settings: LocalizerSettings | None = None,
    tf1_end: str = "Mixed_4e",
    tf2_pool5a: bool = False,
    seed: int = 0,
) -> Localizer:
    """A fresh detector.

    Args:
        height: of the frames in pixels; sets the anchors of the two small sizes.
        norm: normalisation of the `small` size, see `norm.DomainNorm`; the others have frozen
            batch normalisation.
        weights: files for the branches, `{'keyframe': path, 'temporal': path}`; left out =
            random weights.
        settings: in place of `default_settings(size, height)`.
        seed: of the initial weights. They do not depend on which adaptation modules stand
            beside the detector.
    """
    settings = settings or default_settings(size, height)
    weights = weights or {}
    files = weights.get("keyframe"), weights.get("temporal")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if size == "small":
            branches = SmallKeyframe(norm), SmallTemporal(norm)
        elif size == "laptop":
            branches = MobileNetKeyframe(files[0]), MobileNetTemporal(files[1])
        else:
            branches = ResNetKeyframe(files[0]), I3DTemporal(files[1], tf1_end, tf2_pool5a)
        return Localizer(*branches, n_classes, settings)


def build_discriminators(
    size: Size,
    adapt: Iterable[str],
    detector: Localizer,
    *,
    gamma: float | None = None,
    reduction: str = "mean",
    ds_norm: str = "gn",
    dropout: float | None = None,
    seed: int = 0,
) -> Discriminators | None:
    """Discriminators that fit `detector`; None when `adapt` is empty.

    The two small sizes have narrow discriminators, no dropout and larger initial weights, because a
    few hundred steps do not move weights that start at N(0, 0.001).
    """
    adapt = tuple(adapt)
    if not adapt:
        return None
    channels = detector.keyframe.channels, detector.temporal.channels, detector.temporal.features
    narrow = {"s_img": (48, 48, 48), "t_img": 64, "t_ins": 128}
    small = size != "paper"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 7919)
        return Discriminators(
            adapt,
            *channels,
            hidden=narrow if small else None,
            dropout=(0.0 if small else 0.5) if dropout is None else dropout,
            init_std=0.05 if small else None,
            gamma=(3.0 if small else 5.0) if gamma is None else gamma,
            reduction=reduction,
            ds_norm=ds_norm,
        )
