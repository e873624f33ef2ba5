import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbkit.tables.batch as batch
from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.files import write_json
from nbkit.methods import METHODS
from nbkit.tables.gains import difference, disagreements, interval_text
from nbkit.tables.report import printed, side_by_side, summary, tidy
from nbkit.tables.results import (
    added,
    committed,
    export,
    refuse_losses,
    refuse_uncommitted,
    results,
)
from nbkit.tables.right_wrong import (
    VIDEO_COLUMNS,
    committed_right_wrong,
    pack,
    pairs,
    right_wrong,
    unpack,
)
from nbkit.tables.table import KEY, Table, _take_printed, load_table, table_names
from nbkit.train.store import find_run, run_folder, run_key
from tools.parameters import PAGE, page

TABLES = [name for name in table_names() if load_table(name).task == "recognition"]


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_every_table_is_a_valid_configuration(name):
    table = load_table(name)
    cells = table.cells()
    running, own = (
        [r for r in table.rows if r.runs],
        [r for r in table.rows if r.runs and not r.same_as],
    )
    size = len(table.columns) * len(table.seeds) * len(table.splits)
    assert len(cells) == len(running) * size
    assert len({cell.key for cell in cells}) == len(own) * size  # rows that share a run say so
    assert all(cell.config().method in METHODS for cell in cells)


