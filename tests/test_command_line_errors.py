"""What a person may type after `nbkit` ends in an exit code and a line of ours, in every case."""

import pytest

from nbkit.cli import main
from nbkit.config import ROOT

TYPED = [
    ["cost", "no_such"],
    ["cost", "../tables/table4"],
    ["cost", "table4.yaml"],
    ["cost", "table4", "--rows", "no such row"],
    ["cost", "table4", "--columns", ""],
    ["cost", "table4", "--seeds", "99"],
    ["cost", "table4", "--runs-dir", ""],
    ["cost", "table4", "--runs-dir", "~nobody-of-that-name/runs"],
    ["cost", "table4", "--runs-dir", "x" * 300],
    ["cost", "table4", "--runs-dir", str(ROOT / "README.md" / "x")],
    ["run", "table4", "--cell", "0123456789ab"],
    ["run", "table4", "--cell", "../x"],
    ["export", "table4", "--runs-dir", "/proc/1"],
    ["export", "table4", "--format", "docx"],
    ["check-data", "no_such"],
    ["check-data", "../data_manifests/demo"],
    ["check-data", "demo", "--root", "/no/such/folder"],
    ["check-data", "demo", "--root", str(ROOT / "README.md")],
    ["check-data", "README.yaml"],
]


@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_it_is_a_line_of_ours(words, capsys):
    assert main(words) == 1
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out and (shown.err or shown.out)


@pytest.mark.parametrize(
    "error, code", [(OSError(28, "No space left on device"), 1), (MemoryError(), 1),
                    (KeyboardInterrupt(), 130), (BrokenPipeError(), 0)],
)  # fmt: skip
def test_what_the_system_says_is_no_traceback(error, code, monkeypatch, capsys):
    def ends(*_):
        raise error

    monkeypatch.setattr("nbkit.tables.cost.needs", ends)
    monkeypatch.setattr("sys.stdout", __import__("sys").stdout)
    assert main(["cost", "table4"]) == code
    assert "Traceback" not in capsys.readouterr().err
