"""Localization tables and their data: printed numbers, cells, gains, batches, bad names."""

import json

import numpy as np
import pandas as pd
import pytest

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT
from nbkit.config.localization import LocalizationConfig
from nbkit.errors import NbkitError
from nbkit.tables import batch
from nbkit.tables.gains import difference, interval_text
from nbkit.tables.report import by_measure, printed_by_measure, side_by_side, summary
from nbkit.tables.results import committed, export, results
from nbkit.tables.right_wrong import VIDEO_COLUMNS
from nbkit.tables.table import MEAN_PRECISIONS, Table, load_table, table_names
from nbkit.train import localization_data
from nbkit.train.store import run_key

TABLES = [name for name in table_names() if load_table(name).task == "localization"]
NO_LINES = pd.DataFrame(columns=VIDEO_COLUMNS)
CLASSES = ["wave", "jumping_jack", "walk", "squat", "throw", "kick", "cartwheel", "lift"]


# --- the paper -----------------------------------------------------------------------------------
def test_every_table_loads_and_names_real_classes():
    own = {"ucfsports_ucf101", "jhmdb_ucf101", "jhmdb_ucf101_two"}
    own |= {"demo_localization", "jhmdb_camera_localization"}
    assert own == set(TABLES)
    for name in TABLES:
        table = load_table(name)
        manifest = load_manifest(table.set["BENCHMARK"].removesuffix("_untrimmed"))
        assert sorted(table.classes) == sorted(manifest.classes), name
        for column in table.columns:
            assert {column.set["SOURCE"], column.set["TARGET"]} <= set(manifest.domains)
            assert column.name == f"{column.set['SOURCE']}→{column.set['TARGET']}"
        assert len(table.cells()) == len(table.rows) * len(table.seeds) * len(table.columns)


@pytest.mark.parametrize("name", ["ucfsports_ucf101", "jhmdb_ucf101"])
def test_printed_frame_map_is_the_mean_of_the_printed_classes(name):
    """Up to rounding: the classes may each be off by 0.05, so their mean may, and so may what is
    printed.  No row is further off; the farthest is S_img of Table 1 (41.625, printed as 41.7).
    """
    table = load_table(name)
    (column,) = table.column_names
    for row in table.rows:
        if row.printed:
            classes = [row.number(column, f"ap_{label}") for label in table.classes]
            off = abs(np.mean(classes) - row.number(column, "frame_map"))
            assert off <= 0.05 + 0.05 + 1e-9, row.name
    assert [row.name for row in table.rows if not row.printed] == ["T_img + T_ins"]


def test_gains_that_the_paper_states():
    """Section 3: +16.2 frame-mAP and +6.0 video-mAP in Table 1, +14.2 and +17.7 in Table 2."""

    def gain(name, row):
        table = load_table(name)
        (column,) = table.column_names
        base, own = table.row("I3D+RPN"), table.row(row)
        means = [(own.number(column, m), base.number(column, m)) for m in MEAN_PRECISIONS]
        return [round(ours - theirs, 1) for ours, theirs in means]

    assert gain("ucfsports_ucf101", "all three") == [16.2, 6.0]
    assert gain("jhmdb_ucf101", "all three") == [14.2, 17.7]
    assert gain("ucfsports_ucf101", "T_img") == [5.7, 4.5]
    assert gain("ucfsports_ucf101", "T_ins") == [6.0, 4.4]
    assert gain("ucfsports_ucf101", "S_img") == [11.5, 4.2]


# --- the schema ----------------------------------------------------------------------------------
def direction(source, target):
    return {"name": f"{source}→{target}", "set": {"SOURCE": source, "TARGET": target}}


def line(name, **fields):
    return {"name": name, "set": {"ROW": name}, **fields}


def tiny(**fields):
    given = {
        "name": "t",
        "title": "t",
        "task": "localization",
        "set": {"BENCHMARK": "demo_untrimmed", "STEPS": 1},
        "columns": [direction("studio", "street")],
        "classes": ["wave"],
        "seeds": [0],
        "rows": [line("I3D+RPN"), line("oracle")],
        **fields,
    }
    return Table(**given)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"rows": [line("I3D+RPN", printed={"studio→street": {"frame_map": 1.0}})]}, "one for ev"),
        ({"rows": [line("I3D+RPN", printed={"studio→street": 1.0})]}, "one for every class"),
        ({"rows": [line("I3D+RPN", against="nobody")]}, "is no row"),
        ({"set": {"ALLOW_PARTIAL": True}}, "ALLOW_PARTIAL"),
    ],
)
def test_wrong_tables_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        tiny(**fields)