def test_unknown_table_and_unknown_field_are_named(tmp_path, monkeypatch):
    with pytest.raises(NbkitError, match="demo_table4"):
        load_table("demo_tabel4")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "bad.yaml").write_text(
        "title: x\nset: {}\nrows: []\ncolumns: []\nseeds: [0]\nrosw: []\n"
    )
    monkeypatch.setattr("nbkit.tables.table.ROOT", tmp_path)
    with pytest.raises(NbkitError, match="rosw"):
        load_table("bad")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"printed": {"b": 1.0}}, "which is no column"),
        ({"against": "nobody"}, "is no row"),
        ({"same_as": "high"}, "a row above"),
        ({"name": "low"}, "same name"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(change, message):
    rows = [{"name": "low"}, {"name": "high", **change}]
    with pytest.raises(ValueError, match=message):
        Table(name="toy", title="toy", set={}, seeds=[0], columns=[{"name": "a"}], rows=rows)


def toy():
    return Table(
        name="toy",
        title="toy",
        set={"PROFILE": "smoke"},
        seeds=[0, 1],
        columns=[{"name": "a"}],
        against="low",
        rows=[
            {"name": "low", "set": {"METHOD": "source_only"}, "printed": {"a": 75.0}},
            {"name": "high"},
        ],
    )


NO_LINES = pd.DataFrame(columns=VIDEO_COLUMNS)


def lines(low, high):
    rows = [
        {"row": r, "column": "a", "seed": s, "split": 0, "fused": v}
        for r, vs in (("low", low), ("high", high))
        for s, v in enumerate(vs)
    ]
    return pd.DataFrame(rows)


def test_summary_prints_mean_sample_sd_and_n_and_never_a_number_for_what_did_not_run():
    text = summary(toy(), lines([60.0, 64.0], []))
    assert text.loc["low", "a"] == "62.0 ± 2.8 (2)" and text.loc["high", "a"] == "not run"
    assert printed(toy()).loc["low", "a"] == "75.0" and printed(toy()).loc["high", "a"] == "–"


def test_differences_pair_the_seeds():
    def told(low, high):
        return interval_text(difference(toy(), lines(low, high), NO_LINES, "high", "low", "a"))

    assert told([50.0, 70.0], [53.0, 73.0]) == "+3.0 [+3.0, +3.0] (2)"  # too few for a star
    assert told([50.0] * 5, [53.0] * 5) == "+3.0 [+3.0, +3.0] (5) *"
    assert told([50.0], []) == "not run" and told([50.0], [53.0]) == "+3.0 (one run)"


def videos(low, high):
    return pd.DataFrame(
        [
            {
                "row": r,
                "column": "a",
                "seed": s,
                "split": 0,
                "videos": 10,
                "order": "x",
                "fused": pack(v),
                "units": " ".join("0123456789"),
            }
            for r, vs in (("low", low), ("high", high))
            for s, v in enumerate(vs)
        ],
        columns=[*VIDEO_COLUMNS, "units"],
    )


def test_intervals_cover_videos_where_the_right_and_wrong_ones_are_known():
    low, high = [np.arange(10) < 5] * 5, [np.arange(10) < 8] * 5
    found = difference(toy(), lines([50.0] * 5, [80.0] * 5), videos(low, high), "high", "low", "a")
    assert found.mean == pytest.approx(30.0) and found.low < 10 and found.high > 50 and found.n == 5
    partly = difference(
        toy(), lines([50.0] * 5, [80.0] * 5), videos(low[:3], high), "high", "low", "a"
    )
    assert (partly.low, partly.high) == (
        30.0,
        30.0,
    )  # two runs without their videos: over runs only


def test_paper_beside_ours():
    wide = side_by_side(toy(), lines([60.0, 64.0], [61.0, 66.0]), NO_LINES)["a"]
    assert wide.loc["low"].tolist() == ["75.0", "62.0 ± 2.8 (2)", "-13.0", "–"]
    assert wide.loc["high"].tolist() == ["–", "63.5 ± 3.5 (2)", "–", "+1.5 [+1.0, +2.0] (2)"]
    numbers = tidy(toy(), lines([60.0, 60.0], []), NO_LINES).set_index("row")
    assert (
        numbers.loc["low", "gap"] == -15.0
        and np.isnan(numbers.loc["high", "ours"])
        and numbers.loc["high", "runs"] == 0
    )


def test_a_row_that_shares_a_run_reads_its_own_stream_and_the_mean_needs_every_column():
    table = Table(
        name="toy",
        title="toy",
        set={},
        seeds=[0],
        mean="Mean",
        columns=[{"name": "a"}, {"name": "b"}],
        rows=[{"name": "both"}, {"name": "flow", "same_as": "both", "measure": "flow"}],
    )
    found = pd.DataFrame(
        [
            {"row": "both", "column": c, "seed": 0, "split": 0, "fused": f, "flow": f - 10}
            for c, f in (("a", 60.0), ("b", 70.0))
        ]
    )
    assert summary(table, found).loc["flow"].tolist() == ["50.0 (1)", "60.0 (1)", "55.0 (1)"]
    assert summary(table, found[found["column"] == "a"]).loc["both"].tolist() == [
        "60.0 (1)",
        "not run",
        "not run",
    ]


def test_rows_in_another_order_than_the_papers_are_named(monkeypatch):
    monkeypatch.setattr("nbkit.tables.gains.printed_videos", lambda table, column: 100)
    rows = [{"name": n, "printed": {"a": v}} for n, v in (("low", 50.0), ("high", 60.0))]
    table = Table(name="toy", title="toy", set={}, seeds=[0], columns=[{"name": "a"}], rows=rows)
    found = disagreements(table, lines([53.0] * 5, [50.0] * 5), NO_LINES)
    assert (
        found.iloc[0].tolist() == ["high", "low", "+10.0 (10 videos)", "-3.0 [-3.0, -3.0] (5) *"]
        and len(found) == 1
    )
    # too few runs of ours, too few videos of the paper's, a row of another work: not claimed
    assert disagreements(table, lines([53.0] * 4, [50.0] * 4), NO_LINES).empty
    monkeypatch.setattr("nbkit.tables.gains.printed_videos", lambda table, column: 50)
    assert disagreements(table, lines([53.0] * 5, [50.0] * 5), NO_LINES).empty
    monkeypatch.setattr("nbkit.tables.gains.printed_videos", lambda table, column: 100)
    table.row("low").copied = True
    assert disagreements(table, lines([53.0] * 5, [50.0] * 5), NO_LINES).empty
    table.row("low").copied = False
    assert disagreements(table, lines([50.0], [53.0]), NO_LINES).empty
    assert disagreements(table, lines([53.0], []), NO_LINES).empty
    two = Table(
        name="toy",
        title="toy",
        set={},
        seeds=[0],
        columns=[{"name": "a"}, {"name": "b"}],
        rows=[{"name": n, "printed": {"a": v, "b": v}} for n, v in (("low", 50.0), ("high", 60.0))],
    )
    assert disagreements(
        two, lines([53.0] * 5, [50.0] * 5), NO_LINES
    ).empty  # the paper's mean is over both columns


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_packed_videos_come_back(bits):
    assert unpack(pack(bits), len(bits)).tolist() == bits


def test_packed_videos_of_another_length_are_refused():
    with pytest.raises(NbkitError, match="do not hold 30 videos"):
        unpack(pack([True] * 10), 30)


def test_the_key_of_a_cell_changes_with_the_version_of_its_numbers(monkeypatch):
    table = load_table("demo_table4")
    before = table.cells()[0].key
    assert before == table.cells()[0].key
    monkeypatch.setattr(RunConfig, "version", RunConfig.version + 1)
    assert table.cells()[0].key != before


def test_committed_results_belong_to_their_tables():
    for name in TABLES:
        path = ROOT / "results" / f"{name}.csv"
        table, found = (
            load_table(name),
            pd.read_csv(path) if path.exists() else committed(name),
        )  # strangers, too
        assert set(found["row"]) <= {r.name for r in table.rows}
        assert set(found["column"]) <= {c.name for c in table.columns}
        assert not found.duplicated(["row", "column", "seed", "split"]).any()
        if len(found):
            assert found[["run", "commit", "device", "torch"]].notna().all().all()
            keys = {cell.place: cell.key for cell in table.cells()}
            for line in found.to_dict(
                "records"
            ):  # a result under a configuration that the table no longer has
                assert (
                    line["cell"] == keys[line["row"], line["column"], line["seed"], line["split"]]
                ), f"{name}: {line['row']}"


def test_wrong_names_of_a_table_are_named():
    table = load_table("demo_table4")
    for asked in ({"rows": ["Sourceonly"]}, {"columns": ["studio->street"]}, {"seeds": [9]}):
        with pytest.raises(
            NbkitError, match=f"demo_table4 has no .*{next(iter(asked.values()))[0]}.*there are: "
        ):
            table.cells(**asked)
    with pytest.raises(NbkitError, match="has no row 'Foo'"):
        table.row("Foo")


def test_a_twin_names_columns_of_its_paper():
    twin, paper = load_table("demo_table4"), load_table("table4")
    for line in twin.rows:
        line.printed = {}
    twin.columns[0].printed_as = "U->H"
    with pytest.raises(LookupError, match="U->H is no column of table4"):
        _take_printed(twin, paper)


def test_committed_lines_of_another_configuration_are_left_out_and_named(tmp_path, monkeypatch):
    rows, path = (
        [{"name": "low"}, {"name": "high", "set": {"ALPHA": 0.1}}],
        tmp_path / "results" / "toy.csv",
    )
    table = Table(
        name="toy",
        title="toy",
        set={"PROFILE": "smoke"},
        seeds=[0, 1],
        columns=[{"name": "a"}],
        rows=rows,
    )
    monkeypatch.setattr("nbkit.tables.results.ROOT", tmp_path)
    monkeypatch.setattr("nbkit.tables.results.load_table", lambda name: table)
    path.parent.mkdir()
    lines = pd.DataFrame(
        [
            {
                **dict(zip(KEY, cell.place)),
                "fused": 50.0,
                "cell": cell.key,
            }
            for cell in table.cells()
        ]
    )
    lines.to_csv(path, index=False)
    assert len(committed("toy")) == 4
    table.row("high").set["ALPHA"] = 0.2
    table.seeds = [0]
    with pytest.warns(
        UserWarning, match=r"results/toy.csv: 3 of 4 lines .* \(high, low\).*nbkit export toy"
    ):
        assert committed("toy")[["row", "seed"]].to_numpy().tolist() == [["low", 0]]


def test_a_wrong_name_in_a_row_is_found_by_file_and_row():
    table = Table(
        name="toy",
        title="toy",
        set={"PROFILE": "smoke"},
        seeds=[0],
        columns=[{"name": "a"}],
        rows=[{"name": "high", "set": {"ALPA": 0.1}}],
    )
    with pytest.raises(
        NbkitError,
        match="tables/toy.yaml, row 'high', column 'a': unknown parameter ALPA; did you mean ALPHA",
    ):
        table.cells()


def finished(cfg, data_key, when=0):
    """An empty run folder of a configuration that says it is finished, `when` seconds from now."""
    folder = run_folder(cfg, data_key)
    write_json(folder / "metrics.json", {"cell": run_key(cfg)})
    moment = folder.joinpath("metrics.json").stat().st_mtime + when
    os.utime(folder / "metrics.json", (moment, moment))
    return folder


def test_a_new_version_of_a_method_is_run_anew(tmp_path, monkeypatch):
    table = load_table("demo_table4")
    keys = {cell.key for cell in table.cells(seeds=[0])}
    cfg = table.cells(seeds=[0], rows=["STCL"])[0].config(runs_dir=str(tmp_path))
    assert finished(cfg, "data") == find_run(cfg)
    monkeypatch.setitem(METHODS, "stcda", METHODS["stcda"]._replace(version=2))
    changed = {cell.row for cell in table.cells(seeds=[0]) if cell.key not in keys}
    cells = table.cells(seeds=[0])
    assert changed == {cell.row for cell in cells if cell.parameters["METHOD"] == "stcda"}
    assert find_run(cfg) is None


def test_find_run_matches_the_whole_configuration_and_takes_the_latest(tmp_path):
    cfg = RunConfig.make(profile="smoke", seed=1, runs_dir=str(tmp_path))
    run_folder(cfg, "data").mkdir()
    assert find_run(cfg) is None  # no metrics yet: not finished
    finished(cfg, "data")
    assert find_run(cfg.replace(alpha=9.0)) is None
    # the same configuration on other data: a later run and an earlier one
    finished(cfg, "before", -200)
    assert find_run(cfg) == run_folder(cfg, "data")
    assert find_run(cfg) != finished(cfg, "after", 200) == find_run(cfg)


def test_an_export_refuses_new_lines_of_a_tree_that_differs_from_its_commit(tmp_path):
    new = pd.DataFrame(
        {"row": ["a", "b"], "column": "c", "seed": 0, "split": 0, "commit": ["12ab+", "12ab+"]}
    )
    words = r"1 of the new lines .* ends in '\+' \(b\).* Commit, then run"
    with pytest.raises(NbkitError, match=words):
        refuse_uncommitted(new[:1], new)
    refuse_uncommitted(new, new)  # what the file already holds is its own affair
    refuse_uncommitted(new[:0], new.assign(commit=["12ab", None]))


def test_an_export_never_drops_results_unasked(tmp_path):
    def lines(rows, values):
        return pd.DataFrame({"row": rows, "column": "c", "seed": 0, "split": 0, "fused": values})

    old, new = lines(["a", "b"], [1.0, 2.0]), lines(["b", "c"], [3.0, 4.0])
    words = "results/t.csv holds 2 results, .* lacks 1 of them.*--add .*--replace"
    with pytest.raises(NbkitError, match=words):
        refuse_losses(old, new, "results/t.csv", tmp_path, "refuse")
    refuse_losses(old, old, "results/t.csv", tmp_path, "refuse")
    refuse_losses(old, new, "results/t.csv", tmp_path, "replace")
    found = added(old, new)  # what the file holds is not touched
    assert found["row"].tolist() == ["a", "b", "c"] and found["fused"].tolist() == [1.0, 2.0, 4.0]


def test_a_cell_that_fails_in_any_way_does_not_stop_the_table(tmp_path, monkeypatch, capsys):
    def out_of_memory(cfg):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(batch, "run", out_of_memory)
    cells = len({cell.key for cell in load_table("demo_table4").cells(seeds=[0])})
    assert batch.run_table("demo_table4", seeds=[0], runs_dir=str(tmp_path)) == cells
    assert capsys.readouterr().out.count("failed: RuntimeError: CUDA out of memory") == cells


@pytest.mark.parametrize("name", TABLES)
def test_committed_videos_give_the_committed_accuracies(name):
    found, packed = committed(name), committed_right_wrong(name)
    merged = packed.merge(found, on=["row", "column", "seed", "split"], suffixes=("_bits", ""))
    own = {r.name for r in load_table(name).rows if not r.same_as}
    assert (
        len(merged) == len(packed) == found["row"].isin(own).sum()
    )  # without its videos a run has no honest interval
    for line in merged.to_dict("records"):
        for m in ("fused", "rgb", "flow"):
            if isinstance(line[f"{m}_bits"], str):
                assert 100 * unpack(line[f"{m}_bits"], line["videos"]).mean() == pytest.approx(
                    line[m], abs=1e-3
                )


@pytest.fixture(autouse=True)
def clean_tree(monkeypatch):
    """Runs of these tests are exported, whatever the checkout that they run in is like."""
    monkeypatch.setattr("nbkit.train.store.commit", lambda: "1234abc")


def test_results_are_empty_where_nothing_ran(tmp_path):
    assert results(load_table("demo_table4"), tmp_path).empty
    with pytest.raises(NbkitError, match="no finished cell"):
        export("demo_table4", str(tmp_path))


def test_a_parameter_the_notebook_does_not_have_stops_the_cell(tmp_path):
    with pytest.raises(NbkitError, match="no parameter SEEED"):
        batch.execute("04_full_adaptation", tmp_path / "out.ipynb", {"SEEED": 1}, "recognition")


def test_a_failed_notebook_is_kept_with_its_error(tmp_path):
    parameters = {"METHOD": "magic", "RUNS_DIR": str(tmp_path)}
    with pytest.raises(NbkitError, match="failed.ipynb"):
        batch.execute("04_full_adaptation", tmp_path / "out.ipynb", parameters, "recognition")
    assert "METHOD='magic' is not one of" in (tmp_path / "out.failed.ipynb").read_text()
    assert not (tmp_path / "out.ipynb").exists()


def small_table(smoke, **fields):
    """A table of one column whose cells train within a second."""
    parameters = {
        "PROFILE": "smoke",
        "METHOD": "source_only",
        "EPOCHS": [0, 1, 0],
        "DATA_ROOT": smoke().watch.data_root,
    }
    given = {"name": "toy", "title": "toy", "set": parameters, "columns": [{"name": "a"}]}
    return Table(**{**given, "seeds": [0], "rows": [{"name": "low"}], **fields})


def test_a_cell_runs_through_papermill_and_is_not_repeated(tmp_path, smoke, monkeypatch):
    table = small_table(smoke)
    monkeypatch.setattr(batch, "load_table", lambda name: table)
    (cell,) = table.cells()
    folder = batch.run_cell("toy", cell.key, str(tmp_path))
    assert (tmp_path / "notebooks" / "cells" / f"{cell.key}.ipynb").exists()
    accuracy = json.loads((folder / "metrics.json").read_text())["accuracy"]["fused"]
    assert 0 <= accuracy <= 100
    monkeypatch.setattr(batch, "execute", lambda *words: pytest.fail("ran again"))
    assert batch.run_cell("toy", cell.key, str(tmp_path)) == folder
    assert len(results(table, tmp_path)) == 1
    lines, tests = right_wrong(table, tmp_path)
    line = lines.iloc[0]
    assert 100 * unpack(line["fused"], line["videos"]).mean() == pytest.approx(accuracy)
    lines["units"] = lines["order"].map(tests.set_index("order")["units"])
    paired = pairs(table, lines, "low", "low")
    assert paired.columns == ["a"]
    assert len(paired.units[0]) == len(set(paired.units[0])) == line["videos"]
    assert batch.run_table("toy", runs_dir=str(tmp_path)) == 0
    assert len(list(tmp_path.glob("demo-*"))) == 1


def test_seeds_of_another_machine_are_added_to_a_results_file(tmp_path, smoke, monkeypatch):
    rows = [{"name": "low"}, {"name": "aligned", "set": {"METHOD": "adabn"}}]
    table = small_table(smoke, seeds=[0, 1], rows=rows)
    for module in ("results", "batch"):
        monkeypatch.setattr(f"nbkit.tables.{module}.load_table", lambda name: table)
    for module in ("results", "right_wrong"):
        monkeypatch.setattr(f"nbkit.tables.{module}.ROOT", tmp_path)
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    assert batch.run_table("toy", seeds=[1], runs_dir=there) == 0
    assert batch.run_table("toy", rows=["low"], runs_dir=here) == 0
    paths = export("toy", there)
    first = [path.read_text() for path in paths]
    with pytest.raises(NbkitError, match="holds 2 results, .*here/ lacks 1 of them"):
        export("toy", here)
    assert [path.read_text() for path in paths] == first
    export("toy", here, "add")
    lines, packed = committed("toy"), committed_right_wrong("toy")
    expected = [c.place for c in table.cells() if c.row == "low" or c.seed == 1]
    for found in (lines, packed):
        assert list(found[KEY].itertuples(index=False, name=None)) == expected
    # each line of the files is there, letter for letter
    for path, text in zip(paths[:2], first[:2], strict=True):
        assert len(path.read_text().splitlines()) == 4
        assert set(text.splitlines()) < set(path.read_text().splitlines())
    assert paths[2].name == "toy.tests.csv" and paths[2].read_text() == first[2]
    for line, bits in zip(lines.to_dict("records"), packed.to_dict("records"), strict=True):
        right = unpack(bits["fused"], bits["videos"]).mean()
        assert 100 * right == pytest.approx(line["fused"], abs=1e-3)
    # what the table no longer has does not come along, in no file
    table.row("aligned").set["BN_MODE"] = "shared"
    with pytest.warns(UserWarning, match="1 of 3 lines"):
        export("toy", here, "add")
    assert set(committed("toy")["row"]) == set(committed_right_wrong("toy")["row"]) == {"low"}


def test_the_parameters_page_is_current():
    assert PAGE.read_text() == page(), "run python tools/parameters.py"


def test_reading_tables_loads_no_torch():
    code = """
import sys
from nbkit.tables.cost import needs, total
from nbkit.tables.table import load_table, table_names
for name in table_names():
    total(name, needs(load_table(name).cells()[:1]))
print(sorted({"torch", "pandas", "matplotlib", "av", "cv2"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
