"""How sure a table's numbers are: spread over seeds, paired differences, the size of one video."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean difference with the ends of its interval, and the number of pairs it rests on."""

    mean: float
    low: float
    high: float
    n: int

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


def paired_runs(a: np.ndarray, b: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of a - b over paired runs (same seed, split and direction), percentile bootstrap over the pairs.

    Args:
        a, b: accuracies (n,) in the same order.  With n < 2 the interval is infinite: one run says nothing of spread.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if len(d) < 2:
        return Interval(float(d.mean()), -np.inf, np.inf, len(d))
    rng = np.random.default_rng(seed)
    means = d[rng.integers(0, len(d), (draws, len(d)))].mean(axis=1)  # (draws,)
    tail = 50.0 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(d.mean()), float(low), float(high), len(d))


def paired_bootstrap(right_a: list[np.ndarray], right_b: list[np.ndarray], level: float = 0.95, draws: int = 2_000,
                     seed: int = 0) -> Interval:
    """Difference of accuracy in points, resampling runs and, within a run, test videos.

    Args:
        right_a, right_b: for each paired run, booleans (videos,): was the video classified right.
    """
    rng = np.random.default_rng(seed)
    gaps = [np.asarray(a, dtype=float) - np.asarray(b, dtype=float) for a, b in zip(right_a, right_b)]
    means = np.empty(draws)
    for i in range(draws):
        chosen = rng.integers(0, len(gaps), len(gaps))
        means[i] = np.mean([gaps[j][rng.integers(0, len(gaps[j]), len(gaps[j]))].mean() for j in chosen])
    tail = 50.0 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(100 * float(np.mean([g.mean() for g in gaps])), 100 * float(low), 100 * float(high), len(gaps))