def test_wrong_names_are_told():
    with pytest.raises(NbkitError, match="row='T_image': choose one of"):
        tiny(rows=[line("T_image")]).cells()
    with pytest.raises(NbkitError, match="no row 'nothing'; there are: I3D"):
        tiny().cells(rows=["nothing"])
    with pytest.raises(NbkitError, match="no column 'a→b'"):
        tiny().cells(columns=["a→b"])


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"betta": 1}, "did you mean BETA"),
        ({"row": "nothing"}, "choose one of"),
        ({"source": "street"}, "must differ"),
        ({"steps": 0}, "STEPS"),
        ({"profile": "huge"}, "is not one of"),
        ({"benchmark": "/somewhere/mine.yaml"}, "BENCHMARK"),
    ],
)
def test_wrong_parameters_are_named(fields, words):
    with pytest.raises(NbkitError, match=words):
        LocalizationConfig.make(**fields)


def test_cells_come_seed_by_seed_and_have_keys_of_their_own():
    ways = [direction("studio", "street"), direction("street", "studio")]
    cells = tiny(seeds=[0, 1], columns=ways).cells()
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4
    assert len({cell.key for cell in cells}) == 8
    chosen = tiny(seeds=[0, 1], columns=ways).cells(columns=["street→studio"])
    assert [cell.config().source for cell in chosen] == ["street"] * 4


def test_places_and_watching_do_not_change_a_run_and_partial_data_do():
    one, other = (
        LocalizationConfig.make(runs_dir=place, data_root=place, log_every=k)
        for place, k in (("a", 1), ("b", 7))
    )
    assert run_key(one) == run_key(other)
    assert run_key(LocalizationConfig.make(eval_split="val")) != run_key(one)
    assert run_key(LocalizationConfig.make(allow_partial=True)) != run_key(one)


# --- reports -------------------------------------------------------------------------------------
def found(scores, **measures):
    """Lines of results: (row, seed, frame_map)."""
    lines = []
    for row, seed, value in scores:
        place = {"row": row, "column": "studio→street", "seed": seed, "split": 0}
        lines.append({**place, "frame_map": value, "video_map_0.5": -value, **measures})
    return pd.DataFrame(lines)


def test_a_summary_tells_not_run_from_a_number():
    table = tiny(columns=[direction("studio", "street"), direction("street", "studio")])
    lines = found([("I3D+RPN", 0, 20.0), ("I3D+RPN", 1, 20.0)])
    lines["ap_wave"], lines["video_map_0.5"] = [10.0, 11.0], np.nan
    text = by_measure(table, lines, "studio→street")
    assert list(text.columns) == ["wave", "Fr. mAP", "Vid. mAP"]
    assert text.loc["I3D+RPN"].tolist() == ["10.5 ± 0.7 (2)", "20.0 ± 0.0 (2)", "not run"]
    assert set(text.loc["oracle"]) == {"not run"}
    assert summary(table, lines).loc["I3D+RPN"].tolist() == ["20.0 ± 0.0 (2)", "not run"]
    assert printed_by_measure(table, "studio→street").loc["oracle"].tolist() == ["–", "–", "–"]
    assert list(results(table, "no runs here").columns)[:2] == ["row", "column"]


def test_gains_are_paired_by_seed_and_their_interval_is_over_runs():
    table = tiny(rows=[line("I3D+RPN"), line("T_img"), line("oracle")], seeds=[0, 1, 2])
    base, own = (
        [("I3D+RPN", 0, 10.0), ("I3D+RPN", 1, 60.0)],
        [("T_img", 0, 13.0), ("T_img", 1, 64.0)],
    )
    lines = found([*base, *own, ("T_img", 2, 0.0)])  # seed 2 has no baseline

    def told(row, base="I3D+RPN", measure=""):
        gap = difference(table, lines, NO_LINES, row, base, "studio→street", measure)
        return interval_text(gap)

    assert told("T_img") == "+3.5 [+3.0, +4.0] (2)" and told("oracle") == "not run"
    assert told("T_img", measure="video_map_0.5") == "-3.5 [-4.0, -3.0] (2)"
    with pytest.raises(NbkitError, match="has no row 'AdaBN'"):
        told("T_img", "AdaBN")


def test_the_paper_stands_beside_ours():
    numbers = {"ap_wave": 30.0, "frame_map": 30.0, "video_map_0.5": 12.0}
    rows = [line("I3D+RPN", printed={"studio→street": numbers}), line("T_img")]
    table = tiny(rows=rows, against="I3D+RPN")
    wide = side_by_side(table, found([("I3D+RPN", 0, 10.0), ("T_img", 0, 15.0)]), NO_LINES)
    assert wide["studio→street"].loc["I3D+RPN"].tolist() == ["30.0", "10.0 (1)", "-20.0", "–"]
    assert wide["studio→street"].loc["T_img", "our gain"] == "+5.0 (one run)"


# --- results -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TABLES)
def test_committed_runs_are_of_the_tables_configurations(name):
    path = ROOT / "results" / f"{name}.csv"
    cells = {cell.place: cell.key for cell in load_table(name).cells()}
    if path.exists():
        for row, column, seed, split, *_, key in pd.read_csv(path).itertuples(index=False):
            assert cells[row, column, seed, split] == key


