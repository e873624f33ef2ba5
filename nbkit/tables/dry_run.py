"""What Snakemake says of a job: which run it is and, in a dry run (`snakemake -n table2`), what the
run needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from nbkit.errors import NbkitError
from nbkit.tables.table import config_of


class Messages:
    """`{SAY:key}` in a rule's message stands for the run of that key, `{SAY:table}` for a table as
    a whole.

    tables: the cells of every table.  localization: the names of the localization tables, which are
    told as a whole.
    workflow: Snakemake's, which knows whether this is a dry run and what was asked for.
    Snakemake formats a message when it shows the job: nothing is predicted before, and nothing
    unless it is a dry run.
    """

    def __init__(
        self,
        tables: dict[str, list[dict[str, Any]]],
        workflow: Any,
        runs_dir: str = "runs",
        localization: Iterable[str] = (),
    ):
        self.tables, self.workflow, self.runs_dir, self.localization = (
            tables,
            workflow,
            runs_dir,
            set(localization),
        )
        self.predicted = cache(self._predict)

    def __format__(self, key: str) -> str:
        if key in self.localization:
            return self._localization(key) if self.workflow.dryrun else key
        if key in self.tables:
            return self.predicted(key)[key] if self.workflow.dryrun else key
        cell = self._cell(key)
        return self.predicted(cell["table"])[key] if self.workflow.dryrun else _label(cell)

    def _localization(self, name: str) -> str:
        """A localization table's runs in one text, as `nbkit cost` has it."""
        from nbkit.tables.localization_cost import (
            format_localization_costs,
            localization_costs,
        )  # reads torch

        return format_localization_costs(name, localization_costs(name, self.runs_dir))

    def _cell(self, key: str) -> dict[str, Any]:
        """The cell as a table holds it that was asked for: tables share runs."""
        asked = self.workflow.dag_settings.targets
        names = sorted(self.tables, key=lambda name: name not in asked)
        return next(cell for name in names for cell in self.tables[name] if cell["key"] == key)

    def _predict(self, name: str) -> dict[str, str]:
        """Message by key of a table's runs, and that of the table itself: the lines of `nbkit
        cost`.
        """
        from nbkit.tables.cost_report import (
            format_run,
            format_total,
            settings,
            table_costs,
        )  # reads torch: only a dry run pays for it

        try:
            lines = table_costs(name, runs_dir=self.runs_dir)
        except NbkitError as error:
            runs = {
                c["key"]: f"{c['key']}  {_label(c)} | {settings(config_of(c['parameters']))}"
                for c in self.tables[name]
            }
            return {key: f"{text} | not predicted: {error}" for key, text in runs.items()} | {
                name: f"not predicted: {error}"
            }
        return {line.key: format_run(line) for line in lines.itertuples()} | {
            name: format_total(name, lines)
        }


def _label(cell: dict[str, Any]) -> str:
    return f"{cell['row']} | {cell['column']} | seed {cell['seed']} split {cell['split']}"
