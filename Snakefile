# Every cell of every table is one papermill run of notebook 04 (localization: 05).
#   snakemake --cores 2 demo              what `make demo` does
#   snakemake --cores 2 demo_table4       a whole table: all columns, splits and seeds
#   snakemake --cores 2 table4            the paper's own table, where its data is in data/
#   snakemake -n table2                   what would run: each run, predicted hours and disk
#   snakemake --cores 2 localization      seed 0 of the demo's localization table, then notebook 05
# A finished cell is never repeated; with --keep-going a failed one leaves its executed notebook
# and the rest goes on.
import os
import shlex
import sys
import uuid

from nbkit.errors import NbkitError
from nbkit.tables.cost import needs, total
from nbkit.tables.table import load_table, table_names
from nbkit.train.store import find_run

# Arrays that a training step frees are kept for the next one; no number changes.  See the Makefile.
os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "2147483647")

RUNS = str(config.get("runs_dir", "runs"))
if set("{}") & set(RUNS):
    raise NbkitError(f"runs_dir={RUNS!r}: braces mean something else to Snakemake; leave them out")
# With profiles/gpus every run takes a GPU that no other one holds.
ON = f"profiles/gpus/on_a_gpu {shlex.quote(str(config['gpus']))} " if "gpus" in config else ""
NB = f"{RUNS}/notebooks"
CALL = uuid.uuid4().hex[:8]
DATA = f"{NB}/01_data_preparation.ipynb"
TABLES = {name: load_table(name).cells() for name in table_names()}
CELLS = {cell.key: cell for cells in TABLES.values() for cell in cells}  # tables share cells
FIRST = {cell.key for cells in TABLES.values() for cell in cells if cell.first}
ROWS = ["Source only", "AdaBN", "STCL", "VCA", "STCL+VCA", "Target only"]
DEMO = load_table("demo_table4").cells(seeds=[0], columns=["studio→street"], rows=ROWS)
LOCALIZATION = load_table("demo_localization").cells(seeds=[0])


def runs_of(cells):
    """The metrics of finished runs, and for the other cells a marker that this call alone makes.

    A marker of an earlier call is never looked at: whoever deletes a run has it made again.
    """
    files = []
    for cell in {cell.key: cell for cell in cells}.values():
        folder = find_run(cell.config(runs_dir=RUNS))
        marker = f"{RUNS}/cells/{cell.key}.{CALL}"
        files.append(f"{folder}/metrics.json" if folder else marker)
    return files


def data_of(wildcards):
    """Notebook 01 makes the demo's data; that of other benchmarks lies in data/."""
    return [DATA] if CELLS[wildcards.key].parameters["BENCHMARK"] == "demo" else []


class Say:
    """`{SAY:name}` in a message: what the run of that key needs, or the table of that name."""

    def __format__(self, name):
        if name in TABLES:
            return total(name, needs(TABLES[name], RUNS))
        # A cell that tables share is called as in the table that was asked for.
        asked = [cell for t in workflow.dag_settings.targets for cell in TABLES.get(t, [])]
        cell = {cell.key: cell for cell in asked}.get(name, CELLS[name])
        return needs([cell], RUNS)[0].text


SAY = Say()
localrules: all, demo, figures, localization

rule all:
    input: lambda wildcards: runs_of(CELLS.values())

rule demo:
    input:
        f"{NB}/00_domain_adaptation.ipynb", DATA, f"{NB}/02_stcl.ipynb", f"{NB}/03_vca.ipynb",
        f"{NB}/04_full_adaptation.ipynb", f"{NB}/08_tables.ipynb"

rule figures:
    input: f"{NB}/06_tsne.ipynb", f"{NB}/07_gradcam.ipynb"

rule localization:
    input: f"{NB}/05_localization.ipynb"

for name in TABLES:
    rule:
        name: name
        input: lambda wildcards, name=name: runs_of(TABLES[name])
        message: f"{{SAY:{name}u}}"  # u: as it is; Snakemake takes a last u or q for itself

# Rows marked `first` train the stages that other rows load.
rule first_cell:
    input: data_of
    output: touch(f"{RUNS}/cells/{{key}}.{{call}}")
    wildcard_constraints: key="|".join(FIRST)
    priority: 10
    params: table=lambda wildcards: CELLS[wildcards.key].table
    message: "{SAY:{wildcards.key}}"
    shell:
        "{ON}{sys.executable:q} -m nbkit.cli run {params.table:q} --cell {wildcards.key:q} "
        "--runs-dir {RUNS:q}"

use rule first_cell as cell with:
    wildcard_constraints: key="|".join(CELLS.keys() - FIRST)
    priority: 5

rule data_preparation:
    output: f"{NB}/{{name}}.ipynb"
    wildcard_constraints: name="00_.*|01_.*"
    priority: 20
    shell: "{sys.executable:q} tools/notebooks.py {wildcards.name:q} --runs-dir {RUNS:q}"

# The others wait for the data that notebook 01 renders and caches, or for the runs that they show.
use rule data_preparation as method_notebook with:
    input: DATA
    wildcard_constraints: name="02_.*|03_.*"
    priority: 1

use rule data_preparation as run_notebook with:
    input: lambda wildcards: runs_of(DEMO)
    wildcard_constraints: name="04_.*|06_.*|07_.*|08_.*"
    priority: 1

use rule data_preparation as localization_notebook with:
    input: lambda wildcards: runs_of(LOCALIZATION)
    wildcard_constraints: name="05_.*"
    priority: 1
