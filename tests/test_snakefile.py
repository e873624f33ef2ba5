"""Snakemake in a checkout and a runs folder of any name, after a kill, and with strange tables.

A copy of the checkout gets a first notebook that takes seconds; the rules are those of the project.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from nbkit.config import ROOT

NOTEBOOK = "{}/notebooks/01_data_preparation.ipynb"


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the Snakefile reads, in a folder that has to be quoted everywhere."""
    folder = tmp_path / "My Projects (ü) [1] $HOME" / "it's a copy"
    left_out = shutil.ignore_patterns("runs", "data", ".git", ".venv", ".snakemake", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=left_out)
    write_notebook(folder, "RUNS_DIR = 'runs'", "print(6 * 7)")
    return folder


def write_notebook(folder, *cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, folder / "notebooks" / "01_data_preparation.ipynb")


def snakemake(folder, *words, wait=True):
    """Snakemake in a session of its own, with the copy's package."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *words]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    started = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **how)
    if wait:
        said, _ = started.communicate(timeout=200)
        return started.returncode, said
    return started


@pytest.mark.parametrize("runs", ["runs", "my runs; touch PWNED (ü) $(id)"])
def test_a_job_runs_whatever_the_folders_are_called(checkout, runs):
    code, said = snakemake(checkout, "--config", f"runs_dir='{runs}'", "--", NOTEBOOK.format(runs))
    assert code == 0, said
    done = nbformat.read(checkout / NOTEBOOK.format(runs), as_version=4)
    assert done.cells[-1].outputs[0].text == "42\n" and not (checkout / "PWNED").exists()


def test_it_goes_on_by_itself_after_a_kill(checkout):
    write_notebook(checkout, "RUNS_DIR = 'runs'", "import time; time.sleep(60)")
    first = snakemake(checkout, "--", NOTEBOOK.format("runs"), wait=False)
    running = checkout / "runs" / "notebooks" / "01_data_preparation.running.ipynb"
    waiting_until = time.time() + 120
    while not running.exists() and time.time() < waiting_until:
        time.sleep(0.2)
    assert any((checkout / ".snakemake" / "incomplete").iterdir())
    os.killpg(first.pid, signal.SIGKILL)  # what a power cut leaves
    first.communicate()
    write_notebook(checkout, "RUNS_DIR = 'runs'", "print(6 * 7)")
    code, said = snakemake(checkout, "--", NOTEBOOK.format("runs"))
    assert code == 0 and "lock" not in said.lower(), said


# Others are in test_strange_files; these two went through a shell.
ATTACKS = {
    "a table's name": ("name: 'x; touch PWNED'\n", "evil"),
    "code in a row's name": ("row: 'x$(touch PWNED)'\n", "evil"),
}
TABLE = """
{first}title: t
set: {{BENCHMARK: demo, PROFILE: smoke, METHOD: source_only}}
rows: [{{name: "{row}"}}]
columns: [{{name: a}}]
seeds: [0]
"""


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_table_from_a_stranger_runs_nothing(checkout, attack):
    line, name = ATTACKS[attack]
    row = "Source only"
    if line.startswith("row: "):
        row, line = line[6:-2], ""
    text = TABLE.format(first=line, row=row)
    (checkout / "tables" / f"{name}.yaml").write_text(text)
    code, said = snakemake(checkout, "-n", "--", "table4")
    assert code != 0 and "NbkitError" in said, said
    assert not list(checkout.rglob("PWNED*")) and not list(checkout.parent.rglob("PWNED*"))


def test_a_table_whose_name_has_blanks_is_a_target(checkout):
    text = (checkout / "tables" / "table4.yaml").read_text()
    (checkout / "tables" / "my table + 2.yaml").write_text(text)
    (checkout / "runs").mkdir()
    code, said = snakemake(checkout, "-n", "--", "my table + 2")
    assert code == 0 and "36 runs, 36 to run" in said, said


def test_a_damaged_run_stops_nothing(checkout):
    """Its cell is made again."""
    from nbkit.tables.table import load_table
    from nbkit.train.store import run_folder

    cfg = load_table("table4").cells()[0].config(runs_dir=str(checkout / "runs"))
    folder = run_folder(cfg, "data")
    folder.mkdir(parents=True)
    for harm in ("", "{", "[]", "\0" * 40, '{"cell": 3}'):
        (folder / "metrics.json").write_text(harm)
    code, said = snakemake(checkout, "-n", "--", "table4")
    assert code == 0 and "36 runs, 36 to run" in said, said
