"""Notebooks 01 and 04 through papermill on small, incomplete copies of published benchmarks in
their official layout.

A video benchmark and one of frame folders with stored flow by default: a kernel takes its time to
start.  All of them: NBKIT_ALL_BENCHMARKS=1 python -m pytest tests/test_benchmark_notebooks.py
"""

import json
import os

import nbformat
import pandas as pd
import pytest
from benchmark_trees import write_benchmark
from test_benchmarks import DIRECTIONS

from nbkit.benchmarks.manifest import load_manifest
from nbkit.tables import batch

CHOSEN = (
    DIRECTIONS if os.environ.get("NBKIT_ALL_BENCHMARKS") else ("ucf_hmdb_small", "epic_kitchens")
)
STEPS = {"EPOCHS": [0, 1, 1], "BATCH": 8, "CAS_CLASSES": 2, "NCE_K": 4, "WORKERS": 1}


def executed(notebook, path, parameters, task=None):
    """Run it; returns what its cells printed and showed as text.  A cell that fails raises in
    `execute`.
    """
    batch.execute(notebook, path, parameters, task)
    outputs = [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert any(
        "image/png" in o.get("data", {}) or "image/jpeg" in o.get("data", {}) for o in outputs
    ), "no figure"
    return "\n".join(o.get("text", "") or o.get("data", {}).get("text/plain", "") for o in outputs)


@pytest.mark.parametrize("benchmark", CHOSEN)
def test_looked_at_trained_and_tested(benchmark, tmp_path):
    source, target = DIRECTIONS[benchmark]
    tree = write_benchmark(benchmark, tmp_path / "data" / benchmark, (source, target))
    stored = benchmark == "epic_kitchens"
    shared = {
        "PROFILE": "smoke",
        "BENCHMARK": benchmark,
        "SOURCE": source,
        "TARGET": target,
        "ALLOW_PARTIAL": True,
        "FLOW": "precomputed" if stored else "dis",
        "DATA_ROOT": str(tmp_path / "data"),
    }
    printed = executed("01_data_preparation", tmp_path / "01.ipynb", shared)
    assert f"{benchmark}: {source} (labelled) -> {target} (unlabelled)" in printed
    assert str(tree) in printed and "problem(s) found" in printed, (
        printed
    )  # the copy lacks most videos
    assert ("stored flow" in printed) == stored and "cut.avi: the file is truncated" in printed
    assert "target training labels: [-1, -1" in printed

    printed = executed(
        "04_full_adaptation",
        tmp_path / "04.ipynb",
        {**shared, **STEPS, "RUNS_DIR": str(tmp_path / "runs")},
        task="recognition",
    )
    (metrics,) = tmp_path.glob("runs/*/metrics.json")
    folder, found = metrics.parent, json.loads(metrics.read_text())
    assert (
        folder.name.startswith(f"{benchmark}-{source}-{target}-stcda-s0-")
        and f"run of this machine: {folder.name}" in printed
    )
    classes = len(load_manifest(benchmark).classes)
    assert found["videos"] >= classes and f"on {found['videos']} videos" in printed
    assert f"{classes} classes; chance is {100 / classes:.1f} %" in printed
    assert {line.split()[0] for line in found["partial_data"]} == {source, target} - {
        "arid"
    }  # ARID states no counts
    history = pd.read_csv(folder / "history.csv")
    assert list(history["stage"]) == [2, 3] and history["ce"].notna().all()
    assert {p.stem for p in folder.rglob("*.png")} >= {"training_curves", "accuracy", "confusion"}
