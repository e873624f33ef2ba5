"""`snakemake -n TABLE` lists the runs of a table with what `nbkit cost TABLE` predicts; a real run predicts nothing."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nbkit import cost_report
from nbkit.cli import main
from nbkit.config import ROOT
from nbkit.dry_run import Messages
from nbkit.tables import load_table


def messages(*asked, dry=True, names=("table2", "table4", "hmdb_arid")):
    workflow = SimpleNamespace(dryrun=dry, dag_settings=SimpleNamespace(targets=set(asked)))
    return Messages({name: load_table(name).cells() for name in names}, workflow)


def test_a_dry_run_says_what_nbkit_cost_says(tmp_path, capsys):
    done = subprocess.run([sys.executable, "-m", "snakemake", "-n", "table4", "--config", f"runs_dir={tmp_path}"],
                          cwd=ROOT, capture_output=True, text=True)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert main(["cost", "table4", "--runs-dir", str(tmp_path)]) == 0
    predicted = capsys.readouterr().out
    runs = re.findall(r"^[0-9a-f]{12}  .* \| GPU ([\d.]+) h, or CPU [\d.]+ h; disk [\d.]+ GB$", predicted, re.M)
    assert len(runs) == len({c["key"] for c in load_table("table4").cells()}) and max(map(float, runs)) > 1
    lines = [line for line in predicted.splitlines()[1:] if line]
    assert not [line for line in lines if line not in shown], shown
    assert re.search(r"Job \d+: [0-9a-f]{12}  STCL\+VCA.* \| paper ucf→hmdb .*GPU [1-9]", shown), shown


def test_a_run_that_tables_share_is_told_as_the_table_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(cost_report, "table_costs", lambda name, **_: pytest.fail(f"{name}: nothing is to be predicted"))
    keys = [{c["key"] for c in load_table(name).cells()} for name in ("table2", "table4")]
    shared = sorted(keys[0] & keys[1])
    assert shared
    told = [format(messages(name, dry=False), shared[0]) for name in ("table2", "table4")]
    own = [next(c["row"] for c in load_table(name).cells() if c["key"] == shared[0]) for name in ("table2", "table4")]
    assert [text.split(" | ")[0] for text in told] == own and own[0] != own[1]
    assert f"{messages('table4', dry=False):table4}" == "table4"


def test_a_manifest_without_counts_is_said_and_stops_nothing():
    cell = load_table("hmdb_arid").cells()[0]
    text = format(messages("hmdb_arid"), cell["key"])
    assert text.startswith(f"{cell['key']}  {cell['row']} | ") and "not predicted: hmdb_arid: the manifest states no counts" in text
