# Every cell of every table is one papermill run of notebook 04; Snakemake schedules them.
#   snakemake --cores 2 demo           what `make demo` does
#   snakemake --cores 2 demo_table4    a whole table: all directions, splits and seeds
#   snakemake --cores 2 table4         the paper's own table, where its data is in data/
#   snakemake -n table2                what would run: each run, its configuration, predicted hours and disk
#   snakemake --cores 2 demo_localization  a localization table; snakemake -n demo_localization lists its runs
#   snakemake --cores 2 localization   seed 0 of the demo's localization table, both directions, then notebook 05
# A finished cell is never repeated; with --keep-going a failed one leaves its executed notebook and the rest goes on.
import json
import sys
from pathlib import Path

import yaml

from nbkit.tables.dry_run import Messages
from nbkit.tables.table import load_table

RUNS = config.get("runs_dir", "runs")
NB = f"{RUNS}/notebooks"
TABLES = {name: load_table(name).cells() for name in sorted(p.stem for p in Path("tables").glob("*.yaml"))}
# read as plain YAML: the checked reader imports torch, which would cost every call of snakemake seconds
LOCALIZATION = {p.stem: yaml.safe_load(p.read_text()) for p in sorted(Path("tables/localization").glob("*.yaml"))}
SAY = Messages(TABLES, workflow, RUNS, LOCALIZATION)
CELLS = {}
for cell in (cell for cells in TABLES.values() for cell in cells):  # tables share cells
    cell["first"] = cell["first"] or CELLS.get(cell["key"], cell)["first"]
    CELLS[cell["key"]] = cell
for marker in Path(RUNS, "cells").glob("*.json"):  # of a run that was deleted since: it is to be made again
    if not Path(RUNS, json.loads(marker.read_text()).get("run", ""), "metrics.json").exists():
        marker.unlink()
DEMO = load_table("demo_table4").cells(
    seeds=[0], columns=["studio→street"], rows=["Source only", "AdaBN", "STCL", "VCA", "STCL+VCA", "Target only"])


def markers(cells):
    return list(dict.fromkeys(f"{RUNS}/cells/{cell['key']}.json" for cell in cells))


def localization_markers(name, seeds=None):
    table = LOCALIZATION[name]
    return [f"{RUNS}/localization/.{name}-{source}:{target}-s{seed}"
            for seed in seeds or table["seeds"] for source, target in table["directions"]]


localrules: all

rule all:
    input:
        [markers(cells) for cells in TABLES.values()],
        [localization_markers(name) for name in LOCALIZATION]

rule demo:
    input:
        f"{NB}/01_data_preparation.ipynb", f"{NB}/02_stcl.ipynb", f"{NB}/03_vca.ipynb",
        f"{NB}/04_full_adaptation.ipynb", f"{NB}/08_tables.ipynb"

rule figures:
    input: f"{NB}/06_tsne.ipynb", f"{NB}/07_gradcam.ipynb"

for name, cells in TABLES.items():
    rule:
        name: name
        message: f"{{SAY:{name}u}}"  # u: as it is, Snakemake takes a last u or q for itself
        input: markers(cells)

def data_of(wildcards):  # the demo's data is made by notebook 01; the other benchmarks' lies in data/
    demo = CELLS[wildcards.key]["parameters"].get("BENCHMARK") == "demo"
    return [f"{NB}/01_data_preparation.ipynb"] if demo else []


# Rows marked `first` train the stages that other rows load.
rule first_cell:
    input: data_of
    output: f"{RUNS}/cells/{{key}}.json"
    wildcard_constraints: key="|".join(k for k, c in CELLS.items() if c["first"])
    priority: 10
    params: table=lambda w: CELLS[w.key]["table"]
    message: "{SAY:{wildcards.key}}"
    shell: "{sys.executable} -m nbkit.cli run-cell {params.table} {wildcards.key} --runs-dir {RUNS}"

use rule first_cell as cell with:
    wildcard_constraints: key="|".join(k for k, c in CELLS.items() if not c["first"])
    priority: 5

rule prepare:
    output: f"{NB}/{{name}}.ipynb"
    wildcard_constraints: name="01_.*"
    priority: 20
    shell: "{sys.executable} -m nbkit.cli run-notebook {wildcards.name} --runs-dir {RUNS}"

# The others wait for the data that notebook 01 renders and caches.
use rule prepare as notebook with:
    input: f"{NB}/01_data_preparation.ipynb"
    wildcard_constraints: name="02_.*|03_.*"
    priority: 1

use rule prepare as adaptation with:
    input: markers(DEMO)
    wildcard_constraints: name="04_.*|06_.*|07_.*|08_.*"
    priority: 1

# Localization runs are many and short: one process a direction and seed, which skips what is finished.
for name in LOCALIZATION:
    rule:
        name: name
        message: f"{{SAY:{name}u}}"
        input: localization_markers(name)

rule localization_runs:
    # A new row, or a new version of the numbers, is run; what is finished is only looked up.
    input: "tables/localization/{table}.yaml", "nbkit/train/localization_cells.py"
    output: touch(f"{RUNS}/localization/.{{table}}-{{direction}}-s{{seed}}")
    wildcard_constraints: table="|".join(LOCALIZATION), seed=r"\d+"
    priority: 5
    message: "{wildcards.table} | {wildcards.direction} | seed {wildcards.seed}"
    shell: "{sys.executable} -m nbkit.cli run-localization {wildcards.table} --seeds {wildcards.seed} "
           "--directions {wildcards.direction} --runs-dir {RUNS}"

rule localization:
    input: f"{NB}/05_localization.ipynb"

use rule prepare as localization_notebook with:
    input: localization_markers("demo_localization", seeds=[0])
    wildcard_constraints: name="05_.*"
    priority: 1
