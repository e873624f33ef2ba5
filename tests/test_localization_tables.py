"""Localization tables, their cells and the data behind them: printed numbers, resuming, provenance,
bad names.
"""

import json

import numpy as np
import pandas as pd
import pytest

from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.files import write_json
from nbkit.tables import localization_tables as lt
from nbkit.tables.localization_tables import (
    LocalizationTable,
    committed,
    gains,
    load_localization_table,
    localization_tables,
    printed,
    results,
    run_localization,
    summary,
)
from nbkit.train import localization_data as data_module
from nbkit.train.localization_cells import LocalizationCell, cell_data, row_of, run_cell
from nbkit.train.localization_run import ROWS


# ------------------------------------------------------------------------------------------------------
# the paper
def test_every_table_loads_and_names_real_classes():
    assert {
        "ucfsports_ucf101",
        "jhmdb_ucf101",
        "demo_localization",
        "jhmdb_camera_localization",
    } <= set(localization_tables())
    for name in localization_tables():
        table = load_localization_table(name)
        manifest = data_module.load_manifest(
            "demo" if table.set["BENCHMARK"] == data_module.DEMO else table.set["BENCHMARK"]
        )
        assert sorted(table.classes) == sorted(manifest.classes), name
        assert all(set(d) <= set(manifest.domains) for d in table.directions)
        assert len(table.cells()) == len(table.rows) * len(table.seeds) * len(table.directions)


@pytest.mark.parametrize("name", ["ucfsports_ucf101", "jhmdb_ucf101"])
def test_printed_frame_map_is_the_mean_of_the_printed_classes(name):
    """The only row that deviates by more than rounding is S_img of Table 1 (41.625, printed as
    41.7).
    """
    table = load_localization_table(name)
    for row in table.rows:
        if row.printed:
            mean, off = (
                float(np.mean(row.printed[:-2])),
                0.08 if (name, row.name) == ("ucfsports_ucf101", "S_img") else 0.0501,
            )
            assert abs(mean - row.printed[-2]) <= off, (row.name, mean)
    assert [r.name for r in table.rows if not r.printed] == ["T_img + T_ins"]


def test_gains_that_the_paper_states():
    """Section 3: +16.2 frame-mAP and +6.0 video-mAP in Table 1, +14.2 and +17.7 in Table 2; and
    single modules.
    """

    def gain(name, row):
        values = {r.name: r.printed for r in load_localization_table(name).rows}
        return [round(values[row][i] - values["I3D+RPN"][i], 1) for i in (-2, -1)]

    assert gain("ucfsports_ucf101", "all three") == [16.2, 6.0] and gain(
        "jhmdb_ucf101", "all three"
    ) == [14.2, 17.7]
    assert gain("ucfsports_ucf101", "T_img") == [5.7, 4.5] and gain(
        "ucfsports_ucf101", "T_ins"
    ) == [6.0, 4.4]
    assert gain("ucfsports_ucf101", "S_img") == [11.5, 4.2]


# ----------------------------------------------------------------------------------------------------
# the schema
def tiny(**fields):
    given = {
        "name": "t",
        "title": "t",
        "set": {"BENCHMARK": "demo_untrimmed", "STEPS": 1},
        "directions": [["studio", "street"]],
        "classes": ["wave"],
        "seeds": [0],
        "rows": [{"name": "I3D+RPN"}, {"name": "oracle"}],
        **fields,
    }
    return LocalizationTable(**given)


def test_wrong_tables_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="printed numbers"):
        tiny(rows=[{"name": "I3D+RPN", "printed": [1.0]}])
    with pytest.raises(ValueError, match="not one of"):
        tiny(rows=[{"name": "T_image"}])
    with pytest.raises(NbkitError, match="no row nothing; there are: I3D"):
        tiny().cells(rows=["nothing"])
    with pytest.raises(NbkitError, match="no direction a→b"):
        tiny().cells(directions=["a:b"])
    with pytest.raises(NbkitError, match="demo_localization"):
        load_localization_table("demo_localisation")
    monkeypatch.setattr(lt, "FOLDER", tmp_path)
    (tmp_path / "bad.yaml").write_text("title: x\nrows: 3\n")
    with pytest.raises(NbkitError, match="bad.yaml"):
        load_localization_table("bad")


