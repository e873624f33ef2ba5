"""Gains over a reference row: in the row's own stream, and no surer than the splits make them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from nbkit.evaluate.statistics import paired_bootstrap
from nbkit.tables.gains import difference, in_words, interval_text, starred
from nbkit.tables.report import side_by_side, tidy
from nbkit.tables.right_wrong import VIDEO_COLUMNS, pack
from nbkit.tables.table import Table

NO_LINES = pd.DataFrame(columns=VIDEO_COLUMNS)


def table(splits=(0,)):
    rows = [
        {"name": "base", "printed": {"a": 40.0}},
        {"name": "flow only", "measure": "flow", "printed": {"a": 70.0}},
    ]
    return Table(
        name="toy",
        title="toy",
        set={},
        seeds=[0, 1],
        splits=list(splits),
        columns=[{"name": "a"}],
        rows=rows,
        against="base",
    )


def test_a_row_of_one_stream_gains_over_that_stream_of_its_reference():
    found = pd.DataFrame(
        [
            {"row": r, "column": "a", "seed": s, "split": 0, "fused": fused, "flow": flow}
            for r, fused, flow in (("base", 60.0, 30.0), ("flow only", 90.0, 50.0))
            for s in (0, 1)
        ]
    )
    numbers = tidy(table(), found, NO_LINES).set_index("row").loc["flow only"]
    assert numbers["ours"] == 50.0 and numbers["gain"] == 20.0  # 50 - 30, not 50 - 60
    assert np.isnan(numbers["paper_gain"])  # it prints no flow of the reference
    assert (
        side_by_side(table(), found, NO_LINES)["a"].loc["flow only", "our gain"]
        == "+20.0 [+20.0, +20.0] (2)"
    )


def runs(splits, seeds, videos=20):
    """Every run of 'flow only' has all videos right, every one of 'base' half of them."""
    rows = [(r, s, k) for r in ("base", "flow only") for s in range(splits) for k in range(seeds)]
    found = pd.DataFrame(
        [
            {
                "row": r,
                "column": "a",
                "seed": k,
                "split": s,
                "flow": 100.0 if r == "flow only" else 50.0,
            }
            for r, s, k in rows
        ]
    )
    lines = pd.DataFrame(
        [
            {
                "row": r,
                "column": "a",
                "seed": k,
                "split": s,
                "videos": videos,
                "order": str(s),
                "flow": pack(np.arange(videos) < (videos if r == "flow only" else videos // 2)),
                "units": " ".join(f"{s}-{v}" for v in range(videos)),
            }
            for r, s, k in rows
        ],
        columns=[*VIDEO_COLUMNS, "units"],
    )
    return found, lines


def test_splits_are_counted_for_a_star_and_named():
    three = difference(table(range(3)), *runs(3, 3), "flow only", "base", "a", "flow")
    assert three.clear and (three.n, three.splits) == (9, 3) and not starred(three)
    assert interval_text(three).startswith("+50.0 [") and interval_text(three).endswith(
        "(9 in 3 splits)"
    )
    assert starred(difference(table(range(5)), *runs(5, 2), "flow only", "base", "a", "flow"))
    one = difference(table(), *runs(1, 5), "flow only", "base", "a", "flow")
    assert starred(one) and one.splits == 0 and interval_text(one).endswith("(5) *")


def test_seeds_are_counted_per_direction_for_a_star():
    both = table()
    both.columns.append(both.columns[0].model_copy(update={"name": "b"}))
    found, lines = runs(1, 3)
    twice = [pd.concat([part, part.assign(column="b")]) for part in (found, lines)]
    gap = difference(both, *twice, "flow only", "base", None, "flow")
    assert gap.clear and (gap.n, gap.least) == (6, 3)
    assert not starred(gap) and interval_text(gap).endswith("(3 per direction)")
    assert in_words(gap) == "higher, from too few runs"
    found, lines = runs(1, 5)
    twice = [pd.concat([part, part.assign(column="b")]) for part in (found, lines)]
    gap = difference(both, *twice, "flow only", "base", None, "flow")
    assert starred(gap) and in_words(gap) == "clearly higher"
    assert in_words(difference(both, *twice, "base", "flow only", "a", "flow")) == "clearly lower"
    assert in_words(difference(both, *twice, "base", "base", "a", "flow")) == "not clear"
    assert in_words(None) == "not run"


def test_runs_of_several_splits_without_their_videos_have_no_interval():
    found, _ = runs(2, 2)
    gain = difference(table(range(2)), found, NO_LINES, "flow only", "base", "a", "flow")
    assert not gain.clear and interval_text(gain) == "+50.0 (4, no interval)"


def test_the_interval_covers_the_true_difference_where_splits_differ():
    """Six splits of three runs, and what a split's training videos do is common to its runs: the
    seeds cannot tell.
    """
    rng, hits, naive = np.random.default_rng(2), 0, 0
    scale = np.sqrt(1 + 0.5**2)  # of what decides a video: its own difficulty and the split
    true = 100 * (norm.cdf(0.7 / scale) - norm.cdf(0.2))
    for i in range(120):
        right_a, right_b, split = [], [], np.repeat(range(6), 3)
        for common in rng.normal(0, 0.5, 6):
            hard = rng.normal(0, 1, 100)
            right_a += [hard < 0.7 + common] * 3
            right_b += [hard < 0.2] * 3
        units = [[(s, v) for v in range(100)] for s in split]
        found = paired_bootstrap(right_a, right_b, units, splits=split, draws=300, seed=i)
        without = paired_bootstrap(right_a, right_b, units, draws=300, seed=i)
        hits += found.low <= true <= found.high
        naive += without.low <= true <= without.high
    assert 0.82 <= hits / 120 <= 0.99 and naive < hits - 10


def test_directions_share_the_drawn_splits():
    """One direction gains what the other loses, split by split: their mean is sure, whatever splits
    are drawn.
    """
    ones, zeros = np.ones(4), np.zeros(4)
    right_a, right_b = [ones, zeros, zeros, ones], [zeros, ones, ones, zeros]
    found = paired_bootstrap(
        right_a, right_b, columns=["one", "one", "other", "other"], splits=[0, 1, 0, 1]
    )
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    apart = paired_bootstrap(right_a, right_b, columns=["one", "one", "other", "other"])
    assert apart.low < -40 and apart.high > 40


def test_splits_with_more_runs_weigh_more_as_in_the_mean():
    found = paired_bootstrap(
        [np.ones(4)] * 3 + [np.zeros(4)], [np.zeros(4)] * 4, splits=[0, 0, 0, 1]
    )
    assert found.mean == 75.0 and (found.low, found.high) == (
        pytest.approx(0.0),
        pytest.approx(100.0),
    )
