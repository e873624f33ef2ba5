"""The paper's tables as data: numbers that appear twice agree, marks are computed, twins stand for
real rows.
"""

import math
import re

import pandas as pd
import pytest

import nbkit.tables.batch as batch
from nbkit.cli import main
from nbkit.errors import NbkitError
from nbkit.evaluate.statistics import grim_test
from nbkit.tables.report import (
    FLAGS,
    UNREACHABLE,
    export_formatted,
    flags_of,
    footnotes,
    printed,
    side_by_side,
)
from nbkit.tables.results import committed
from nbkit.tables.right_wrong import VIDEO_COLUMNS
from nbkit.tables.table import Table, load_table, printed_videos, videos_tested

NO_LINES = pd.DataFrame(columns=VIDEO_COLUMNS)
PAPER = [f"table{i}" for i in range(1, 7)]
TWINS = [f"demo_table{i}" for i in range(1, 7)]
# Table 6(b)'s "w/ fusion" is the full model under the only reading that is left, and prints
# something else
OTHER_READING = ("table6", "(b) w/ spatio-temporal fusion")


@pytest.mark.parametrize("name, count", zip(PAPER, (37, 38, 63, 12, 14, 18)))
def test_every_printed_number_is_there(name, count):
    table = load_table(name)
    assert sum(len(r.printed) for r in table.rows) == count
    assert all(0 < v <= 100 for r in table.rows for v in r.printed.values())


def test_equal_configurations_print_equal_numbers_across_the_tables():
    seen: dict[str, set] = {}
    tables: dict[str, set] = {}
    for name in PAPER:
        table = load_table(name)
        for cell in table.cells(seeds=[0]):
            row = table.row(cell.row)
            if (
                row.copied
                or row.measure
                or (name, row.name) == OTHER_READING
                or cell.column not in row.printed
            ):
                continue
            seen.setdefault(cell.key, set()).add(row.printed[cell.column])
            tables.setdefault(cell.key, set()).add(name)
    assert all(len(values) == 1 for values in seen.values())
    # source only, STCDA and VCA stand in several tables, in both directions
    assert sorted(len(names) for names in tables.values())[-7:] == [1, 3, 3, 4, 4, 4, 4]


@pytest.mark.parametrize(
    "name, videos",
    [
        ("table1", [150, 189, 54, 240]),
        ("table2", [360, 571]),
        ("table3", [435, 435, 750, 750, 974, 974]),
        ("demo_table4", [320, 320]),
    ],
)
def test_test_videos_come_from_the_manifest(name, videos):
    table = load_table(name)
    assert [videos_tested(table, c.name) for c in table.columns] == videos


def test_a_twins_printed_numbers_are_judged_by_the_papers_test_set():
    twin, paper = load_table("demo_table1"), load_table("table1")
    assert printed_videos(twin, "studio→street") == videos_tested(paper, "U→O")
    assert (
        printed(twin).loc["Source only (R)", "studio→street"]
        == printed(paper).loc["Source only (R)", "U→O"]
        == "91.6 †"
    )


def test_the_marks_of_table_1_and_3():
    def marked(name, mark):
        table = load_table(name)
        return {(r.name, c) for r in table.rows for c in r.printed if mark in flags_of(table, r, c)}

    own = {x for x in marked("table1", UNREACHABLE) if "only" in x[0] or "STCDA" in x[0]}
    assert own == {
        ("Source only (R)", "H→U"),
        ("Source only (R)", "U→O"),
        ("STCDA (R)", "H→U"),
        ("Source only (R+F)", "H→U"),
    }
    assert marked("table3", UNREACHABLE) == {
        ("MMD", "D2→D1"),
        ("MCD", "D3→D1"),
        ("MM-SADA (RGB)", "D2→D1"),
        ("MM-SADA (RGB + Flow)", "D3→D1"),
    }
    assert not any(marked(name, UNREACHABLE) for name in ("table2", "table4", "table5", "table6"))
    assert len(footnotes(load_table("table3"))) == len(FLAGS)


def test_a_mark_follows_the_number():
    fields = {"BENCHMARK": "ucf_hmdb_small", "SOURCE": "hmdb", "TARGET": "ucf", "PROFILE": "paper"}
    table = Table(
        name="t",
        title="t",
        set=fields,
        seeds=[0],
        columns=[{"name": "H→U"}],
        rows=[
            {"name": "a", "printed": {"H→U": round(100 * 185 / 189, 1)}},
            {"name": "b", "printed": {"H→U": 97.7}},
        ],
    )
    assert printed(table)["H→U"].tolist() == ["97.9", "97.7 †"] and not grim_test(
        97.7, videos_tested(table, "H→U")
    )


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_stands_for_rows_of_its_table(name):
    twin, paper = load_table(name), load_table(name.removeprefix("demo_"))
    assert twin.twin_of == paper.name and twin.seeds == (
        list(range(5)) if name[-1] in "1456" else [0, 1, 2]
    )
    assert all(c.parameters["BENCHMARK"] == "demo" for c in twin.cells())
    for row in (r for r in twin.rows if r.printed_as):
        theirs = paper.row(row.printed_as)
        assert row.copied == theirs.copied and row.measure == theirs.measure
        for column in twin.columns:
            assert row.printed.get(column.name) == theirs.printed.get(column.printed_as)
        for field in {
            "METHOD",
            "STCL_TERMS",
            "STCL_DOMAINS",
            "FUSION",
            "PSEUDO_LABELS",
            "ALIGNMENT",
            "AGGREGATION",
        }:
            mine, yours = ({**t.set, **r.set}.get(field) for t, r in ((twin, row), (paper, theirs)))
            assert mine == yours, (row.name, field)