def test_cells_come_seed_by_seed_and_have_folders_of_their_own():
    table = tiny(seeds=[0, 1], directions=[["studio", "street"], ["street", "studio"]])
    cells = table.cells()
    assert [c.model.seed for _, c in cells] == [0] * 4 + [1] * 4
    assert len({c.folder for _, c in cells}) == 8
    assert [c.source for _, c in table.cells(directions=["street→studio"])] == ["street"] * 4


def test_summary_tells_not_run_from_a_number():
    table = tiny()
    found = pd.DataFrame(
        [
            {
                "row": "I3D+RPN",
                "source": "studio",
                "target": "street",
                "seed": s,
                "split": 0,
                "ap_wave": 10.0 + s,
                "frame_map": 20.0,
                "video_map_0.5": float("nan"),
            }
            for s in (0, 1)
        ]
    )
    text = summary(table, found, ("studio", "street"))
    assert list(text.columns) == ["wave", "Fr. mAP", "Vid. mAP"]
    assert text.loc["I3D+RPN"].tolist() == ["10.5 ± 0.7 (2)", "20.0 ± 0.0 (2)", "not run"]
    assert set(text.loc["oracle"]) == {"not run"} and set(
        summary(table, found, ("street", "studio")).iloc[0]
    ) == {"not run"}
    assert printed(table).loc["oracle"].tolist() == ["–", "–", "–"]
    assert list(committed(table.model_copy(update={"name": "no such table"})).columns)[:2] == [
        "row",
        "source",
    ]


def test_gains_are_paired_by_seed():
    table = tiny(rows=[{"name": "I3D+RPN"}, {"name": "T_img"}, {"name": "oracle"}], seeds=[0, 1, 2])
    scores = [
        ("I3D+RPN", 0, 10.0),
        ("I3D+RPN", 1, 60.0),
        ("T_img", 0, 13.0),
        ("T_img", 1, 64.0),
        ("T_img", 2, 0.0),
    ]
    found = pd.DataFrame(
        [
            {
                "row": r,
                "source": "studio",
                "target": "street",
                "seed": s,
                "split": 0,
                "frame_map": v,
                "video_map_0.5": -v,
            }
            for r, s, v in scores
        ]
    )
    told = gains(table, found, ("studio", "street"), ["I3D+RPN"])
    assert told["I3D+RPN", "Fr. mAP"].tolist() == [
        "–",
        "+3.5 ± 0.7 (2)",
        "not run",
    ]  # seed 2 has no baseline
    assert told["I3D+RPN", "Vid. mAP"]["T_img"] == "-3.5 ± 0.7 (2)"
    other_way = gains(table, found, ("street", "studio"), ["I3D+RPN"])
    assert set(other_way["I3D+RPN", "Fr. mAP"]) == {"–", "not run"}
    with pytest.raises(NbkitError, match="has no row AdaBN"):
        gains(table, found, ("studio", "street"), ["AdaBN"])


# -------------------------------------------------------------------------------------------------------
# the cells
def test_adapt_names_the_row():
    assert row_of([]) == "I3D+RPN" and row_of(["s_img", "t_img", "t_ins"]) == "all three"
    cell = LocalizationCell.make(adapt=["t_ins"], lam=0.3, seed=None)
    assert (cell.row, cell.model.adapt, cell.adaptation.lam, cell.seed) == (
        "T_ins",
        ("t_ins",),
        0.3,
        0,
    )
    assert cell.with_row("oracle").model.adapt == ()
    assert all(cell.with_row(r).folder != cell.folder for r in ROWS if r != "T_ins")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"adapt": ["timg"]}, "modules are"),
        ({"betta": 1}, "did you mean BETA"),
        ({"row": "nothing"}, "choose one of"),
        ({"source": "street"}, "must differ"),
        ({"steps": 0}, "STEPS"),
        ({"size": "huge"}, "choose one of"),
    ],
)
def test_wrong_parameters_are_named(fields, words):
    with pytest.raises(NbkitError, match=words):
        LocalizationCell.make(**fields)


def test_places_and_watching_do_not_change_a_run():
    one, other = (
        LocalizationCell.make(runs_dir=r, data_root=r, log_every=k) for r, k in (("a", 1), ("b", 7))
    )
    assert one.identity() == other.identity() and one.folder.name == other.folder.name
    assert LocalizationCell.make(eval_split="val").folder != LocalizationCell.make().folder


