"""How sure a table's numbers are: spread over seeds, paired differences, the size of one video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean difference with the ends of its interval, the pairs of runs it rests on, and in how
    many splits (0: one).
    """

    mean: float
    low: float
    high: float
    n: int
    splits: int = 0

    @property
    def clear(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0


def mean_sd(values: np.ndarray) -> tuple[float, float, int]:
    """Mean, sample standard deviation (nan for one value) and n."""
    x = np.asarray(values, dtype=float)
    return float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else float("nan"), len(x)


def one_video(videos: int) -> float:
    """Percentage points that one test video is worth."""
    return 100.0 / videos


def paired_runs(
    a: np.ndarray, b: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of a - b over paired runs (same seed, split and direction), percentile bootstrap over
    the pairs.

    Args:
        a, b: accuracies (n,) in the same order.  With n < 2 the interval is infinite: one run
            says nothing of spread.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if len(d) < 2:
        return Interval(float(d.mean()), -np.inf, np.inf, len(d))
    rng = np.random.default_rng(seed)
    means = d[rng.integers(0, len(d), (draws, len(d)))].mean(axis=1)  # (draws,)
    tail = 50.0 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(d.mean()), float(low), float(high), len(d))


def paired_bootstrap(
    right_a: Sequence[np.ndarray],
    right_b: Sequence[np.ndarray],
    units: Sequence[Sequence] | None = None,
    columns: Sequence | None = None,
    splits: Sequence | None = None,
    level: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Difference of accuracy in points, percentile bootstrap over the runs and what they were
    tested on.

    A draw takes the runs with replacement, and the test units with replacement, once for all runs:
    a video is as hard for every run that sees it, also where grouped splits share videos.  Runs of
    one split have their training videos in common: where there are several splits, a draw takes
    splits, the same for all directions, and runs within them. Directions are fixed, and all weigh
    the same.

    Args:
        right_a, right_b: for each paired run, booleans (videos,): was the video classified right.
        units: for each run, what its videos are counted as: a name of their own, or that of
            their recording where clips
            of one recording are not independent.  None: every run has the same videos, each on its
            own.
        columns: for each run, its direction; None: all the same.   splits: for each run, its
            split, likewise.
    Raises:
        ValueError: no runs, or runs without `units` differ in the number of videos.
    """
    gaps = [
        np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
        for a, b in zip(right_a, right_b, strict=True)
    ]
    if not gaps or (units is None and len({len(g) for g in gaps}) > 1):
        raise ValueError("no paired runs, or runs of one test set differ in the number of videos")
    units = [range(len(g)) for g in gaps] if units is None else units
    place = {u: i for i, u in enumerate(dict.fromkeys(u for names in units for u in names))}
    times = _draws(len(place), draws, seed + 1)  # (draws, units)
    names = [0] * len(gaps) if columns is None else list(columns)
    splits = [0] * len(gaps) if splits is None else list(splits)
    several = {s: i for i, s in enumerate(dict.fromkeys(splits))} if len(set(splits)) > 1 else {}
    total, mean, kinds = np.zeros(draws), 0.0, list(dict.fromkeys(names))
    for i, name in enumerate(kinds):
        own = [r for r, column in enumerate(names) if column == name]
        drawn = np.stack(
            [_drawn_mean(gaps[r], times[:, [place[u] for u in units[r]]]) for r in own], axis=1
        )  # (draws, R)
        weight = _runs_drawn([splits[r] for r in own], several, draws, seed + 2 * i)  # (draws, R)
        total += (weight * drawn).sum(axis=1) / np.maximum(weight.sum(axis=1), 1) / len(kinds)
        mean += sum(float(gaps[r].mean()) for r in own) / (len(own) * len(kinds))
    tail = 50.0 * (1 - level)
    low, high = np.percentile(100 * total, [tail, 100 - tail])
    return Interval(100 * mean, float(low), float(high), len(gaps), len(several))


def _runs_drawn(splits: list, several: dict, draws: int, seed: int) -> np.ndarray:
    """How often each run of a direction counts in each draw, (draws, R): drawn on its own, or
    within its drawn split.
    """
    if not several:
        return _draws(len(splits), draws, seed)
    times, weight = (
        _draws(len(several), draws, 104_729),
        np.empty((draws, len(splits))),
    )  # one seed: all directions alike
    for split, i in several.items():
        own = [r for r, s in enumerate(splits) if s == split]
        if own:
            weight[:, own] = times[:, [i]] * _draws(len(own), draws, seed + 1000 * (i + 1))
    return weight


def _drawn_mean(gap: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean of a run's gaps (N,) with every video counted `times` (draws, N): (draws,)."""
    return (times @ gap) / np.maximum(times.sum(axis=1), 1)


@lru_cache(maxsize=32)
def _draws(n: int, draws: int, seed: int) -> np.ndarray:
    """How often each of n things is drawn when n are drawn with replacement: (draws, n).  Kept,
    being slow to make.
    """
    return (
        np.random.default_rng((seed, n)).multinomial(n, np.full(n, 1 / n), draws).astype(np.float32)
    )


def reachable(percent: float, n: int, decimals: int = 1) -> bool:
    """Whether k of n videos right, for some whole k, is printed as `percent`, rounded or cut off
    after `decimals`.

    False means: no single evaluation on n test videos gives this number.  An average over runs,
    another test list or a slip does.
    """
    unit = 100 * 10**decimals  # k / n in printed units is unit * k / n
    p = round(percent * 10**decimals)
    low, high = (
        Fraction(2 * p - 1, 2) * n / unit,
        Fraction(p + 1) * n / unit,
    )  # rounded: from p - 1/2; cut off: below p + 1
    return any(0 <= k <= n and low <= k < high for k in range(math.ceil(low), math.floor(high) + 1))


def nearest_reachable(percent: float, n: int) -> tuple[float, float]:
    """The accuracies in percent of the numbers of right videos just below and just above `percent`."""
    k = math.floor(percent * n / 100)
    return 100 * k / n, 100 * min(k + 1, n) / n
