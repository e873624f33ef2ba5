"""`nbkit cost` for a localization table: its runs, and the time that the table's committed runs
took.
"""

from __future__ import annotations

import pandas as pd

from nbkit.tables.localization_tables import committed, load_localization_table


def localization_costs(name: str, runs_dir: str = "runs") -> pd.DataFrame:
    """One line a run: row, direction, seed, split, status ('done' or 'to run'), size, steps, and
    hours on one CPU thread.

    hours: seconds a step times steps, and seconds of evaluation, as the median of the table's
    committed runs of the same row has them, of all its rows where this one has none; NaN where the
    table has no committed run.  AdaBN trains nothing: its weights are the baseline's.  A run that
    is done costs nothing.
    """
    table, lines = load_localization_table(name), []
    known = committed(table)
    known = known.assign(
        per_step=(known["train_seconds"] / known["steps"]).where(known["row"] != "AdaBN")
    )
    for row, cell in table.cells(runs_dir=runs_dir):
        own = known[known["row"] == row.name]
        found = (known if own.empty else own)[["per_step", "evaluate_seconds"]].median()
        training = 0.0 if row.row == "AdaBN" else found["per_step"] * cell.optim.steps
        hours = 0.0 if cell.finished else (training + found["evaluate_seconds"]) / 3600
        lines.append(
            {
                "row": row.name,
                "direction": f"{cell.source}→{cell.target}",
                "seed": cell.seed,
                "split": cell.split_seed,
                "status": "done" if cell.finished else "to run",
                "size": cell.detector.size,
                "steps": cell.optim.steps,
                "hours": hours,
            }
        )
    return pd.DataFrame(lines)


def format_localization_costs(name: str, lines: pd.DataFrame) -> str:
    """The list, the total, and what the hours rest on."""
    to_run = lines[lines["status"] == "to run"]
    if to_run["hours"].isna().any():
        total = "hours not predicted: the table has no committed run to take them from"
    else:
        total = f"{to_run['hours'].sum():.1f} h on one CPU thread, as the runs of results/{name}.csv took"
    return "\n".join(
        [
            f"{name}: {len(lines)} runs, {len(to_run)} to run",
            *map(_format_run, lines.itertuples()),
            "",
            f"to run: {total}",
        ]
    )


def _format_run(r) -> str:
    hours = "hours not predicted" if pd.isna(r.hours) else f"CPU {r.hours:.2f} h"
    return f"{r.row} | {r.direction} | seed {r.seed} split {r.split} | {r.status} | {r.size}, {r.steps} steps | {hours}"
