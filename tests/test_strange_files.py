"""Tables and manifests from a stranger: names, YAML that is not plain, values without end, keys
that are given twice.  Every attack ends in our error, quickly, and nothing is run or written.
"""

import shutil
import time

import papermill
import pytest
import yaml

import nbkit.tables.table
from nbkit.benchmarks.manifest import MANIFEST_DIR, load_manifest
from nbkit.cli import main
from nbkit.config import ROOT
from nbkit.errors import NbkitError
from nbkit.files import read_yaml
from nbkit.tables.batch import execute
from nbkit.tables.table import load_table

TABLE = yaml.safe_load((ROOT / "tables" / "jhmdb_camera.yaml").read_text())
MANIFEST = yaml.safe_load((MANIFEST_DIR / "jhmdb_camera.yaml").read_text())
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """`table(text, name)`: load a table of this text, in a folder of tables of its own."""
    monkeypatch.setattr(nbkit.tables.table, "ROOT", tmp_path)
    (tmp_path / "tables").mkdir()

    def load(text, name="own"):
        (tmp_path / "tables" / f"{name}.yaml").write_bytes(
            text if isinstance(text, bytes) else text.encode()
        )
        return load_table(name).cells()

    return load


def changed(base, **values):
    """A table's or a manifest's text with other values."""
    return yaml.safe_dump({**base, **values}, sort_keys=False, allow_unicode=True)


# --- YAML ----------------------------------------------------------------------------------------
ODD = {
    "bomb": BOMB,
    "an alias of itself": "a: &a [*a]\n",
    "deep brackets": "a: " + "[" * 100_000,
    "deep brackets that close": "a: " + "[" * 500 + "]" * 500,
    "deep dashes": "a:\n " + "- " * 50_000 + "x",
    "deep braces": "a: " + "{b: " * 40 + "1" + "}" * 40,
    "binary": "a: !!binary aW1wb3J0\n",
    "python": "a: !!python/object/apply:os.system [ls]\n",
    "set": "a: !!set {x, y}\n",
    "ordered map": "a: !!omap [x: 1]\n",
    "own tag": "a: !mine 3\n",
    "a list as key": "? [a, b]\n: 3\n",
    "twice": "a: 1\nb: 2\na: 3\n",
    "twice, quoted": "a: 1\n'a': 2\n",
    "twice, in a mapping in a list": "a:\n  - {b: 1, c: 2, b: 3}\n",
    "twice, beside a merge": "x: &x {b: 1}\na:\n  <<: *x\n  c: 1\n  c: 2\n",
    "a list": "- a\n",
    "a text": "hello\n",
    "nothing": "",
    "two documents": "a: 1\n---\nb: 2\n",
    "tab": "a:\n\t- b\n",
    "not UTF-8": b"a: caf\xe9\n",
    "a null byte": b"a: \0\n",
    "endless": b"a: " + b"x" * (1 << 20),
    "a long number": "a: !!int " + "9" * 10_000,
}


@pytest.mark.parametrize("what", ODD)
def test_odd_yaml_is_refused_in_no_time(what, tmp_path, table):
    path, text = tmp_path / "own.yaml", ODD[what]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.perf_counter()
    for read in (read_yaml, load_manifest, lambda path: table(text)):
        with pytest.raises(NbkitError, match="own.yaml"):
            read(path)
    assert time.perf_counter() - started < 5


def test_the_line_of_a_key_that_is_given_twice_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("fps: 25\ntitle: x\nfps: 30\n")
    with pytest.raises(NbkitError, match=r"(?s)a.yaml.*'fps' is given twice.*line 3"):
        read_yaml(tmp_path / "a.yaml")


