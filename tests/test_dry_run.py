"""`snakemake -n TABLE` lists the runs of a table with what `nbkit cost TABLE` predicts; a real run
predicts nothing.
"""

import re
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from nbkit.cli import main
from nbkit.config import ROOT
from nbkit.files import write_json
from nbkit.tables import cost_report, localization_cost
from nbkit.tables.dry_run import Messages
from nbkit.tables.localization_tables import load_localization_table
from nbkit.tables.table import load_table


def messages(*asked, dry=True, names=("table2", "table4", "hmdb_arid")):
    workflow = SimpleNamespace(dryrun=dry, dag_settings=SimpleNamespace(targets=set(asked)))
    return Messages({name: load_table(name).cells() for name in names}, workflow)


def test_a_dry_run_says_what_nbkit_cost_says(tmp_path, capsys):
    first, second = load_table("table4").cells()[:2]
    for cell, run in (
        (first, "deleted-since"),
        (second, "there"),
    ):  # a cell whose run is gone is listed again
        write_json(tmp_path / "cells" / f"{cell['key']}.json", {"run": run})
    write_json(tmp_path / "there" / "metrics.json", {})
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "table4", "--config", f"runs_dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert main(["cost", "table4", "--runs-dir", str(tmp_path)]) == 0
    predicted = capsys.readouterr().out
    runs = re.findall(
        r"^[0-9a-f]{12}  .* \| GPU ([\d.]+) h, or CPU [\d.]+ h; disk [\d.]+ GB$", predicted, re.M
    )
    assert (
        len(runs) == len({c["key"] for c in load_table("table4").cells()})
        and max(map(float, runs)) > 1
    )
    lines = [line for line in predicted.splitlines()[1:] if line]
    assert [line for line in lines if line not in shown] == [
        line for line in lines if line.startswith(second["key"])
    ], shown
    assert [p.stem for p in (tmp_path / "cells").iterdir()] == [second["key"]]
    assert re.search(r"Job \d+: [0-9a-f]{12}  STCL\+VCA.* \| paper ucf→hmdb .*GPU [1-9]", shown), (
        shown
    )


def test_a_run_that_tables_share_is_told_as_the_table_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(
        cost_report,
        "table_costs",
        lambda name, **_: pytest.fail(f"{name}: nothing is to be predicted"),
    )
    keys = [{c["key"] for c in load_table(name).cells()} for name in ("table2", "table4")]
    shared = sorted(keys[0] & keys[1])
    assert shared
    told = [format(messages(name, dry=False), shared[0]) for name in ("table2", "table4")]
    own = [
        next(c["row"] for c in load_table(name).cells() if c["key"] == shared[0])
        for name in ("table2", "table4")
    ]
    assert [text.split(" | ")[0] for text in told] == own and own[0] != own[1]
    assert f"{messages('table4', dry=False):table4}" == "table4"


def test_a_manifest_without_counts_is_said_and_stops_nothing():
    cell = load_table("hmdb_arid").cells()[0]
    text = format(messages("hmdb_arid"), cell["key"])
    assert (
        text.startswith(f"{cell['key']}  {cell['row']} | ")
        and "not predicted: hmdb_arid: the manifest states no counts" in text
    )


def test_a_dry_run_of_a_localization_table_lists_its_runs(tmp_path, capsys):
    name = "demo_localization"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", name, "--config", f"runs_dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert main(["cost", name, "--runs-dir", str(tmp_path)]) == 0
    predicted = capsys.readouterr().out.splitlines()
    table = load_localization_table(name)
    assert len(predicted) == 1 + len(table.cells()) + 2
    assert not [line for line in predicted if line not in shown], shown
    jobs = set(re.findall(rf"{name} \| (\w+:\w+) \| seed (\d)", shown))
    assert jobs == {(f"{a}:{b}", str(seed)) for a, b in table.directions for seed in table.seeds}


def test_hours_of_a_localization_table_are_those_of_its_committed_runs(tmp_path, monkeypatch):
    table = load_localization_table("demo_localization")
    known = pd.DataFrame(
        {
            "row": ["I3D+RPN", "I3D+RPN", "AdaBN"],
            "train_seconds": [80.0, 160.0, 80.0],
            "steps": [40, 80, 40],
            "evaluate_seconds": [20.0, 20.0, 10.0],
        }
    )  # 2 s a step
    monkeypatch.setattr(localization_cost, "committed", lambda table: known)
    lines = (
        localization_cost.localization_costs(table.name, str(tmp_path))
        .drop_duplicates("row")
        .set_index("row")
    )
    steps = lines["steps"]
    assert lines["hours"]["I3D+RPN"] == pytest.approx((2 * steps["I3D+RPN"] + 20) / 3600)
    assert lines["hours"]["AdaBN"] == pytest.approx(10 / 3600)  # evaluation only
    assert lines["hours"]["oracle"] == pytest.approx(
        (2 * steps["oracle"] + 20) / 3600
    )  # no run of its own: all rows'

    monkeypatch.setattr(localization_cost, "committed", lambda table: known.iloc[:0])
    text = localization_cost.format_localization_costs(
        table.name, localization_cost.localization_costs(table.name, str(tmp_path))
    )
    assert "hours not predicted" in text.splitlines()[-1] and "CPU" not in text


def test_what_is_finished_costs_nothing(tmp_path):
    row, cell = load_localization_table("demo_localization").cells(runs_dir=str(tmp_path))[0]
    cell.folder.mkdir(parents=True)
    (cell.folder / "metrics.json").write_text("{}")
    lines = localization_cost.localization_costs("demo_localization", str(tmp_path))
    assert (
        list(lines["status"][:2]) == ["done", "to run"]
        and lines["hours"][0] == 0
        and lines["row"][0] == row.name
    )
