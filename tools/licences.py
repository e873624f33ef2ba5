"""Write docs/THIRD_PARTY.md, licences of packages and datasets: `python tools/licences.py`."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT
from nbkit.files import atomically

PAGE = ROOT / "docs" / "THIRD_PARTY.md"
NOT_STATED = "not stated in its metadata"
HEAD = """# Third-party licences

Nothing of what follows is part of this repository: packages are installed from the package index,
datasets and published weights are fetched by their users. Made by `python tools/licences.py` from
the packages' own metadata and from data_manifests/. The authors' texts decide, not this page.
"""


def locked() -> list[tuple[str, str]]:
    """(name, version) of every line of requirements.lock."""
    lines = (line.strip() for line in (ROOT / "requirements.lock").read_text().splitlines())
    return [tuple(line.split("==")) for line in lines if line and not line.startswith("#")]


def licence_of(name: str) -> str | None:
    """What a package's metadata says, the most exact statement first; None where the package is not
    installed.

    Some old packages put the whole text, or only a copyright line, into the field "License": then
    the classifiers count, and where there are none the first line of the licence file that the
    package brings.
    """
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    said = package.metadata
    classifiers = [
        c.split(" :: ")[-1] for c in said.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    field = (said.get("License") or "").strip()
    short = field if field and "\n" not in field and len(field) < 60 and field != "UNKNOWN" else ""
    return (
        said.get("License-Expression")
        or ", ".join(classifiers)
        or short
        or _from_file(package)
        or NOT_STATED
    )


def _from_file(package: importlib.metadata.Distribution) -> str:
    for file in package.files or []:
        if re.match(r"(licen[cs]e|copying)", file.name, re.I):
            text = Path(package.locate_file(file)).read_text(errors="replace")
            if (
                "permission is hereby granted, free of charge"
                in " ".join(text.lower().split())[:600]
            ):
                return "MIT License"
            return next(
                (line for line in (x.strip(" #=*-\t") for x in text.splitlines()) if line), ""
            )[:60]
    return ""


def package_rows() -> dict[str, str]:
    """{name: Markdown row} of the locked packages that are installed here."""
    found = {name: (version, licence_of(name)) for name, version in locked()}
    return {
        name: f"| {name} | {version} | {licence} |"
        for name, (version, licence) in found.items()
        if licence
    }


def dataset_rows() -> list[str]:
    """One Markdown row a dataset of data_manifests/."""
    found = {}
    for path in sorted((ROOT / "data_manifests").glob("*.yaml")):
        manifest = load_manifest(path.stem)
        for domain in manifest.domains.values():
            benchmarks = found.setdefault(
                (re.sub(r"[,(].*", "", domain.dataset).strip(), domain.licence, domain.homepage), []
            )
            if path.stem not in benchmarks:
                benchmarks.append(path.stem)
    return [
        f"| {dataset} | {licence} | {homepage} | {', '.join(f'`{b}`' for b in benchmarks)} |"
        for (dataset, licence, homepage), benchmarks in sorted(found.items())
    ]


def page() -> str:
    """The whole page. A package that is locked but not installed here keeps the row that the page
    has.
    """
    old, rows = PAGE.read_text() if PAGE.exists() else "", package_rows()
    for name, version in locked():
        if name not in rows:
            kept = re.search(rf"^\| {re.escape(name)} \| {re.escape(version)} \|.*$", old, re.M)
            rows[name] = kept[0] if kept else f"| {name} | {version} | not installed here |"
    datasets = [
        "## Datasets",
        "",
        "| dataset | terms | home page | benchmarks |",
        "|---|---|---|---|",
        *dataset_rows(),
        "",
    ]
    packages = [
        "## Packages",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(rows[name] for name, _ in locked()),
        "",
    ]
    return "\n".join([HEAD, *datasets, *packages])


if __name__ == "__main__":
    text = page()
    atomically(PAGE, lambda p: p.write_text(text))
