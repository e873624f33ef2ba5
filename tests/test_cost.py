"""Predicted hours and disk: those of committed runs, or scaled from a measured step."""

import json
import math

import pytest

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config.recognition import RunConfig
from nbkit.tables import cost
from nbkit.tables.cost import COMMITTED, SCALED, needs, total
from nbkit.tables.results import committed
from nbkit.tables.table import load_table, table_names
from nbkit.train.store import run_folder, run_key

PAPER = {"profile": "paper", "benchmark": "ucf_hmdb_full", "source": "ucf", "target": "hmdb"}


def known(monkeypatch, seconds):
    monkeypatch.setattr(cost, "_committed", lambda: seconds)


def test_hours_are_the_median_of_the_same_row(tmp_path, monkeypatch):
    table = load_table("demo_table4")
    known(monkeypatch, {("demo_table4", "STCL"): [1800.0, 3600.0, 9000.0]})
    (need,) = needs(table.cells([0], ["studio→street"], ["STCL"]), str(tmp_path))
    assert (need.hours, need.basis, need.done) == (1.0, COMMITTED, False)
    assert "at most 1.00 h" in need.text and need.cell.key in need.text


def test_hours_of_a_new_row_are_those_of_its_method_on_the_same_benchmark(tmp_path, monkeypatch):
    table = load_table("demo_table4")
    (cell,) = table.cells([0], ["studio→street"], ["STCL"])
    known(monkeypatch, {cost._kind(cell.parameters): [7200.0]})
    (need,) = needs([cell], str(tmp_path))
    assert (need.hours, need.basis) == (2.0, COMMITTED)


def test_a_paper_size_run_is_scaled_from_the_measured_step(tmp_path, monkeypatch):
    """Epochs x videos x clips x pixels of the run, times what the method costs in the demo."""
    cells = load_table("table4").cells([0], ["U→H"], ["Source only", "STCL+VCA"])
    demo = ("demo", "demo", "stcda", None, None)
    known(monkeypatch, {demo: [300.0], (*demo[:2], "source_only", None, None): [100.0]})
    plain, full = needs(cells, str(tmp_path))
    step = json.loads(cost.STEPS.read_text())["backbones"]["bn_inception"]
    cfg = RunConfig.make(**PAPER)
    pixels = step["batch"] * step["clips"] * step["frames"] * step["crop"] ** 2
    per_video = (
        cfg.data.clips * cfg.data.frames * cfg.data.crop**2 * step["seconds_per_step"] / pixels
    )
    assert plain.hours == pytest.approx((30 + 40) * 1438 * per_video / 3600)
    assert full.hours == pytest.approx(3 * (30 + 30 + 40) * 1438 * per_video / 3600)
    assert plain.basis == full.basis == SCALED


def test_a_table_without_any_measurement_says_so(tmp_path, monkeypatch):
    found = needs(load_table("jhmdb_ucf101").cells([0]), str(tmp_path))
    assert all(math.isnan(need.hours) for need in found)
    assert "9 to run: hours not predicted" in total("jhmdb_ucf101", found)
    known(monkeypatch, {})
    found = needs(load_table("hmdb_arid").cells([0], ["hmdb→arid"]), str(tmp_path))
    assert "hours not predicted" in total("hmdb_arid", found)


def test_runs_of_a_benchmark_share_its_cache_and_disk_comes_from_the_manifest(tmp_path):
    cells = load_table("table4").cells()
    found = needs(cells, str(tmp_path))
    frames = (1438 + 571 + 840 + 360) * load_manifest("ucf_hmdb_full").mean_frames
    assert {need.cache[1] for need in found} == {frames * 256**2 * 5}
    assert f"{frames * 256**2 * 5 / 1e9:.1f} GB of cached clips" in total("table4", found)


def test_what_is_finished_costs_nothing_and_shared_runs_count_once(tmp_path):
    cells = load_table("demo_table3").cells()
    cfg = cells[0].config(runs_dir=str(tmp_path))
    folder = run_folder(cfg, "data")
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"cell": run_key(cfg)}))
    found = needs(cells, str(tmp_path))
    assert len(found) == len({cell.key for cell in cells}) < len(cells)
    assert [need.cell.key for need in found if need.done] == [cells[0].key]
    assert found[0].text.endswith("| done")
    assert f"{len(found)} runs, {len(found) - 1} to run" in total("demo_table3", found)
    assert f"{sum(need.hours for need in found[1:]):.2f} h" in total("demo_table3", found)


@pytest.mark.parametrize("name", table_names())
def test_every_table_can_be_planned(name, tmp_path):
    found = needs(load_table(name).cells()[:40], str(tmp_path))
    paper = load_table(name).set["PROFILE"] in ("short", "paper")
    if load_table(name).task == "recognition":
        # A row or a table of one's own has no committed run to go by.
        known = {row for row in committed(name)["row"]}
        planned = [need for need in found if need.hours > 0]
        assert known & {need.cell.row for need in found} <= {need.cell.row for need in planned}
        assert {need.basis for need in planned} <= {COMMITTED if known and not paper else SCALED}
        assert planned or not (known or paper)
