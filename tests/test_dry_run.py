"""`snakemake -n TABLE` lists what would run with its predicted hours, and writes nothing."""

import json
import re
import resource
import subprocess
import sys

import pytest

from nbkit.cli import main
from nbkit.config import ROOT
from nbkit.tables.table import load_table
from nbkit.train.store import run_folder, run_key


def dry_run(target, runs_dir):
    """What Snakemake prints, with its processor time in seconds."""
    words = ["-m", "snakemake", "-n", target, "--config", f"runs_dir={runs_dir}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, spent


def jobs(shown):
    """Keys of the cells that would run."""
    return re.findall(r"^Job \d+: ([0-9a-f]{12})  ", shown, re.M)


@pytest.mark.parametrize("name", ["table4", "demo_localization"])
def test_a_dry_run_says_what_nbkit_cost_says_and_writes_nothing(name, tmp_path, capsys):
    runs_dir = tmp_path / "a folder"
    cells = load_table(name).cells()
    done, deleted = cells[:2]
    # One run is there, and one was made by an earlier call and is gone.
    cfg = done.config(runs_dir=str(runs_dir))
    folder = run_folder(cfg, "data")
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"cell": run_key(cfg)}))
    (runs_dir / "cells").mkdir()
    (runs_dir / "cells" / f"{deleted.key}.01234567").touch()
    before = sorted(runs_dir.rglob("*"))

    shown, seconds = dry_run(name, runs_dir)
    assert sorted(runs_dir.rglob("*")) == before
    assert seconds < 8  # about 4 on an idle machine
    assert sorted(jobs(shown)) == sorted({cell.key for cell in cells} - {done.key})

    assert main(["cost", name, "--runs-dir", str(runs_dir)]) == 0
    *runs, empty, last = capsys.readouterr().out.splitlines()
    assert not empty and last in shown
    assert [line for line in runs if line not in shown] == [runs[0]]
    assert runs[0].startswith(done.key) and runs[0].endswith("| done")


def test_a_run_that_tables_share_is_told_as_the_table_that_was_asked_for(tmp_path):
    tables = [load_table(name).cells([0], ["U→H"]) for name in ("table2", "table4")]
    both = {cell.key for cell in tables[0]} & {cell.key for cell in tables[1]}
    for name, cells in zip(("table2", "table4"), tables):
        shown, _ = dry_run(name, tmp_path)
        for cell in cells:
            if cell.key in both:
                assert f"{cell.key}  {cell.row} | {cell.column} | seed 0" in shown
    assert both


def test_the_demo_waits_for_its_data_and_its_notebooks_for_their_runs(tmp_path):
    shown, _ = dry_run("demo", tmp_path)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", shown, re.M))
    assert counts["data_preparation"] == "2" and counts["method_notebook"] == "2"
    assert int(counts["cell"]) + int(counts["first_cell"]) == 6 and counts["run_notebook"] == "2"
    shown, _ = dry_run("localization", tmp_path)
    cells = load_table("demo_localization").cells(seeds=[0])
    assert sorted(jobs(shown)) == sorted(cell.key for cell in cells)
