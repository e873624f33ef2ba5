"""Which test videos each run had right: the compact file `results/<table>.videos.csv` that paired
intervals need.

One line a run: row, column, seed, split, the number of test videos, `order` (a hash of their names
in order: runs with the same `order` were tested on the same videos in the same order), and for each
stream and the fused prediction one hexadecimal string.  Its bits, most significant first, are the
videos in the order of `predictions.csv`: 1 is right. The last digits are padded with zeros.  320
videos are 80 characters.

`results/<table>.tests.csv` says what the videos of an `order` are counted as: one short hash a
video, of its recording (clips of one recording are not independent), or of its name where each is
its own, as in the demo.  Orders that share a hash share that unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nbkit.config import ROOT, digest
from nbkit.errors import NbkitError
from nbkit.tables.results import KEY
from nbkit.tables.table import MEASURES, Table, config_of, find_run
from nbkit.train.domains import load_table

COLUMNS = [*KEY, "videos", "order", *MEASURES]


class Pairs(NamedTuple):
    """Paired runs, ready for `paired_bootstrap`: right or wrong (videos,) of both rows, units,
    column and split of each.
    """

    right_a: list[np.ndarray]
    right_b: list[np.ndarray]
    units: list[list[str]]
    columns: list[str]
    splits: list[int]


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


def right_wrong(table: Table, runs_dir: str | Path = "runs") -> pd.DataFrame:
    """The file's lines, from the predictions of the finished runs; rows that share a run with
    another have no line.
    """
    lines = []
    for cell in table.cells():
        folder = (
            None
            if table.row(cell["row"]).same_as
            else find_run(config_of(cell["parameters"], runs_dir=str(runs_dir)))
        )
        if folder is None:
            continue
        found = pd.read_csv(folder / "predictions.csv")
        lines.append(
            {
                **{k: cell[k] for k in KEY},
                "videos": len(found),
                "order": digest(found["video"].tolist(), 8),
                **{m: pack(found[m] == found["label"]) for m in MEASURES if m in found},
            }
        )
    return pd.DataFrame(lines, columns=COLUMNS)


def units_of_tests(table: Table, runs_dir: str | Path = "runs") -> pd.DataFrame:
    """One line a test set of the finished runs: column, order, and its units, separated by blanks.

    Needs the benchmark's data, to know the recordings; NbkitError where they are missing.
    """
    lines, groups = {}, {}
    for cell in table.cells():
        cfg = config_of(cell["parameters"], runs_dir=str(runs_dir))
        folder = find_run(cfg)
        if folder is None:
            continue
        videos = pd.read_csv(folder / "predictions.csv", usecols=["video"])["video"].tolist()
        order = digest(videos, 8)
        if order in lines:
            continue
        if cfg.benchmark != "demo":  # each of its videos is rendered on its own
            if cell["column"] not in groups:
                groups[cell["column"]] = load_table(cfg)[1].set_index("video")["group"]
            names = groups[cell["column"]].loc[videos].tolist()
        else:
            names = videos
        lines[order] = {
            "column": cell["column"],
            "order": order,
            "units": " ".join(digest(n, 6) for n in names),
        }
    return pd.DataFrame(lines.values(), columns=["column", "order", "units"])


def committed_right_wrong(name: str) -> pd.DataFrame:
    """`results/<name>.videos.csv` with the `units` of `<name>.tests.csv`; empty when there is none."""
    path, tests = (ROOT / "results" / f"{name}.{kind}.csv" for kind in ("videos", "tests"))
    if not path.exists():
        return pd.DataFrame(columns=[*COLUMNS, "units"])
    lines = pd.read_csv(path, dtype=dict.fromkeys(["order", *MEASURES], str))
    units = pd.read_csv(tests, dtype=str).drop_duplicates("order").set_index("order")["units"]
    return lines.assign(units=lines["order"].map(units))


def committed_videos(name: str, found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the two files hold of the runs in `found` (the committed results): lines of runs, and
    lines of test sets.
    """
    lines, runs = committed_right_wrong(name), set(found[KEY].itertuples(index=False, name=None))
    lines = lines[[k in runs for k in lines[KEY].itertuples(index=False, name=None)]]
    return lines[COLUMNS], lines[["column", "order", "units"]].drop_duplicates("order")


def pairs(
    table: Table,
    lines: pd.DataFrame,
    a: str,
    b: str,
    column: str | None = None,
    measure: str = "fused",
) -> Pairs:
    """Right or wrong of rows `a` and `b` in runs that pair (same column, seed, split, videos).

    column: None pairs over all columns.
    """
    sides = []
    for name in (a, b):
        row = table.row(name)
        own = lines[lines["row"] == (row.same_as or row.name)]
        own = own if column is None else own[own["column"] == column]
        stream = row.measure or measure
        own = own[own[stream].notna()]
        sides.append(
            {
                (r["column"], r["split"], r["order"], r["seed"], r["units"]): unpack(
                    r[stream], r["videos"]
                )
                for r in own.to_dict("records")
            }
        )
    both = [key for key in sides[0] if key in sides[1]]
    return Pairs(
        [sides[0][k] for k in both],
        [sides[1][k] for k in both],
        [k[4].split() for k in both],
        [k[0] for k in both],
        [k[1] for k in both],
    )