def test_committed_runs_of_another_configuration_are_left_out_and_named(monkeypatch):
    table = load_table("demo_localization")
    table.set["LR"] = 0.5
    monkeypatch.setattr("nbkit.tables.results.load_table", lambda name: table)
    words = "results/demo_localization.csv: .*nbkit export demo_localization"
    with pytest.warns(UserWarning, match=words):
        assert committed("demo_localization").empty


# --- data and runs -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tiny untrimmed demo, 16 frames per video: two test and training videos per class."""
    patch, render = pytest.MonkeyPatch(), localization_data.write_demo
    patch.setattr(localization_data, "UNTRIMMED", 0.5)

    def small(*words, **how):
        return render(*words, **{**how, "size": 48, "frames": 16, "workers": 1})

    patch.setattr(localization_data, "write_demo", small)
    root = tmp_path_factory.mktemp("localization")
    yield {"data_root": str(root / "data"), "demo_train": 2, "demo_test": 2}
    patch.undo()


SMALL = {"steps": 1, "batch": 2, "height": 48, "width": 48, "eval_stride": 8, "min_tube_len": 1}


def test_untrimmed_demo_has_background_frames_and_two_instances(places):
    data = localization_data.load_data(LocalizationConfig.make(**places, **SMALL))
    boxed = {(tube.video, int(f)) for tube in data.test.tubes for f in tube.frames}
    long = [v for v, n in enumerate(data.test.n_frames) if n == 48]
    assert len(long) == 8 and set(data.test.n_frames) == {16, 48}
    for video in long:
        assert sum(tube.video == video for tube in data.test.tubes) == 2
        assert 0 < sum((video, f) in boxed for f in range(48)) < 48
    trained = {(tube.video, int(f)) for tube in data.source.tubes for f in tube.frames}
    assert all(key in trained for key in data.source.keys)
    assert data.target.withhold_labels and not data.target.tubes
    with pytest.raises(NbkitError, match="not a domain"):
        localization_data.load_data(LocalizationConfig.make(target="moon", **places))


def test_a_table_runs_what_is_missing_and_survives_a_failing_row(
    places, tmp_path, monkeypatch, capsys
):
    settings = {**places, **SMALL, "benchmark": "demo_untrimmed", "norm": "group"}
    table = tiny(
        set={name.upper(): value for name, value in settings.items()},
        seeds=[3, 4],
        classes=CLASSES,
        rows=[line("T_img"), line("I3D+RPN")],
    )
    for module in ("batch", "results"):
        monkeypatch.setattr(f"nbkit.tables.{module}.load_table", lambda name: table)
    monkeypatch.setattr("nbkit.tables.results.ROOT", tmp_path)
    for module in ("store", "localization"):
        monkeypatch.setattr(f"nbkit.train.{module}.commit", lambda: "1234abc")
    run = batch.run

    def run_or_fail(cfg):
        assert cfg.row != "T_img", "no memory for this row"
        return run(cfg)

    monkeypatch.setattr(batch, "run", run_or_fail)
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    assert batch.run_table("t", seeds=[3], runs_dir=here) == 1
    assert "T_img | studio→street | seed 3 split 0: failed: Assert" in capsys.readouterr().out
    monkeypatch.setattr(batch, "run", lambda cfg: pytest.fail("trained again"))
    assert batch.run_table("t", rows=["I3D+RPN"], seeds=[3], runs_dir=here) == 0
    lines = results(table, here)
    assert lines[["row", "seed"]].to_numpy().tolist() == [["I3D+RPN", 3]]
    assert lines[["commit", "torch", "device", "train_seconds", "cell"]].notna().all(axis=None)
    (path,) = export("t", here)
    text = path.read_text()
    assert committed("t")["run"].tolist() == lines["run"].tolist() and path.name == "t.csv"
    with pytest.raises(NbkitError, match="no finished cell of t"):
        export("t", str(tmp_path / "nothing"))
    monkeypatch.setattr(batch, "run", run)
    batch.run_table("t", rows=["I3D+RPN"], seeds=[4], runs_dir=there)
    with pytest.raises(NbkitError, match="t.csv holds 1 results, .*there/ lacks 1 .*--add"):
        export("t", there)
    export("t", there, "add")  # another machine's seed beside ours
    assert path.read_text().startswith(text) and committed("t")["seed"].tolist() == [3, 4]


def test_notebook_05_takes_every_parameter_of_every_cell(monkeypatch, tmp_path):
    def stop(*_words, **_more):
        raise KeyboardInterrupt  # past the check of the names

    monkeypatch.setattr(batch.papermill, "execute_notebook", stop)
    for name in TABLES:
        for cell in load_table(name).cells(seeds=[0]):
            with pytest.raises(KeyboardInterrupt):
                notebook = batch.CELL_NOTEBOOKS[cell.task]
                batch.execute(notebook, tmp_path / "out.ipynb", cell.parameters, cell.task)
    assert json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
