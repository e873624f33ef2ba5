"""The `nbkit` command: five verbs over the functions that the notebooks call."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from nbkit.config import RECOGNITION, ROOT
from nbkit.errors import NbkitError, reason


def _check_data(arguments: argparse.Namespace) -> int:
    # Each verb imports what it needs: a command line that loads torch takes seconds to say "no".
    from nbkit.benchmarks.check import LISTED, check_data, format_report
    from nbkit.train.localization_data import benchmark_root

    report = check_data(
        arguments.benchmark,
        arguments.root or benchmark_root(arguments.benchmark, ROOT / "data"),
        size=arguments.size,
        split_seed=arguments.split_seed,
        quick=arguments.quick,
        watch=_watch if sys.stderr.isatty() else None,
    )
    listed = sys.maxsize if arguments.all else LISTED
    print(format_report(report, listed=listed))
    return 0 if report.ok else 1


def _watch(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rlooking at files: {done}/{total}", end=end, file=sys.stderr, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    from nbkit.tables.batch import run_cell, run_table

    if arguments.cell:
        run_cell(arguments.table, arguments.cell, arguments.runs_dir)
        return 0
    chosen = (arguments.rows, arguments.columns, arguments.seeds)
    return run_table(arguments.table, *chosen, arguments.runs_dir)


def _export(arguments: argparse.Namespace) -> int:
    from nbkit.tables.report import export_formatted
    from nbkit.tables.results import export

    if arguments.format:
        paths = export_formatted(arguments.table, arguments.format)
    else:
        paths = export(arguments.table, arguments.runs_dir, arguments.existing)
    print(*paths, sep="\n")
    return 0


def _cost(arguments: argparse.Namespace) -> int:
    from nbkit.tables.cost import needs, total
    from nbkit.tables.table import load_table

    table = load_table(arguments.table)
    cells = table.cells(arguments.seeds, arguments.columns, arguments.rows)
    found = needs(cells, arguments.runs_dir)
    print(*(need.text for need in found), "", total(arguments.table, found), sep="\n")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    return subprocess.call([sys.executable, ROOT / "tools" / "doctor.py"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nbkit", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    check = verbs.add_parser("check-data", help="say what of a benchmark's data is there or broken")
    check.set_defaults(function=_check_data)
    check.add_argument("benchmark", help="name of a benchmark, or a manifest file")
    check.add_argument("--root", help="folder of the datasets (default: data/BENCHMARK)")
    size_help = "side of the cached pictures, for the disk estimate (default: %(default)s)"
    check.add_argument(
        "--size", type=int, default=RECOGNITION["paper"]["cache_size"], help=size_help
    )
    check.add_argument("--split-seed", type=int, default=0, help="seed of grouped splits")
    check.add_argument("--quick", action="store_true", help="look at file sizes only")
    check.add_argument("--all", action="store_true", help="name every problem")

    run = verbs.add_parser("run", help="run a table's unfinished cells, one after another")
    run.set_defaults(function=_run)
    run.add_argument("--cell", metavar="KEY", help="execute this cell alone, in its notebook")

    export = verbs.add_parser("export", help="write a table's finished cells to results/")
    export.set_defaults(function=_export, existing="refuse")
    lacking = export.add_mutually_exclusive_group()
    add = {"action": "store_const", "dest": "existing"}
    keep_help, drop_help = "keep the file's lines, add what they lack", "drop the file's lines"
    lacking.add_argument("--add", const="add", help=keep_help, **add)
    lacking.add_argument("--replace", const="replace", help=drop_help, **add)
    format_help = "write results/formatted/TABLE.FORMAT from results/ instead"
    export.add_argument("--format", nargs="+", metavar="md|tex|csv", help=format_help)

    cost = verbs.add_parser("cost", help="list a table's runs with predicted hours and disk")
    cost.set_defaults(function=_cost)

    doctor = verbs.add_parser("doctor", help="say what of this installation is wrong")
    doctor.set_defaults(function=_doctor)

    for verb in (run, export, cost):
        verb.add_argument("table", help="a file of tables/, without .yaml")
        verb.add_argument("--runs-dir", default="runs", help="folder of the runs")
    for verb in (run, cost):
        verb.add_argument("--rows", nargs="+", help="only these rows")
        verb.add_argument("--columns", nargs="+", help="only these columns")
        verb.add_argument("--seeds", nargs="+", type=int, help="only these seeds")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 fine, 1 a problem that is named on the way)."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.function(arguments)
    except (NbkitError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # `| head` has read enough
            sys.stdout = None
            return 0
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
