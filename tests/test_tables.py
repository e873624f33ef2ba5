import json

import pandas as pd
import pytest

import nbkit.batch as batch
from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.parameters import page
from nbkit.tables import Table, committed, config_of, differences, find_run, load_table, printed, results, summary

TABLES = sorted(p.stem for p in (ROOT / "tables").glob("*.yaml"))


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_every_table_is_a_valid_configuration(name):
    table = load_table(name)
    cells = table.cells()
    assert len(cells) == len(table.rows) * len(table.columns) * len(table.seeds) * len(table.splits)
    assert len({c["key"] for c in cells}) == len(cells)


def test_unknown_table_and_unknown_field_are_named(tmp_path, monkeypatch):
    with pytest.raises(NbkitError, match="demo_table4"):
        load_table("demo_tabel4")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "bad.yaml").write_text("title: x\nset: {}\nrows: []\ncolumns: []\nseeds: [0]\nrosw: []\n")
    monkeypatch.setattr("nbkit.tables.ROOT", tmp_path)
    with pytest.raises(NbkitError, match="rosw"):
        load_table("bad")


def toy():
    return Table(name="toy", title="toy", set={"PROFILE": "smoke"}, seeds=[0, 1], columns=[{"name": "a"}],
                 rows=[{"name": "low", "set": {"METHOD": "source_only"}, "printed": {"a": 70.0}}, {"name": "high"}])


def lines(low, high):
    rows = [{"row": r, "column": "a", "seed": s, "split": 0, "fused": v} for r, vs in (("low", low), ("high", high))
            for s, v in enumerate(vs)]
    return pd.DataFrame(rows)


def test_summary_prints_mean_sample_sd_and_n_and_never_a_number_for_what_did_not_run():
    text = summary(toy(), lines([60.0, 64.0], []))
    assert text.loc["low", "a"] == "62.0 ± 2.8 (2)" and text.loc["high", "a"] == "not run"
    assert printed(toy()).loc["low", "a"] == "70.0" and printed(toy()).loc["high", "a"] == "–"


def test_differences_pair_the_seeds():
    text = differences(toy(), lines([50.0, 70.0], [53.0, 73.0]), [("high", "low")])
    assert text.loc["high − low", "a"] == "+3.0 [+3.0, +3.0] (2)"  # too few for a star
    many = differences(toy(), lines([50.0] * 5, [53.0] * 5), [("high", "low")])
    assert many.loc["high − low", "a"] == "+3.0 [+3.0, +3.0] (5) *"
    assert differences(toy(), lines([50.0], []), [("high", "low")]).loc["high − low", "all"] == "not run"


def test_find_run_matches_the_whole_configuration(tmp_path):
    cfg = config_of({"PROFILE": "smoke", "SEED": 1}, runs_dir=str(tmp_path))
    folder = tmp_path / f"{cfg.benchmark}-{cfg.source}-{cfg.target}-{cfg.method}-s1-abc"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(cfg.model_dump(mode="json")))
    assert find_run(cfg) is None  # no metrics yet: not finished
    (folder / "metrics.json").write_text("{}")
    assert find_run(cfg) == folder
    assert find_run(config_of({"PROFILE": "smoke", "SEED": 1, "ALPHA": 9.0}, runs_dir=str(tmp_path))) is None


def test_committed_results_belong_to_their_tables():
    for name in TABLES:
        table, found = load_table(name), committed(name)
        assert set(found["row"]) <= {r.name for r in table.rows}
        assert set(found["column"]) <= {c.name for c in table.columns}
        assert not found.duplicated(["row", "column", "seed", "split"]).any()
        if len(found):
            assert found[["run", "commit", "device", "torch"]].notna().all().all()


def test_results_are_empty_where_nothing_ran(tmp_path):
    assert results(load_table("demo_table4"), tmp_path).empty
    with pytest.raises(NbkitError, match="no finished cell"):
        batch.export("demo_table4", str(tmp_path))


def test_a_parameter_the_notebook_does_not_have_stops_the_cell(tmp_path):
    with pytest.raises(NbkitError, match="no parameter SEEED"):
        batch.execute("04_full_adaptation", tmp_path / "out.ipynb", {"SEEED": 1})


def test_a_failed_notebook_is_kept_with_its_error(tmp_path):
    with pytest.raises(NbkitError, match="failed.ipynb"):
        batch.execute("04_full_adaptation", tmp_path / "out.ipynb", {"METHOD": "magic", "RUNS_DIR": str(tmp_path)})
    assert "METHOD='magic' is not one of" in (tmp_path / "out.failed.ipynb").read_text()
    assert not (tmp_path / "out.ipynb").exists()


def test_a_cell_runs_through_papermill_and_is_not_repeated(tmp_path, smoke, monkeypatch):
    cfg = smoke(method="source_only", epochs=(0, 1, 0))
    fields = {"PROFILE": "smoke", "METHOD": "source_only", "DATA_ROOT": cfg.data_root}
    table = Table(name="toy", title="toy", set=fields, seeds=[0], columns=[{"name": "a"}], rows=[{"name": "low"}])
    monkeypatch.setattr(batch, "load_table", lambda name: table)
    cell = table.cells()[0]
    marker = json.loads(batch.run_cell("toy", cell["key"], str(tmp_path)).read_text())
    assert marker["row"] == "low" and 0 <= marker["accuracy"]["fused"] <= 100
    monkeypatch.setattr(batch, "execute", lambda *a: pytest.fail("ran again"))
    batch.run_cell("toy", cell["key"], str(tmp_path))
    assert len(results(table, tmp_path)) == 1


def test_the_parameters_page_is_current():
    assert (ROOT / "docs" / "PARAMETERS.md").read_text() == page()