def test_what_looks_like_a_date_an_octal_or_a_time_stays_what_was_written(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 2024-01-01\nb: 010\nc: 1:30\nd: 10\ne: -3\nf: 1.5\ng: ~\n")
    read = read_yaml(tmp_path / "a.yaml")
    assert read == dict(a="2024-01-01", b="010", c="1:30", d=10, e=-3, f=1.5, g=None)


def test_every_file_of_the_project_reads_as_before():
    for path in [*(ROOT / "tables").glob("*.yaml"), *MANIFEST_DIR.glob("*.yaml")]:
        assert read_yaml(path) == yaml.safe_load(path.read_text())


def test_aliases_that_end_are_allowed(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: [*a, *a]\n")
    assert read_yaml(tmp_path / "a.yaml")["c"] == {"b": 1, "d": 2}


# --- names ---------------------------------------------------------------------------------------
EVIL = [
    "../x", "/x", "a/b", "a\\b", ".x", "", " x", "a;b", "$(id)", "`id`", "a|b", "a&b", "a\nb",
    "{a}", "[a]", "a*", "a?", "'a'", '"a"', "~", "-rf", "--config", "a\0b", "x" * 64,
]  # fmt: skip


@pytest.mark.parametrize("name", EVIL, ids=repr)
def test_no_name_of_a_file_or_domain_leaves_its_folder(name, tmp_path, table, capsys):
    with pytest.raises(NbkitError):
        load_table(name)
    with pytest.raises(NbkitError):
        table(changed(TABLE, name=name))
    with pytest.raises(NbkitError):
        table(changed(TABLE, columns=[{"name": "a", "set": {"SOURCE": name, "TARGET": "moving"}}]))
    with pytest.raises(NbkitError):
        execute(name, tmp_path / "out.ipynb", {})
    domains = {name: MANIFEST["domains"]["static"], "moving": MANIFEST["domains"]["moving"]}
    for text in (
        changed(MANIFEST, benchmark=name),
        changed(MANIFEST, domains=domains, directions=[[name, "moving"]]),
    ):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(NbkitError):
            load_manifest(tmp_path / "mine.yaml")
    if "\0" not in name:
        for verb in (["export"], ["cost"], ["run"], ["export", "--format", "md"]):
            try:
                assert main([verb[0], "--", name]) == 1
            except SystemExit as stopped:  # argparse takes it for an option
                assert stopped.code == 2
    assert not [p for p in tmp_path.parent.glob("x*")]


@pytest.mark.parametrize(
    "label", ["$(id)", "`id`", "a;b", "a|b", "{x}", "a\nb", 'a"b', "a\\b", "", "x" * 81]
)
def test_no_row_or_column_holds_what_a_shell_reads(label, table):
    for part in ("rows", "columns"):
        with pytest.raises(NbkitError, match="cannot name a row or a column"):
            table(changed(TABLE, **{part: [{"name": label}]}))


def test_another_name_than_the_files_is_refused(table):
    with pytest.raises(NbkitError, match="'other' is not the file's"):
        table(changed(TABLE, name="other"))


@pytest.mark.parametrize(
    "values",
    [
        {"SEED": 3}, {"SPLIT_SEED": 1}, {"RUNS_DIR": "/etc"}, {"alpha": 1.0}, {"Alpha": 1.0},
        {"ALPHA": {"a": 1}}, {"ALFA": 1}, {"ALPHA=1;import os": 1}, {"ALPHA": "x'); import os"},
    ],
)  # fmt: skip
def test_a_table_sets_parameters_only(values, table):
    with pytest.raises(NbkitError):
        table(changed(TABLE, set={**TABLE["set"], **values}))


def test_seeds_of_a_table_are_seeds(table):
    for seeds in ([-1], [2**40], ["a"], [1.5], ["2024-01-01"]):
        with pytest.raises(NbkitError):
            table(changed(TABLE, seeds=seeds))


def test_a_text_stays_a_text_in_an_executed_notebook(tmp_path, monkeypatch):
    """Papermill writes a parameter into a cell: quotes and line ends must not end the text."""
    evil = "x'\"\"\"\\\n\nopen('PWNED', 'w')\n#"
    shown = tmp_path / "notebooks" / "one.ipynb"
    shown.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / "03_vca.ipynb", shown)
    notebook = papermill.iorw.load_notebook_node(str(shown))
    notebook.cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    papermill.iorw.write_ipynb(notebook, str(shown))
    monkeypatch.setattr("nbkit.tables.batch.ROOT", tmp_path)
    execute("one", tmp_path / "out.ipynb", {"PROFILE": evil})
    assert not list(tmp_path.rglob("PWNED"))
