"""The `nbkit` command: thin subcommands over the functions the notebooks call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from nbkit.config import ROOT
from nbkit.config.profiles import PROFILES
from nbkit.errors import NbkitError


def _check_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("benchmark", help="name of a benchmark, or a manifest file")
    parser.add_argument(
        "--root",
        help="folder that holds the datasets (default: data/BENCHMARK, where runs look, too)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=PROFILES["paper"]["cache_size"],
        help="side of the cached pictures, for the disk estimate (default: the paper profile's, %(default)s)",
    )
    parser.add_argument("--split-seed", type=int, default=0, help="seed of grouped splits")
    parser.add_argument("--quick", action="store_true", help="look at file sizes only")
    parser.add_argument(
        "--all", action="store_true", help="name every problem, however many there are"
    )


def _check_data(arguments: argparse.Namespace) -> int:
    from nbkit.benchmarks.check import LISTED, check_data, format_report
    from nbkit.train.localization_data import benchmark_root

    root = arguments.root or benchmark_root(arguments.benchmark, ROOT / "data")
    watch = _watch if sys.stderr.isatty() else None
    report = check_data(
        arguments.benchmark,
        root,
        size=arguments.size,
        split_seed=arguments.split_seed,
        quick=arguments.quick,
        watch=watch,
    )
    print(format_report(report, listed=10**9 if arguments.all else LISTED))
    return 0 if report.ok else 1


def _watch(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rlooking at files: {done}/{total}", end=end, file=sys.stderr, flush=True)


def _runs_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs-dir", default="runs", help="folder for checkpoints, results and executed notebooks"
    )


def _run_cell_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="a file of tables/, without .yaml")
    parser.add_argument("key", help="key of a cell, as the Snakefile names it")
    _runs_dir(parser)


def _run_cell(arguments: argparse.Namespace) -> int:
    from nbkit.tables.batch import run_cell

    run_cell(arguments.table, arguments.key, arguments.runs_dir)
    return 0


def _run_notebook_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", help="a file of notebooks/, without .ipynb")
    _runs_dir(parser)


def _run_notebook(arguments: argparse.Namespace) -> int:
    from nbkit.tables.batch import run_notebook

    print(run_notebook(arguments.notebook, arguments.runs_dir))
    return 0


def _run_table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="a file of tables/, without .yaml")
    parser.add_argument("--rows", nargs="*", help="only these rows")
    parser.add_argument("--columns", nargs="*", help="only these columns")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these seeds")
    _runs_dir(parser)


def _run_table(arguments: argparse.Namespace) -> int:
    from nbkit.tables.batch import run_table

    return run_table(
        arguments.table, arguments.rows, arguments.columns, arguments.seeds, arguments.runs_dir
    )


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="a file of tables/, without .yaml")
    lacking = parser.add_mutually_exclusive_group()
    lacking.add_argument(
        "--add",
        dest="existing",
        action="store_const",
        const="add",
        default="refuse",
        help="keep the lines of the file as they are, and add what these runs have beyond them",
    )
    lacking.add_argument(
        "--replace",
        dest="existing",
        action="store_const",
        const="replace",
        help="write these runs only, also where the file holds results that are not among them",
    )
    _runs_dir(parser)


def _export_results_arguments(parser: argparse.ArgumentParser) -> None:
    _export_arguments(parser)
    parser.add_argument(
        "--format",
        choices=["md", "tex", "csv"],
        help="write results/formatted/TABLE.FORMAT from results/",
    )
    parser.add_argument("--all-formats", action="store_true", help="the same in all three formats")


def _export(arguments: argparse.Namespace) -> int:
    from nbkit.tables.batch import export
    from nbkit.tables.export import FORMATS, export_formatted

    if arguments.format or arguments.all_formats:
        formats = FORMATS if arguments.all_formats else (arguments.format,)
        print(*export_formatted(arguments.table, formats), sep="\n")
    else:
        print(*export(arguments.table, arguments.runs_dir, arguments.existing), sep="\n")
    return 0


def _run_localization_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="a file of tables/localization/, without .yaml")
    parser.add_argument("--rows", nargs="*", help="only these rows")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these seeds")
    parser.add_argument(
        "--directions", nargs="*", help="only these, written source→target or source:target"
    )
    _runs_dir(parser)


def _run_localization(arguments: argparse.Namespace) -> int:
    from nbkit.tables.localization_tables import run_localization

    return run_localization(
        arguments.table, arguments.rows, arguments.seeds, arguments.directions, arguments.runs_dir
    )


def _export_localization(arguments: argparse.Namespace) -> int:
    from nbkit.tables.localization_tables import export_localization

    print(export_localization(arguments.table, arguments.runs_dir, arguments.existing))
    return 0


def _cost_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="a file of tables/ or tables/localization/, without .yaml")
    parser.add_argument(
        "--gpu",
        default="A100",
        help="whose published peak the estimate rests on: A100, H100, H200, V100, "
        "RTX4090; localization tables have hours on a CPU only",
    )
    parser.add_argument(
        "--utilisation", type=float, default=0.25, help="assumed share of that peak, in (0, 1]"
    )
    _runs_dir(parser)


def _cost(arguments: argparse.Namespace) -> int:
    from nbkit.tables.cost_report import format_costs, table_costs
    from nbkit.tables.cost_speed import Machine
    from nbkit.tables.localization_cost import format_localization_costs, localization_costs
    from nbkit.tables.localization_tables import localization_tables

    if arguments.table in localization_tables():
        print(
            format_localization_costs(
                arguments.table, localization_costs(arguments.table, arguments.runs_dir)
            )
        )
        return 0
    machine = Machine(arguments.gpu, arguments.utilisation)
    lines = table_costs(arguments.table, machine, arguments.runs_dir)
    print(format_costs(arguments.table, lines, machine))
    return 0


# name -> (help, function that adds arguments, function that runs it and returns the exit code)
COMMANDS: dict[str, tuple[str, Callable, Callable]] = {
    "check-data": (
        "say what of a benchmark's data is there, missing or broken",
        _check_data_arguments,
        _check_data,
    ),
    "cost": (
        "list a table's runs with their configuration, predicted hours and disk",
        _cost_arguments,
        _cost,
    ),
    "run-cell": (
        "execute one cell of a table unless it is finished",
        _run_cell_arguments,
        _run_cell,
    ),
    "run-notebook": (
        "execute one notebook with its own parameters",
        _run_notebook_arguments,
        _run_notebook,
    ),
    "run-table": (
        "run a table's cells one after another in this process, without notebooks",
        _run_table_arguments,
        _run_table,
    ),
    "run-localization": (
        "run a localization table's cells one after another",
        _run_localization_arguments,
        _run_localization,
    ),
    "export-localization": (
        "write a localization table's finished cells to results/TABLE.csv",
        _export_arguments,
        _export_localization,
    ),
    "export-results": (
        "write a table's finished cells to results/, or what is there as Markdown, LaTeX or CSV",
        _export_results_arguments,
        _export,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code (0 fine, 1 a problem that is named on the way)."""
    parser = argparse.ArgumentParser(prog="nbkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add_arguments, run) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        add_arguments(sub)
        sub.set_defaults(run=run)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except NbkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
