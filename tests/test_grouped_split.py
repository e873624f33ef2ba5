"""Grouped splits: groups stay whole, classes stay balanced, and no film crosses between the
domains' parts.
"""

import numpy as np
import pytest
from fake_trees import jhmdb_clip, small_manifest, touch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import real_path

from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import grouped_test_mask, resolve


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 99),
)
def test_groups_stay_whole_and_classes_keep_both_sides(rows, seed):
    groups, strata = (np.array([str(r[k]) for r in rows]) for k in (0, 1))
    mask = grouped_test_mask(groups, strata, 1 / 3, seed)
    assert not set(groups[mask]) & set(groups[~mask])
    assert (mask == grouped_test_mask(groups, strata, 1 / 3, seed)).all()
    order = np.random.default_rng(seed).permutation(len(rows))
    assert (grouped_test_mask(groups[order], strata[order], 1 / 3, seed) == mask[order]).all()


def test_balance_and_small_groups():
    groups = np.repeat([f"g{i}" for i in range(30)], 4)
    strata = np.repeat(["a", "b", "c"], 40)
    for seed in range(5):
        mask = grouped_test_mask(groups, strata, 1 / 3, seed)
        assert all(10 <= mask[strata == s].sum() <= 16 for s in "abc")
    two = grouped_test_mask(np.array(["x"] * 9 + ["y"]), np.array(["a"] * 10), 1 / 3, 0)
    assert 0 < two.sum() < 10  # a class with two groups has one on each side


# --- grouped splits: no film on both sides, in either direction -----------------------------------


def _camera_tree(root):
    """Films that give clips to both domains and several classes, besides films of their own."""
    for own in ("walk", "wave"):
        for i in range(9):
            touch(root / "ReCompressed_Videos" / own / jhmdb_clip(f"Film{i}", own, "nm"))
            touch(root / "ReCompressed_Videos" / own / jhmdb_clip(f"FILM{i}_{i % 3}", own, "cm", 1))
            touch(
                root
                / "ReCompressed_Videos"
                / own
                / jhmdb_clip(f"Only_{own}{i}", own, "cm" if i % 2 else "nm")
            )
    return root


def _camera_manifest():
    return small_manifest("jhmdb_camera", ["walk", "wave"])


@pytest.mark.parametrize("seed", range(5))
def test_no_film_is_shared_between_any_training_part_and_a_test_part(tmp_path, seed):
    table = resolve(_camera_manifest(), _camera_tree(tmp_path), split_seed=seed)
    for target in ("static", "moving"):
        test = set(table[(table.domain == target) & (table.split == "test")].group)
        assert test and not test & set(table[table.split == "train"].group)
    share = table.assign(t=table.split == "test").groupby(["domain", "class_name"])["t"].mean()
    assert share.between(0.2, 0.5).all()


def test_grouped_splits_follow_the_seed(tmp_path):
    root = _camera_tree(tmp_path)
    tables = [resolve(_camera_manifest(), root, split_seed=s) for s in (0, 0, 1, 2)]
    assert tables[0].equals(tables[1])
    assert len({tuple(t.split) for t in tables}) == 3


@pytest.mark.parametrize("seed", range(4))
def test_real_films_never_cross(seed):
    table = resolve(load_manifest("jhmdb_camera"), real_path("jhmdb"), split_seed=seed)
    assert not set(table[table.split == "test"].group) & set(table[table.split == "train"].group)
    sizes = table[table.split == "test"].groupby("domain").size()
    assert sizes.between(68, 90).all()
    assert table.groupby(["domain", "class_name", "split"]).size().unstack().notna().all().all()