# -------------------------------------------------------------------------------------------------
# data and runs
@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tiny untrimmed demo, 16 frames a video: two test and training videos a class and domain,
    one of them untrimmed.
    """
    patch, render = pytest.MonkeyPatch(), data_module.write_demo
    patch.setattr(data_module, "UNTRIMMED", 0.5)
    patch.setattr(
        data_module,
        "write_demo",
        lambda *a, **how: render(*a, **{**how, "size": 48, "frames": 16, "workers": 1}),
    )
    root = tmp_path_factory.mktemp("localization")
    yield {
        "data_root": str(root / "data"),
        "runs_dir": str(root / "runs"),
        "demo_train": 2,
        "demo_test": 2,
    }
    patch.undo()


def small_cell(places, **fields):
    return LocalizationCell.make(
        **{
            **places,
            "steps": 2,
            "batch": 2,
            "log_every": 1,
            "height": 48,
            "width": 48,
            "eval_stride": 8,
            "min_tube_len": 1,
            **fields,
        }
    )


def test_untrimmed_demo_has_background_frames_and_two_instances(places):
    data = cell_data(small_cell(places))
    boxed = {(t.video, int(f)) for t in data.test.tubes for f in t.frames}
    long = [v for v, n in enumerate(data.test.n_frames) if n == 48]
    assert len(long) == 8 and set(data.test.n_frames) == {16, 48}
    for video in long:
        assert sum(t.video == video for t in data.test.tubes) == 2
        assert 0 < sum((video, f) in boxed for f in range(48)) < 48
    assert all(
        k in {(t.video, int(f)) for t in data.source.tubes for f in t.frames}
        for k in data.source.keys
    )
    assert data.target.withhold_labels and not data.target.tubes


def test_a_run_is_read_when_finished_and_resumed_when_not(places, monkeypatch):
    cell = small_cell(places, row="T_img")
    with pytest.raises(NbkitError, match="not a domain"):
        cell_data(small_cell(places, target="moon"))
    first = run_cell(cell)
    assert {"frame_map", "video_map_0.5", "class_given_box", "finished", "seconds"} <= set(
        first.metrics
    )
    assert list(first.history["step"]) == [0, 1] and (cell.folder / "detections.npz").exists()
    monkeypatch.setattr(
        "nbkit.train.localization_cells.cell_data", lambda *a, **k: pytest.fail("trained again")
    )
    assert run_cell(cell).metrics == first.metrics
    monkeypatch.undo()
    (cell.folder / "metrics.json").unlink()  # cut off before the evaluation: the checkpoint is used
    before, begun = (
        (cell.folder / "checkpoint.pt").read_bytes(),
        json.loads((cell.folder / "env.json").read_text()),
    )
    write_json(cell.folder / "env.json", begun | {"commit": "begun", "scored_at": "begun"})
    again = run_cell(cell)
    assert json.loads((cell.folder / "env.json").read_text()) == begun | {
        "commit": "begun"
    }  # evaluated by the code of now
    assert (cell.folder / "checkpoint.pt").read_bytes() == before
    timing = {"seconds": 0, "finished": ""}
    assert json.dumps(again.metrics | timing) == json.dumps(first.metrics | timing)


def test_adabn_shares_the_baselines_weights(places):
    cell = small_cell(places, row="AdaBN", norm="per_domain")
    run_cell(cell)
    assert cell.with_row("I3D+RPN").finished
    assert (cell.folder / "checkpoint.pt").read_bytes() == (
        cell.with_row("I3D+RPN").folder / "checkpoint.pt"
    ).read_bytes()


def test_a_table_runs_what_is_missing_and_survives_a_failing_row(
    places, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(lt, "FOLDER", tmp_path)
    monkeypatch.setattr(lt, "ROOT", tmp_path)
    settings = {k.upper(): v for k, v in places.items() if k != "runs_dir"} | {
        "BENCHMARK": "demo_untrimmed",
        "STEPS": 1,
        "BATCH": 2,
        "HEIGHT": 48,
        "WIDTH": 48,
        "EVAL_STRIDE": 8,
        "MIN_TUBE_LEN": 1,
        "NORM": "group",
    }
    (tmp_path / "tiny.yaml").write_text(
        json.dumps(
            {
                "title": "tiny",
                "set": settings,
                "directions": [["studio", "street"]],
                "seeds": [3, 4],
                "classes": [
                    "wave",
                    "jumping_jack",
                    "walk",
                    "squat",
                    "throw",
                    "kick",
                    "cartwheel",
                    "lift",
                ],
                "rows": [{"name": "AdaBN"}, {"name": "I3D+RPN"}],
            }
        )
    )  # group normalisation has no AdaBN: that row fails
    assert run_localization("tiny", seeds=[3], runs_dir=str(tmp_path / "runs")) == 1
    assert "AdaBN, studio→street, seed 3, split 0: failed" in capsys.readouterr().out
    run_localization("tiny", rows=["I3D+RPN"], seeds=[3], runs_dir=str(tmp_path / "runs"))
    assert "was finished" in capsys.readouterr().out
    found = results(load_localization_table("tiny"), str(tmp_path / "runs"))
    assert found["row"].tolist() == ["I3D+RPN"] and found["seed"].tolist() == [3]
    assert found[["commit", "torch", "device", "train_seconds", "finished"]].notna().all().all()
    path = lt.export_localization("tiny", str(tmp_path / "runs"))
    assert (
        committed(load_localization_table("tiny"))["run"].tolist() == found["run"].tolist()
        and path.name == "tiny.csv"
    )
    with pytest.raises(NbkitError, match="run-localization tiny"):
        lt.export_localization("tiny", str(tmp_path / "nothing"))
    text = path.read_text()
    run_localization("tiny", rows=["I3D+RPN"], seeds=[4], runs_dir=str(tmp_path / "runs2"))
    with pytest.raises(
        NbkitError, match="tiny.csv holds 1 results, .*runs2/ lacks 1 of them.*--add"
    ):
        lt.export_localization("tiny", str(tmp_path / "runs2"))
    lt.export_localization(
        "tiny", str(tmp_path / "runs2"), "add"
    )  # another machine's seed beside ours
    assert path.read_text().startswith(text) and committed(load_localization_table("tiny"))[
        "seed"
    ].tolist() == [3, 4]


def test_a_run_is_refused_on_other_boxes_than_its_own(places):
    cell = small_cell(places, row="T_ins")
    data = cell_data(cell)
    first = run_cell(cell, data)
    assert run_cell(cell, data).metrics == first.metrics
    data.boxes = "others"
    with pytest.raises(NbkitError, match=f"{cell.folder.name}.*other videos, splits or boxes"):
        run_cell(cell, data)
    (cell.folder / "metrics.json").unlink()
    with pytest.raises(NbkitError, match="other videos, splits or boxes"):
        run_cell(cell, data)


def test_partial_data_is_another_run():
    whole, partial = LocalizationCell.make(), LocalizationCell.make(allow_partial=True)
    assert "allow_partial" not in whole.identity() and whole.folder != partial.folder


def test_a_manifest_path_is_no_benchmark_of_a_run():
    with pytest.raises(NbkitError, match="put the file into data_manifests/"):
        LocalizationCell.make(benchmark="/somewhere/mine.yaml")


@pytest.mark.parametrize("name", lt.localization_tables())
def test_committed_runs_are_of_the_tables_configurations(name):
    table = load_localization_table(name)
    folders = {(row.name, cell.folder.name) for row, cell in table.cells()}
    path = ROOT / "results" / f"{name}.csv"
    found = pd.read_csv(path) if path.exists() else committed(table)
    assert set(found[["row", "run"]].itertuples(index=False, name=None)) <= folders


def test_committed_runs_of_another_configuration_are_left_out_and_named():
    table = load_localization_table("demo_localization")
    table.set["STEPS"] = 7
    with pytest.warns(
        UserWarning, match="results/demo_localization.csv: .*export-localization demo_localization"
    ):
        assert committed(table).empty


def test_a_table_counts_whole_data_only():
    fields = load_localization_table("demo_localization").model_dump()
    with pytest.raises(ValueError, match="ALLOW_PARTIAL"):
        lt.LocalizationTable(**{**fields, "set": {**fields["set"], "ALLOW_PARTIAL": True}})
