"""Write docs/THIRD_PARTY.md, licences of packages and datasets: `python tools/licences.py`."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from nbkit.benchmarks.manifest import load_manifest
from nbkit.config import ROOT
from nbkit.files import atomically
from nbkit.models.weights import PUBLISHED

PAGE = ROOT / "docs" / "THIRD_PARTY.md"
LOCK = ROOT / "requirements.lock"
# Packages whose files hold libraries of others, and what their own notes say of those.
BINARY = {
    "av": "FFmpeg, under the {ffmpeg}, with the codecs that it was built with",
    "opencv-contrib-python-headless": "OpenCV (Apache-2.0), FFmpeg (LGPL-2.1), OpenBLAS "
    "(BSD-3-Clause) and others: LICENSE-3RD-PARTY.txt in the package",
    "torch": "its own libraries; CUDA's come as the packages below",
}
# Locked for another system than the one that writes this page, or without a licence in metadata.
KNOWN = {
    "appnope": "BSD License",
    "colorama": "BSD-3-Clause",
    "pyreadline3": "BSD License",
    "pywinpty": "MIT",
}
NOT_STATED = "not stated in its metadata"
HEAD = """# Third-party licences

Nothing of what follows is part of this repository: packages are installed from the package index,
datasets and published weights are fetched by their users. Made by `python tools/licences.py` from
the packages' own metadata and from data_manifests/. The authors' texts decide, not this page.
"""


def locked() -> list[tuple[str, str]]:
    """(name, version) of every line of requirements.lock."""
    return re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK.read_text(), re.M)


def hashes_of(name: str) -> int:
    """How many files of a package the lock allows."""
    block = re.search(rf"^{re.escape(name)}==.*\n((?:    --hash.*\n)+)", LOCK.read_text(), re.M)
    return block[1].count("--hash")


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


def binary_rows() -> list[str]:
    """One row per package that brings libraries of others; CUDA's are proprietary."""
    from av._core import library_meta

    versions, rows = dict(locked()), []
    cuda = {name: "CUDA" for name in versions if name.startswith(("nvidia-", "cuda-"))}
    for name, brings in {**BINARY, **cuda}.items():
        brings = brings.format(ffmpeg=library_meta["libavcodec"]["license"])
        licence = licence_of(name)
        rows.append(f"| {name} {versions[name]} | {licence} | {brings} | {hashes_of(name)} files |")
    return rows


def weight_rows() -> list[str]:
    """One row per published file of weights: where it is from, its licence and its check sum."""
    rows = []
    for key, entry in PUBLISHED.items():
        kind, value = ("git blob", entry.git_blob) if entry.git_blob else ("sha256", entry.sha256)
        package = f"package {entry.package}, or " if entry.package else ""
        rows.append(f"| {key} | {package}{entry.url} | {entry.licence} | {kind} `{value}` |")
    return rows


def page() -> str:
    """The whole page. A package that is locked but not installed here keeps the row that the page
    has.
    """
    old, rows = PAGE.read_text() if PAGE.exists() else "", package_rows()
    for name, version in locked():
        if name not in rows:
            kept = re.search(rf"^\| {re.escape(name)} \| {re.escape(version)} \|.*$", old, re.M)
            known = KNOWN.get(name, "not installed here")
            rows[name] = kept[0] if kept else f"| {name} | {version} | {known} |"
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
    inside = [
        "## What binary packages bring",
        "",
        "The lock allows so many files of each, by SHA-256; another file is refused.",
        "",
        "| package | licence | brings | in the lock |",
        "|---|---|---|---|",
        *binary_rows(),
        "",
    ]
    weights = [
        "## Published weights",
        "",
        "A file is compared with its check sum before it is read, wherever it came from. Where the",
        "publisher names eight digits only, these are compared.",
        "",
        "| name | from | licence | check sum |",
        "|---|---|---|---|",
        *weight_rows(),
        "",
    ]
    return "\n".join([HEAD, *datasets, *weights, *inside, *packages])


if __name__ == "__main__":
    text = page()
    atomically(PAGE, lambda p: p.write_text(text))
