"""Grouped train/test splits: no recording group is on both sides, and classes stay balanced."""

from __future__ import annotations

import numpy as np

# a class without a test (or training) clip is worse than any imbalance
_EMPTY_PENALTY = 1e3
# how far a seed may prefer one group over a slightly better balanced one
_TASTE = 0.1


def grouped_test_mask(
    groups: np.ndarray, strata: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Choose the groups that form the test part.

    The cost of a choice is the sum over strata of (test clips - fraction * clips)^2 / clips, plus a
    large penalty for a stratum with an empty side, plus a small random preference of the seed for
    every group (else data with few groups would have one best split whatever the seed). A random
    start is improved by moving and swapping groups until nothing helps, so that different seeds
    give different, comparably balanced splits.

    Args:
        groups: (N,) group name of every clip.
        strata: (N,) stratum of every clip (domain and class).
        fraction: wanted share of test clips, in (0, 1).
        seed: non-negative integer.

    Returns:
        (N,) bool, True for test clips.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)  # (G,), (N,)
    _, stratum_of = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    table = np.zeros((len(names), stratum_of.max() + 1))  # (G, S) clips
    np.add.at(table, (group_of, stratum_of), 1)
    rng = np.random.default_rng([seed, len(names)])
    test = rng.random(len(names)) < fraction
    taste = _TASTE * rng.uniform(-1, 1, len(names)) * (table**2 / table.sum(0)).sum(1)  # (G,)
    _improve(test, table, taste, fraction, rng)
    return test[group_of]


def _cost(counts: np.ndarray, total: np.ndarray, fraction: float) -> np.ndarray:
    """Cost of test counts (..., S) given all clips (S,)."""
    off = (counts - fraction * total) ** 2 / total
    empty = (counts == 0) | (counts == total)
    return (off + _EMPTY_PENALTY * empty).sum(-1)


def _improve(
    test: np.ndarray,
    table: np.ndarray,
    taste: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
) -> None:
    """Move single groups and swap pairs in place until a full pass brings nothing."""
    total = table.sum(0)  # (S,)
    counts, liked = table[test].sum(0), taste[test].sum()
    best = _cost(counts, total, fraction) + liked
    improved = True
    while improved:
        improved = False
        for g in rng.permutation(len(table)):
            sign = -1 if test[g] else 1
            partners = np.flatnonzero(test != test[g])
            # (1+P, S): the group alone, or in exchange for a partner
            steps = np.vstack([np.zeros(len(total)), -sign * table[partners]])
            options = counts + sign * table[g] + steps
            exchanged = np.concatenate([[0.0], taste[partners]])
            likes = liked + sign * taste[g] - sign * exchanged  # (1+P,)
            costs = _cost(options, total, fraction) + likes
            k = int(costs.argmin())
            if costs[k] < best - 1e-9:
                best, counts, liked, improved = costs[k], options[k], likes[k], True
                changed = [g] if k == 0 else [g, partners[k - 1]]
                test[changed] = ~test[changed]
