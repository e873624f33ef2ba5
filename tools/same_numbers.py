"""Compare the runs of two states of the code: `python tools/same_numbers.py BEFORE AFTER`.

BEFORE and AFTER are folders of runs (RUNS_DIR).  A run of one is paired with the run of the other
that has the same name up to its hash and the same configuration, as far as both states know its
fields.  Predictions of recognition runs and detections of localization runs are compared entry by
entry.  Exit status 1 where a pair differs, or where there is none.

What a rebuilt package is compared on, one thread per run:

    export OMP_NUM_THREADS=1
    nbkit run demo_table4 --seeds 0
    nbkit run demo_table3 --seeds 0 --columns "studio→street" --rows MMD MCD "MM-SADA (RGB)"
    nbkit run demo_table1 --seeds 0 --columns "studio→street" \
        --rows "DAAA (R)" "TA3N (R)" "TCoN (R+F)" "TCoN (R), TRN" "STCDA (R)"
    nbkit run demo_table2 --seeds 0 --columns "studio→street" --rows "SAVA (R)"
    nbkit run demo_localization --seeds 0 --columns "studio→street" --rows AdaBN "all three"
    nbkit run jhmdb_camera --seeds 0 --columns "static→moving" --rows "STCL+VCA"
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

# What tells nothing of a run's numbers, or was named otherwise in one of the states.
IGNORED = {"data_root", "runs_dir", "device", "workers", "progress", "eval_every", "profile"}


def runs_below(folder: Path) -> dict[Path, dict[str, Any]]:
    """Configuration of every finished run below `folder`."""
    found = {}
    for metrics in sorted(folder.rglob("metrics.json")):
        found[metrics.parent] = json.loads((metrics.parent / "config.json").read_text())
    return found


def same_configuration(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether all fields that both have are equal."""
    shared = (set(one) & set(other)) - IGNORED
    return all(json.dumps(one[name]) == json.dumps(other[name]) for name in shared)


def difference(before: Path, after: Path) -> str:
    """What differs between two runs of one configuration; '' for nothing."""
    if (before / "predictions.csv").exists():
        old, new = (pd.read_csv(folder / "predictions.csv") for folder in (before, after))
        wrong = [column for column in old if not old[column].equals(new.get(column))]
        return ", ".join(wrong)
    old, new = (np.load(folder / "detections.npz") for folder in (before, after))
    names = ("video", "frame", "label", "score", "box")
    return ", ".join(name for name in names if not np.array_equal(old[name], new[name]))


def main(before: str, after: str) -> int:
    """Print one line per pair; return the exit status."""
    old_runs, new_runs = runs_below(Path(before)), runs_below(Path(after))
    compared = differing = 0
    for new, config in new_runs.items():
        name = new.name.rpartition("-")[0]
        for old, earlier in old_runs.items():
            if old.name.rpartition("-")[0] != name or not same_configuration(earlier, config):
                continue
            found = difference(old, new)
            compared += 1
            differing += bool(found)
            print(f"{new.name}: {f'DIFFERS in {found}' if found else 'identical'}")
    print(f"{compared} pairs compared, {differing} differ")
    return int(differing > 0 or compared == 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
