"""How sure a table's numbers are: paired differences, the size of one video, the GRIM test."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

TAIL = 50.0 * (1 - 0.95)  # percent beyond either end of an interval


class Interval(NamedTuple):
    """A mean difference with the ends of its 95 % interval.

    `n` pairs of runs, in so many `splits` (0: one).  `least`: pairs of the direction that has the
    fewest; 0 where there is one direction.
    """

    mean: float
    low: float
    high: float
    n: int
    splits: int = 0
    least: int = 0

    @property
    def clear(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def one_video(videos: int) -> float:
    """Percentage points that one test video is worth."""
    return 100.0 / videos


def paired_runs(a: np.ndarray, b: np.ndarray, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of a - b over paired runs (same seed, split and direction), bootstrap over the pairs.

    Args:
        a, b: accuracies (n,) in the same order.  With n < 2 the interval is infinite: one run says
            nothing of spread.
    """
    gaps = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if len(gaps) < 2:
        return Interval(float(gaps.mean()), -np.inf, np.inf, len(gaps))
    drawn = np.random.default_rng(seed).integers(0, len(gaps), (draws, len(gaps)))
    low, high = np.percentile(gaps[drawn].mean(axis=1), [TAIL, 100 - TAIL])
    return Interval(float(gaps.mean()), float(low), float(high), len(gaps))


def paired_bootstrap(
    right_a: Sequence[np.ndarray],
    right_b: Sequence[np.ndarray],
    units: Sequence[Sequence[Hashable]] | None = None,
    columns: Sequence[Hashable] | None = None,
    splits: Sequence[Hashable] | None = None,
    draws: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Difference of accuracy in points, bootstrap over the runs and what they were tested on.

    A draw takes the runs with replacement, and the test units with replacement, once for all runs:
    a video is as hard for every run that sees it, also where grouped splits share videos.  Runs of
    one split have their training videos in common: where there are several splits, a draw takes
    splits, the same for all directions, and runs within them. Directions are fixed, and all weigh
    the same.

    Args:
        right_a, right_b: for each paired run, booleans (videos,): was the video classified right.
        units: for each run, what its videos are counted as: a name of their own, or that of their
            recording where clips of one recording are not independent.  None: every run has the
            same videos, each on its own.
        columns: for each run, its direction; None: all the same.
        splits: for each run, its split; None: all the same.

    Raises:
        ValueError: no runs, or runs without `units` differ in the number of videos.
    """
    gaps = []
    for a, b in zip(right_a, right_b, strict=True):
        gaps.append(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))
    if not gaps or (units is None and len({len(gap) for gap in gaps}) > 1):
        raise ValueError("no paired runs, or runs of one test set differ in the number of videos")
    if units is None:
        units = [range(len(gap)) for gap in gaps]
    if columns is None:
        columns = [0] * len(gaps)
    if splits is None:
        splits = [0] * len(gaps)
    place = _numbered(name for names in units for name in names)
    times = _draws(len(place), draws, seed + 1)  # (draws, units)
    several = _numbered(splits)
    if len(several) == 1:
        several = {}
    directions = list(_numbered(columns))
    total, mean = np.zeros(draws), 0.0
    for i, direction in enumerate(directions):
        own = [run for run, column in enumerate(columns) if column == direction]
        means = []
        for run in own:
            counted = times[:, [place[name] for name in units[run]]]  # (draws, videos)
            means.append((counted @ gaps[run]) / np.maximum(counted.sum(axis=1), 1))
        weight = _runs_drawn([splits[run] for run in own], several, draws, seed + 2 * i)
        weighted = (weight * np.stack(means, axis=1)).sum(axis=1)  # (draws,) over (draws, R)
        total += weighted / np.maximum(weight.sum(axis=1), 1) / len(directions)
        mean += sum(float(gaps[run].mean()) for run in own) / (len(own) * len(directions))
    low, high = np.percentile(100 * total, [TAIL, 100 - TAIL])
    return Interval(100 * mean, float(low), float(high), len(gaps), len(several))


def _numbered(names: Iterable[Hashable]) -> dict[Hashable, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _runs_drawn(splits: list, several: dict, draws: int, seed: int) -> np.ndarray:
    """How often each run of a direction counts in each draw: (draws, R).

    A run is drawn on its own, or, where there are `several` splits, within its drawn split.
    """
    if not several:
        return _draws(len(splits), draws, seed)
    times = _draws(len(several), draws, 104_729)  # one seed: all directions alike
    weight = np.empty((draws, len(splits)))
    for split, i in several.items():
        own = [run for run, name in enumerate(splits) if name == split]
        if own:
            weight[:, own] = times[:, [i]] * _draws(len(own), draws, seed + 1000 * (i + 1))
    return weight


@lru_cache(maxsize=32)
def _draws(n: int, draws: int, seed: int) -> np.ndarray:
    """How often each of n things is drawn when n are drawn with replacement: (draws, n).

    Kept, being slow to make.
    """
    rng = np.random.default_rng((seed, n))
    return rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float32)


def grim_test(percent: float, n: int, decimals: int = 1) -> bool:
    """Whether k of n videos right, for some whole k, is printed as `percent`.

    Printed means rounded or cut off after `decimals`.  False: no single evaluation on n test videos
    gives this number.  An average over runs, another test list or a slip does.

    Source: Brown and Heathers, The GRIM Test, Social Psychological and Personality Science 8, 2017.
    """
    unit = 100 * 10**decimals  # k / n in printed units is unit * k / n
    printed = round(percent * 10**decimals)
    # Rounded numbers reach from printed - 1/2 on, cut off ones up to printed + 1.
    low = Fraction(2 * printed - 1, 2) * n / unit
    high = Fraction(printed + 1) * n / unit
    candidates = range(max(math.ceil(low), 0), min(math.floor(high), n) + 1)
    return any(k < high for k in candidates)


def grim_neighbours(percent: float, n: int) -> tuple[float, float]:
    """Accuracies in percent of the numbers of right videos just below and just above `percent`."""
    k = math.floor(percent * n / 100)
    return 100 * k / n, 100 * min(k + 1, n) / n
