"""Runs of this machine beside the committed ones of the same configuration and seed: what a second
machine changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nbkit.tables.table import Table


def repeats(
    table: Table, committed: pd.DataFrame, here: pd.DataFrame, measure: str = "fused"
) -> pd.DataFrame:
    """`repeated` for the lines of a recognition table: one line a column; rows that share a run or
    a stream's run count once.
    """
    own = [row.name for row in table.rows if row.runs and not row.same_as and not row.measure]
    found = repeated(committed[committed["row"].isin(own)], here, measure, ["column"], "cell")
    return found.reindex([c.name for c in table.columns if c.name in found.index])


def repeated(
    committed: pd.DataFrame, here: pd.DataFrame, measure: str, by: Sequence[str], cell: str
) -> pd.DataFrame:
    """How far runs end from the committed runs that they repeat, one line for each value of the
    columns `by`; in points.

    committed, here: lines of results; `cell` is the column that names the configuration.  A run
    that was itself committed is no repetition.  `rms` is the root of the mean squared difference.
    `rms of two seeds` is what to hold it against: the expected one of two different seeds of a row,
    the root of twice the variance between the committed seeds of a row, averaged over the rows that
    were repeated; NaN where none has two.
    """
    both = committed.merge(here, on=[*by, "row", "seed", "split", cell], suffixes=("", "_here"))
    both = both[both["finished"] != both["finished_here"]].dropna(
        subset=[measure, f"{measure}_here"]
    )
    out = {}
    for place, part in both.groupby(list(by), sort=False):
        rows = committed.merge(part[[*by, "row"]].drop_duplicates())
        gaps, between = (
            part[f"{measure}_here"] - part[measure],
            rows.groupby(["row", "split"])[measure].var(ddof=1).mean(),
        )
        out["→".join(place)] = {
            "runs": len(gaps),
            "mean difference": gaps.mean(),
            "largest": gaps.abs().max(),
            "rms": np.sqrt((gaps**2).mean()),
            "rms of two seeds": np.sqrt(2 * between),
        }
    return pd.DataFrame.from_dict(out, orient="index")
