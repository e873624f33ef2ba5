"""How far apart are two domains in a detector's eyes? Fresh discriminators on frozen features tell.

A discriminator that was trained against the detector says little afterwards: it lost on purpose. A
fresh one, trained on features that no longer move and tested on other frames, measures what is left
to tell the domains apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nbkit.data.keyframes import KeyframeDataset
from nbkit.losses.adversarial import MODULES, adversarial_loss
from nbkit.models.discriminators import Aspects, Discriminators
from nbkit.models.localizer import Localizer
from nbkit.models.localizer_sizes import build_discriminators
from nbkit.models.norm import use_domain


@dataclass
class Probe:
    """Trained discriminators, and how often they name the domain of unseen frames right, in
    percent, by module.

    t_img counts places of the map, t_ins proposals, s_img frames. 50 is chance.
    """

    discriminators: Discriminators
    accuracy: dict[str, float]


def spread_keys(data: KeyframeDataset, count: int, seed: int = 0) -> np.ndarray:
    """`count` key frames, from as many videos as possible."""
    order = np.random.default_rng(seed).permutation(len(data))
    videos = np.array([data.keys[i][0] for i in order])
    turn = np.zeros(len(order), dtype=np.int64)  # the how-many-th frame of its video
    for v in np.unique(videos):
        turn[videos == v] = np.arange((videos == v).sum())
    return order[np.argsort(turn, kind="stable")][:count]


@torch.no_grad()
def aspects_of(
    detector: Localizer, data: KeyframeDataset, keys: np.ndarray, batch: int = 16
) -> Aspects:
    """What the discriminators see of some key frames; labels are not read."""
    detector.eval()
    data.set_epoch(0)  # or the numbers would depend on whether this process has trained before
    parts = []
    for at in range(0, len(keys), batch):
        items = data.batch(keys[at : at + batch])
        parts.append(detector.target_step({k: items[k] for k in ("keyframe", "clip")}))
    return _together(parts)


def probe(
    detector: Localizer,
    source: KeyframeDataset,
    target: KeyframeDataset,
    *,
    size: str = "small",
    statistics: str = "source",
    frames: int = 96,
    steps: int = 120,
    lr: float = 2e-3,
    seed: int = 0,
) -> Probe:
    """Train fresh discriminators of all three modules on frozen features of `frames` key frames a
    domain; test on others.

    The first half of the frames of each domain is for training, the second for testing; no video is
    in both halves when there are at least `frames` videos. gamma is 0: every frame counts.
    statistics: whose read the target.
    """
    seen = []
    for data, domain in ((source, "source"), (target, statistics)):
        with use_domain(detector, domain):
            seen.append(aspects_of(detector, data, spread_keys(data, frames, seed)))
    half = frames // 2
    fit, test = [[_take(a, s) for a in seen] for s in (slice(0, half), slice(half, frames))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_discriminators(size, MODULES, detector, gamma=0.0, dropout=0.0, seed=seed)
        optimizer = torch.optim.AdamW(fresh.parameters(), lr=lr, weight_decay=1e-2)
        for step in range(steps):
            some = np.random.default_rng([seed, step]).permutation(half)[:16]
            loss = adversarial_loss(fresh(*(_take(a, some) for a in fit)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        logits = [fresh.eval().logits(a) for a in test]
    return Probe(fresh, {m: _accuracy(*(side[m] for side in logits)) for m in MODULES})


def _accuracy(source: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> float:
    """Mean of the two domains' shares of right answers, percent."""
    flat = [torch.cat([x.flatten() for x in side]) for side in (source, target)]
    return 50 * float((flat[0] < 0).float().mean() + (flat[1] >= 0).float().mean())


def _take(aspects: Aspects, which: slice | np.ndarray) -> Aspects:
    rows = range(len(aspects.spatial))[which] if isinstance(which, slice) else which
    index = torch.as_tensor(list(rows))
    return Aspects(
        aspects.spatial[index],
        aspects.temporal[index],
        [aspects.instances[i] for i in index.tolist()],
    )


def _together(parts: list[Aspects]) -> Aspects:
    return Aspects(
        torch.cat([p.spatial for p in parts]),
        torch.cat([p.temporal for p in parts]),
        [x for p in parts for x in p.instances],
    )
