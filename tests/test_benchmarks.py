"""Every benchmark in its official layout, small and incomplete, goes the whole way to a result."""

import json

import pandas as pd
import pytest
from benchmark_trees import write_benchmark

from nbkit.benchmarks.check import check_data, format_report
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.tables.report import side_by_side, summary, tidy
from nbkit.tables.right_wrong import VIDEO_COLUMNS
from nbkit.tables.table import load_table
from nbkit.train.domains import load_domains
from nbkit.train.recognition import run

DIRECTIONS = {
    "ucf_hmdb_small": ("ucf", "hmdb"),
    "ucf_hmdb_full": ("hmdb", "ucf"),
    "ucf_olympic": ("olympic", "ucf"),
    "epic_kitchens": ("D2", "D1"),
    "ucfsports_ucf101": ("ucfsports", "ucf101"),
    "jhmdb_ucf101": ("jhmdb", "ucf101"),
    "hmdb_arid": ("hmdb", "arid"),
    "jhmdb_camera": ("static", "moving"),
}


def config(benchmark, folder, **fields):
    source, target = DIRECTIONS[benchmark]
    small = {
        "profile": "smoke",
        "epochs": (0, 1, 1),
        "batch": 8,
        "cas_classes": 2,
        "nce_k": 4,
        "workers": 1,
        "flow": "precomputed" if benchmark == "epic_kitchens" else "dis",
    }
    return RunConfig.make(
        benchmark=benchmark,
        source=source,
        target=target,
        data_root=str(folder / "data"),
        runs_dir=str(folder / "runs"),
        allow_partial=True,
        **{**small, **fields},
    )


@pytest.mark.parametrize("benchmark", DIRECTIONS)
def test_a_partial_copy_goes_the_whole_way(benchmark, tmp_path):
    cfg, root = config(benchmark, tmp_path), tmp_path / "data" / benchmark
    write_benchmark(benchmark, root, (cfg.source, cfg.target))
    report = check_data(benchmark, root)
    text = format_report(report)
    broken = [p for d in (cfg.source, cfg.target) for p in report.problems[d] if p.level != "note"]
    assert not broken and not report.ok and set(report.table["frames"]) == {10}, text
    assert text.count("first 9 decoded") == 2 and ("stored flow" in text) == (
        cfg.data.flow == "precomputed"
    )
    with pytest.raises(NbkitError, match="counts differ|problem"):
        run(cfg.replace(allow_partial=False))
    done = run(cfg)
    steps = {s: len(part) for s, part in done.history.groupby("stage")}
    assert steps == {2: 1, 3: 1} and done.history["ce"].notna().all()
    assert done.metrics["videos"] == len(load_domains(cfg).test["target"]) > 0
    told = json.loads((done.folder / "metrics.json").read_text())["partial_data"]
    stated = {cfg.source, cfg.target} - {
        "arid"
    }  # how many clips of ARID there are depends on the copy
    assert {line.split()[0] for line in told} == stated, told


def test_a_table_of_partial_data_says_so():
    table = load_table("demo_table4")
    found = pd.DataFrame(
        [
            {
                "row": r,
                "column": "studio→street",
                "seed": s,
                "split": 0,
                "fused": 50.0 + s,
                "partial": p,
            }
            for r, s, p in (
                ("Source only", 0, ""),
                ("AdaBN", 0, ""),
                ("AdaBN", 1, "ucf train: 4 of 482"),
            )
        ]
    )
    text = summary(table, found)["studio→street"]
    assert text["AdaBN"].endswith("(2), partial data") and "partial" not in text["Source only"]
    lines = pd.DataFrame(columns=[*VIDEO_COLUMNS, "units"])
    wide = side_by_side(table, found, lines)["studio→street", "ours"]
    assert wide["AdaBN"].endswith(", partial data") and "partial" not in wide["Source only"]
    marked = tidy(table, found, lines).set_index(["column", "row"])["partial"]
    assert marked["studio→street", "AdaBN"] and marked.sum() == 1
