"""The localizer in four sizes.

`small` from scratch; `laptop` MobileNetV2 in both branches; `laptop_i3d` the same key-frame branch
and a frozen I3D with a trained end; `paper` as printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nbkit.config.localization import Adaptation, Detector
from nbkit.models.discriminators import Discriminators, DiscriminatorShape
from nbkit.models.i3d import FrozenI3D
from nbkit.models.localizer import Localizer, LocalizerSettings
from nbkit.models.localizer_parts import (
    I3DAboveMaps,
    I3DTemporal,
    MobileNetKeyframe,
    MobileNetTemporal,
    ResNetKeyframe,
    SmallKeyframe,
    SmallTemporal,
)

# Of the two small sizes: narrow, no dropout, larger initial weights, because a few hundred steps do
# not move weights that start at N(0, 0.001).
NARROW = DiscriminatorShape((48, 48, 48), 64, 128, 0.0, 0.05, (0.05, 0.05, 0.05))


def default_settings(size: str, height: int) -> LocalizerSettings:
    """Anchors and counts of a size, for frames `height` pixels high."""
    if size == "paper":
        return LocalizerSettings()
    few = LocalizerSettings(
        anchor_ratios=(1.0, 2.0, 3.0),
        rpn_batch=64,
        rpn_iou=(0.3, 0.6),
        roi_positive=0.5,
        jitter_copies=4,
        classifier_std=None,
        discriminators=NARROW,
    )
    if size == "small":
        return replace(
            few,
            anchor_sizes=_sides(height, 0.25, 0.35, 0.475),  # 16, 22, 30 at 64 pixels
            pre_nms=(200, 200),
            post_nms=(32, 24),
            target_proposals=8,
            roi_batch=8,
            jitter=0.1,
        )
    tested = 20 if size == "laptop_i3d" else 50  # the end of I3D takes 4 ms of a core for each
    return replace(
        few,
        anchor_sizes=_sides(height, 0.25, 0.45, 0.7, 0.95),
        pre_nms=(1000, 1000),
        post_nms=(100, tested),
        target_proposals=24,
        roi_batch=24,
    )


def _sides(height: int, *fractions: float) -> tuple[int, ...]:
    return tuple(round(fraction * height) for fraction in fractions)


def build_localizer(
    detector: Detector, n_classes: int, *, height: int = 240, seed: int = 0, **settings: Any
) -> Localizer:
    """A fresh detector.

    Args:
        detector: section of the configuration: size, normalisation, cut, weights.
        height: of the frames in pixels; sets the anchors of the two small sizes.
        seed: of the initial weights, which do not depend on the modules beside the detector.
        settings: fields of `LocalizerSettings` that differ from the size's.
    """
    size_settings = default_settings(detector.size, height)
    chosen = replace(size_settings, temporal_pool=detector.temporal_pool, **settings)
    files = detector.keyframe_weights, detector.temporal_weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if detector.size == "small":
            keyframe, temporal = SmallKeyframe(detector.norm), SmallTemporal(detector.norm)
        elif detector.size == "laptop":
            keyframe, temporal = MobileNetKeyframe(files[0]), MobileNetTemporal(files[1])
        elif detector.size == "laptop_i3d":
            keyframe, temporal = MobileNetKeyframe(files[0]), I3DAboveMaps(files[1])
        else:
            keyframe = ResNetKeyframe(files[0])
            temporal = I3DTemporal(files[1], detector.tf1_end, detector.tf2_pool5a)
        return Localizer(keyframe, temporal, n_classes, chosen)


def frozen_network(detector: Detector, device: str = "cpu") -> FrozenI3D | None:
    """The network whose stored maps a size takes for clips; None where it takes pixels."""
    if detector.size != "laptop_i3d":
        return None
    return FrozenI3D(3, detector.temporal_weights, device)


def build_discriminators(
    modules: Sequence[str], detector: Localizer, adaptation: Adaptation, seed: int = 0
) -> Discriminators:
    """Discriminators of some of 't_img', 't_ins', 's_img' that fit `detector`."""
    keyframe, temporal = detector.keyframe, detector.temporal
    channels = keyframe.channels, temporal.channels, temporal.features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 7919)
        return Discriminators(modules, channels, detector.settings.discriminators, adaptation)
