"""What a second machine changes: repeated runs beside the committed ones, against closed forms."""

import numpy as np
import pandas as pd
import pytest

from nbkit.tables.gains import repeats
from nbkit.tables.results import result_columns
from nbkit.tables.table import Table

ROWS = [
    {"name": "low"},
    {"name": "high", "set": {"ALPHA": 0.1}},
    {"name": "again", "same_as": "high"},
    {"name": "flow alone", "measure": "flow"},
]
TABLE = Table(
    name="toy",
    title="toy",
    set={"PROFILE": "smoke"},
    seeds=[0, 1],
    columns=[{"name": "a"}, {"name": "b"}],
    rows=ROWS,
)


def lines(values, finished):
    """values: (row, column, seed, fused); the key of a configuration is its row's name."""
    return pd.DataFrame(
        [
            {
                "row": r,
                "column": c,
                "seed": s,
                "split": 0,
                "fused": f,
                "flow": 1.0,
                "cell": r,
                "finished": finished,
            }
            for r, c, s, f in values
        ]
    )


def test_differences_and_the_width_of_seeds():
    old = lines(
        [
            ("low", "a", 0, 50.0),
            ("low", "a", 1, 54.0),
            ("high", "a", 0, 60.0),
            ("high", "a", 1, 66.0),
            ("high", "b", 0, 70.0),
            ("again", "a", 0, 60.0),
            ("flow alone", "a", 0, 50.0),
        ],
        "monday",
    )
    new = lines(
        [
            ("low", "a", 0, 53.0),
            ("high", "a", 0, 59.0),
            ("high", "b", 0, 70.0),
            ("again", "a", 0, 59.0),
            ("flow alone", "a", 0, 53.0),
        ],
        "tuesday",
    )
    found = repeats(TABLE, old, new)
    assert found.index.tolist() == ["a", "b"] and found["runs"].tolist() == [
        2,
        1,
    ]  # shared runs count once
    a = found.loc["a"]
    assert a["mean difference"] == pytest.approx(1.0) and a["largest"] == pytest.approx(3.0)
    assert a["rms"] == pytest.approx(np.sqrt((9 + 1) / 2))
    assert a["rms of two seeds"] == pytest.approx(
        np.sqrt(2 * (8 + 18) / 2)
    )  # variances of (50, 54) and (60, 66)
    assert np.isnan(found.loc["b", "rms of two seeds"]) and found.loc["b", "rms"] == 0


def test_the_width_of_seeds_is_what_two_draws_differ_by():
    rng = np.random.default_rng(0)
    old = lines([("low", "a", s, v) for s, v in enumerate(rng.normal(60, 5, 4000))], "monday")
    other = rng.normal(60, 5, 4000)
    new = lines([("low", "a", s, v) for s, v in enumerate(other)], "tuesday")
    found = repeats(TABLE, old, new).loc["a"]
    assert found["rms"] == pytest.approx(found["rms of two seeds"], rel=0.05)


def test_a_committed_run_is_no_repetition_and_neither_is_another_configuration():
    old = lines([("low", "a", 0, 50.0), ("high", "a", 0, 60.0)], "monday")
    assert repeats(TABLE, old, old).empty
    assert repeats(
        TABLE, old, lines([("high", "a", 0, 61.0)], "tuesday").assign(cell="changed")
    ).empty
    nothing = pd.DataFrame(columns=result_columns(TABLE))  # as the reader of results gives it
    assert (
        repeats(TABLE, old, nothing).empty
        and repeats(TABLE, nothing, old).empty
        and repeats(TABLE, nothing, nothing).empty
    )


def test_repeats_of_a_localization_table():
    ways = [
        {"name": f"{a}→{b}", "set": {"SOURCE": a, "TARGET": b}}
        for a, b in (("studio", "street"), ("street", "studio"))
    ]
    fields = {"name": "toy", "title": "toy", "task": "localization", "classes": ["wave"]}
    rows = [{"name": "low", "set": {"ROW": "I3D+RPN"}}]
    table = Table(**fields, set={}, seeds=[0, 1], columns=ways, rows=rows)
    values = [
        ("low", "studio→street", 0, 40.0),
        ("low", "studio→street", 1, 44.0),
        ("low", "street→studio", 0, 80.0),
    ]
    old = lines(values, "monday").rename(columns={"fused": "frame_map"})
    moved = old["frame_map"] + [1.0, -3.0, 2.0]
    found = repeats(table, old, old.assign(frame_map=moved, finished="tuesday"))
    assert found.index.tolist() == ["studio→street", "street→studio"]
    assert found["runs"].tolist() == [2, 1]
    assert found["mean difference"].tolist() == [-1.0, 2.0]
    assert found["rms"].tolist() == pytest.approx([np.sqrt(5), 2.0])
    # a variance of 8
    assert found.loc["studio→street", "rms of two seeds"] == pytest.approx(4.0)
