"""How far apart are two domains in a detector's eyes?  Fresh discriminators tell.

Those that were trained against the detector say little afterwards: they lost on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nbkit.config.localization import Adaptation
from nbkit.data.keyframes import KeyframeDataset
from nbkit.losses.adversarial import MODULES, adversarial_loss
from nbkit.models.discriminators import Aspects, Discriminators
from nbkit.models.localizer import Localizer
from nbkit.models.localizer_sizes import build_discriminators
from nbkit.models.norm import use_domain
from nbkit.train.localization_eval import pixels


def probe_domains(
    detector: Localizer,
    source: KeyframeDataset,
    target: KeyframeDataset,
    statistics: str,
    frames: int = 96,
    steps: int = 120,
) -> tuple[Discriminators, dict[str, float]]:
    """Train fresh discriminators on frozen features of `frames` key frames per domain.

    The first half of each domain's frames is for training, the second for testing; no video is in
    both halves when there are at least `frames` videos.  gamma is 0: every frame counts.
    statistics: whose read the target.

    Returns the discriminators, and by module how often they name the domain right, in percent (50
    is chance): t_img counts places of the map, t_ins proposals, s_img frames.
    """
    with use_domain(detector, "source"):
        first = _seen(detector, source, _spread(source, frames))
    with use_domain(detector, statistics):
        second = _seen(detector, target, _spread(target, frames))
    half, seed = frames // 2, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_discriminators(MODULES, detector, Adaptation(gamma=0.0), seed)
        fresh.to(first.spatial.device).eval()  # no dropout
        optimizer = torch.optim.AdamW(fresh.parameters(), lr=2e-3, weight_decay=1e-2)
        for step in range(steps):
            some = np.random.default_rng([seed, step]).permutation(half)[:16]
            loss = adversarial_loss(fresh(_take(first, some), _take(second, some)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    rest = range(half, frames)
    with torch.no_grad():
        sides = fresh.logits(_take(first, rest)), fresh.logits(_take(second, rest))
    return fresh, {name: _accuracy(sides[0][name], sides[1][name]) for name in MODULES}


def _spread(data: KeyframeDataset, count: int) -> np.ndarray:
    """`count` key frames, from as many videos as possible."""
    order = np.random.default_rng(0).permutation(len(data))
    videos = np.array([data.keys[i][0] for i in order])
    turn = np.zeros(len(order), dtype=np.int64)  # the how-many-th frame of its video
    for video in np.unique(videos):
        own = videos == video
        turn[own] = np.arange(own.sum())
    return order[np.argsort(turn, kind="stable")][:count]


@torch.no_grad()
def _seen(detector: Localizer, data: KeyframeDataset, keys: np.ndarray) -> Aspects:
    """What the discriminators see of some key frames; labels are not read."""
    detector.eval()
    data.set_epoch(0)  # or the numbers would depend on whether this process has trained before
    parts = []
    for first in range(0, len(keys), 16):
        batch = data.batch(keys[first : first + 16])
        parts.append(detector.target_step(pixels(batch, detector)))
    spatial, temporal = [p.spatial for p in parts], [p.temporal for p in parts]
    instances = [vectors for p in parts for vectors in p.instances]
    return Aspects(torch.cat(spatial), torch.cat(temporal), instances)


def _take(seen: Aspects, which: Sequence[int]) -> Aspects:
    which = [int(i) for i in which if i < len(seen.spatial)]
    instances = [seen.instances[i] for i in which]
    return Aspects(seen.spatial[which], seen.temporal[which], instances)


def _accuracy(source: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> float:
    """Mean of the two domains' shares of right answers, percent."""
    is_source = torch.cat([x.flatten() for x in source]) < 0
    is_target = torch.cat([x.flatten() for x in target]) >= 0
    return 50 * float(is_source.float().mean() + is_target.float().mean())
