"""Which test videos each recognition run had right: what paired intervals need.

`results/<table>.videos.csv` has one line per run: row, column, seed, split, the number of test
videos, `order` (a hash of their names in order: runs of equal `order` were tested on the same
videos in the same order), and one hexadecimal string per stream and for the fused prediction.  Its
bits, most significant first, are the videos in the order of `predictions.csv`: 1 is right.

`results/<table>.tests.csv` says what the videos of an `order` are counted as: one short hash per
video, of its recording (clips of one recording are not independent) or, in the demo, its own name.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nbkit.config import ROOT, digest
from nbkit.errors import NbkitError
from nbkit.tables.table import ACCURACIES, KEY, Cell, Table
from nbkit.train.store import find_run, read_csv

VIDEO_COLUMNS = [*KEY, "videos", "order", *ACCURACIES]
TEST_COLUMNS = ["column", "order", "units"]


class Pairs(NamedTuple):
    """Paired runs for `paired_bootstrap`: right or wrong (videos,) of both rows in each run, the
    units of its videos, its column and its split.
    """

    right_a: list[np.ndarray]
    right_b: list[np.ndarray]
    units: list[list[str]]
    columns: list[str]
    splits: list[int]


# --- bits ----------------------------------------------------------------------------------------
def pack(right: np.ndarray) -> str:
    """Booleans (N,) as hexadecimal digits, first video in the highest bit."""
    return np.packbits(np.asarray(right, dtype=bool)).tobytes().hex()


def unpack(text: str, videos: int) -> np.ndarray:
    """Booleans (videos,) from `pack`'s text; NbkitError where the length does not fit."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    if not videos <= len(bits) < videos + 8:
        raise NbkitError(
            f"{len(text)} hexadecimal digits do not hold {videos} videos; export the table again"
        )
    return bits[:videos].astype(bool)


# --- from runs -----------------------------------------------------------------------------------
def right_wrong(table: Table, runs_dir: str | Path = "runs") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The lines of the two files, from the predictions of the finished runs.

    Rows that share another row's run have no line.  The units need the benchmark's data.
    """
    lines, tests, groups = [], {}, {}
    for cell in table.cells():
        if table.row(cell.row).same_as:
            continue
        folder = find_run(cell.config(runs_dir=str(runs_dir)))
        if folder is None:
            continue
        found = read_csv(folder / "predictions.csv", ("video", "label"), ACCURACIES)
        videos = found["video"].tolist()
        order = digest(videos, 8)
        line = dict(zip(KEY, cell.place)) | {"videos": len(found), "order": order}
        for measure in ACCURACIES:
            if measure in found:
                line[measure] = pack(found[measure] == found["label"])
        lines.append(line)
        if order not in tests:
            units = " ".join(digest(name, 6) for name in _units(cell, videos, groups))
            tests[order] = {"column": cell.column, "order": order, "units": units}
    return (
        pd.DataFrame(lines, columns=VIDEO_COLUMNS),
        pd.DataFrame(tests.values(), columns=TEST_COLUMNS),
    )


def _units(cell: Cell, videos: list[str], groups: dict[str, pd.Series]) -> list[str]:
    """Names of what test videos are counted as.  `groups`: recordings by column, filled here."""
    cfg = cell.config()
    if cfg.benchmark == "demo":
        return videos
    if cell.column not in groups:
        # Here, because it reads the data, and a report of committed results must not.
        from nbkit.train.domains import resolved_videos

        groups[cell.column] = resolved_videos(cfg)[1].set_index("video")["group"]
    return groups[cell.column].loc[videos].tolist()


# --- from results/ -------------------------------------------------------------------------------
def committed_right_wrong(name: str) -> pd.DataFrame:
    """`results/<name>.videos.csv` with the `units` of `<name>.tests.csv`; empty without files."""
    path = ROOT / "results" / f"{name}.videos.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*VIDEO_COLUMNS, "units"])
    lines = read_csv(
        path, [*KEY, "order"], ["videos"], dtype=dict.fromkeys(["order", *ACCURACIES], str)
    )
    tests = read_csv(ROOT / "results" / f"{name}.tests.csv", TEST_COLUMNS, dtype=str)
    units = tests.drop_duplicates("order").set_index("order")["units"]
    return lines.assign(units=lines["order"].map(units))


def pairs(
    table: Table, lines: pd.DataFrame, a: str, b: str, column: str | None = None, measure: str = ""
) -> Pairs:
    """Runs of rows `a` and `b` that pair: same column, seed, split and videos.

    column, measure: as in `Table.runs_of`.
    """
    by_run = []
    for name in (a, b):
        own = table.runs_of(lines, name, column, measure).to_dict("records")
        by_run.append({tuple(line[key] for key in (*KEY[1:], "order")): line for line in own})
    first, second = by_run
    both = [run for run in first if run in second]
    return Pairs(
        [unpack(first[run]["value"], first[run]["videos"]) for run in both],
        [unpack(second[run]["value"], second[run]["videos"]) for run in both],
        [first[run]["units"].split() for run in both],
        [first[run]["column"] for run in both],
        [first[run]["split"] for run in both],
    )