def test_the_papers_numbers_stand_under_their_own_pair_of_domains():
    wide = side_by_side(load_table("demo_table1"), committed("demo_table1"), NO_LINES)
    heads = wide["studio→street"].columns.tolist()
    assert heads == ["paper, U→O", "ours", "paper's gain", "our gain"]
    own = side_by_side(load_table("table1"), committed("table1"), NO_LINES)
    assert own["U→O"].columns.tolist()[:2] == ["paper", "ours"]


def test_a_twin_holds_no_number_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    head = "title: x\nset: {}\ncolumns: [{name: a}]\nseeds: [0]\n"
    (tmp_path / "tables" / "paper.yaml").write_text(head + "rows: [{name: r, printed: {a: 1.0}}]\n")
    (tmp_path / "tables" / "typed.yaml").write_text(
        head + "twin_of: paper\nrows: [{name: r, printed: {a: 2.0}}]\n"
    )
    (tmp_path / "tables" / "lost.yaml").write_text(
        head + "twin_of: paper\nrows: [{name: r, printed_as: q}]\n"
    )
    monkeypatch.setattr("nbkit.tables.table.ROOT", tmp_path)
    with pytest.raises(NbkitError, match="takes its printed numbers from paper"):
        load_table("typed")
    with pytest.raises(NbkitError, match="'q' is no row of paper"):
        load_table("lost")


def test_notebook_04_takes_every_parameter_of_every_cell(monkeypatch, tmp_path):
    def stop(*_words, **_more):
        raise KeyboardInterrupt  # past the check of the names

    monkeypatch.setattr(batch.papermill, "execute_notebook", stop)
    for name in PAPER + TWINS:
        cells = load_table(name).cells(seeds=[0])
        for cell in {tuple(sorted(cell.parameters)): cell for cell in cells}.values():
            with pytest.raises(KeyboardInterrupt):
                notebook = batch.CELL_NOTEBOOKS[cell.task]
                batch.execute(notebook, tmp_path / "out.ipynb", cell.parameters, cell.task)


def test_exports_in_three_formats(tmp_path):
    md, tex, csv = export_formatted("table1", folder=tmp_path)
    text = md.read_text()
    assert (
        re.search(r"\| STCDA \(R\) +\| 99\.3 † +\| not run \|", text)
        and "† no number of right videos" in text
    )
    latex = tex.read_text()
    assert (
        r"\toprule" in latex and latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 1
    )
    assert r"99.3 $^\dagger$ & not run" in latex and r"U$\rightarrow$H" in latex and latex.isascii()
    lines = csv.read_text().splitlines()
    assert len(lines) == 1 + 12 * 4 and lines[0].startswith(
        "row,column,paper,of,marks,ours,sd,runs,gap"
    )


def test_exported_numbers_are_those_of_the_committed_runs(tmp_path):
    (path,) = export_formatted("demo_table4", ["csv"], tmp_path)
    out, found = pd.read_csv(path).set_index(["row", "column"]), committed("demo_table4")
    for (row, column), part in found.groupby(["row", "column"]):
        assert out.loc[(row, column), "ours"] == pytest.approx(part["fused"].mean(), abs=1e-3)
        assert out.loc[(row, column), "runs"] == len(part)
        paper = out.loc[(row, column), "paper"]
        # the paper's numbers beside a twin are of other data: no gap, and the pair is named
        assert math.isnan(out.loc[(row, column), "gap"])
        assert out.loc[(row, column), "of"] == load_table("demo_table4").column(column).printed_as
        assert math.isnan(paper) or 0 < paper < 100


def test_the_command_writes_what_it_says_and_names_what_it_does_not_know(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("nbkit.tables.report.ROOT", tmp_path)
    assert main(["export", "table4", "--format", "md", "tex", "csv"]) == 0
    assert sorted(p.name for p in (tmp_path / "results" / "formatted").iterdir()) == [
        "table4.csv",
        "table4.md",
        "table4.tex",
    ]
    assert (
        main(["export", "no_table", "--format", "md"]) == 1
        and "no table 'no_table'" in capsys.readouterr().err
    )
    with pytest.raises(NbkitError, match="format html: choose among md, tex, csv"):
        export_formatted("table4", ["html"], tmp_path)
