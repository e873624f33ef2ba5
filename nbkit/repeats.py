"""Runs of this machine beside the committed ones of the same configuration and seed: what a second machine changes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nbkit.result_files import KEY
from nbkit.tables import Table


def repeats(table: Table, committed: pd.DataFrame, here: pd.DataFrame, measure: str = "fused") -> pd.DataFrame:
    """One line a column of the table with runs that repeat a committed one; in points of accuracy.

    committed, here: lines of nbkit.result_files.  A run that was itself committed is no repetition.  `rms` is the root of
    the mean squared difference.  `rms of two seeds` is what to hold it against: the expected one of two different seeds
    of a row, the root of twice the variance between the committed seeds of a row, averaged over the rows that were
    repeated; NaN where none has two.
    """
    own = [row.name for row in table.rows if row.runs and not row.same_as and not row.measure]
    both = committed.merge(here, on=[*KEY, "cell"], suffixes=("", "_here"))
    both = both[both["row"].isin(own) & (both["finished"] != both["finished_here"])].dropna(subset=[measure, f"{measure}_here"])
    out = {}
    for column in (c.name for c in table.columns):
        part, known = both[both["column"] == column], committed[committed["column"] == column]
        if part.empty:
            continue
        gaps = part[f"{measure}_here"] - part[measure]
        between = known[known["row"].isin(part["row"])].groupby(["row", "split"])[measure].var(ddof=1).mean()
        out[column] = {"runs": len(gaps), "mean difference": gaps.mean(), "largest": gaps.abs().max(),
                       "rms": np.sqrt((gaps**2).mean()), "rms of two seeds": np.sqrt(2 * between)}
    return pd.DataFrame.from_dict(out, orient="index")
