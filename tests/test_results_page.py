"""docs/RESULTS.md: its blocks are the generator's, printed numbers stand under their own data."""

import re

import pandas as pd
import pytest

from nbkit.config import ROOT
from nbkit.tables import results as result_files
from nbkit.tables import table as tables
from tools import results_page

TEXT = results_page.PAGE.read_text()
RUN = {"row": "STCL", "column": "studio→street", "split": 0}


def test_the_blocks_are_what_the_generator_writes():
    assert TEXT == results_page.filled(TEXT), "run python -m tools.results_page"
    for path in (ROOT / "tables").glob("*.yaml"):
        assert f"| `{path.stem}` |" in TEXT


def test_a_typed_number_does_not_survive():
    begin = "<!-- results:demo_table4 -->\n"
    typed = TEXT.replace(begin, f"{begin}| STCL+VCA | 99.9 |\n")
    assert typed != TEXT and results_page.filled(typed) == TEXT


def test_results_stand_beside_the_papers_and_not_run_where_nothing_ran(monkeypatch):
    runs = [{**RUN, "seed": s, "fused": v, "rgb": v, "flow": v} for s, v in enumerate((80.0, 82.0))]
    monkeypatch.setattr(result_files, "committed", lambda name: pd.DataFrame(runs))
    text = results_page.results_block("demo_table4")
    line = next(x for x in text.splitlines() if x.startswith("| STCL |"))
    assert "| 81.0 ± 1.4 (2) |" in line and "not run" in line
    assert f"{tables.load_table('demo_table4').row('STCL').printed['studio→street']:.1f}" in line


@pytest.mark.parametrize("name", ["demo_table1", "demo_table3", "demo_table4"])
def test_printed_numbers_stand_under_the_papers_pair_of_domains(name):
    """U→H is no result on studio→street: a heading must not say so."""
    head = results_page.results_block(name).splitlines()[2]
    for column in tables.load_table(name).columns:
        assert f"| paper, {column.printed_as} | ours, {column.name} |" in head
    assert not re.search(r"(studio|street), paper|paper, (studio|street)", TEXT)


def test_links_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert link.startswith("http") or (ROOT / "docs" / link).resolve().exists(), link


def test_a_line_says_where_its_runs_come_from():
    lines = pd.DataFrame(
        {
            "run": ["a", "b", "b"],
            "commit": ["12ab", "34cd+", "34cd+"],
            "device": "some processor, 1 thread",
            "torch": "2.0",
            "train_seconds": [1800.0, 3600.0, 3600.0],
            "finished": ["2026-01-02T10:00:00", "2026-01-01T10:00:00", "2026-01-01T10:00:00"],
        }
    )
    text = results_page.provenance(lines)
    assert text.startswith("2 runs of commits 12ab, 34cd+ (1 of them with `+`); some processor")
    assert text.endswith("1.5 hours of training; 2026-01-01 to 2026-01-02.")
    assert results_page.provenance(lines[:0]) == "No run."
