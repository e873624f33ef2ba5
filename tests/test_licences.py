"""docs/THIRD_PARTY.md: every locked package and every dataset is on it, with what its metadata
says.
"""

import re

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT
from tools.licences import PAGE, licence_of, locked, package_rows, page


def test_every_line_of_the_lock_is_on_the_page():
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (\d[\w.+]*) \| [^|]+ \|$", PAGE.read_text(), re.M))
    assert rows == dict(locked()) and len(rows) > 100


def test_the_page_is_what_the_generator_writes():
    assert PAGE.read_text() == page()


def test_installed_packages_say_what_the_page_says():
    rows = package_rows()
    assert {"torch", "numpy", "grad-cam"} <= set(rows)
    assert all(row in PAGE.read_text() for row in rows.values())
    assert "BSD" in licence_of("torch") and licence_of("no-such-package") is None


def test_every_dataset_of_the_manifests_is_on_the_page():
    text = PAGE.read_text()
    for path in (ROOT / "data_manifests").glob("*.yaml"):
        assert f"`{path.stem}`" in text
        for domain in load_manifest(path.stem).domains.values():
            assert f"| {domain.licence} | {domain.homepage} |" in text
