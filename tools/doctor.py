"""`nbkit doctor`, or `python tools/doctor.py`: what of this installation is wrong, on one screen.

It imports nothing of the package, so it also speaks where the package cannot be imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# One line of the screen: a name, what is there, and what to do ('' where all is well).
Finding = tuple[str, str, str]
LEAST_PYTHON = (3, 11, 5)
LEAST_FREE = 15.0  # GB; the demo's data and runs take about 3


def examine(data_root: Path = ROOT / "data", runs_dir: Path = ROOT / "runs") -> list[Finding]:
    """Every line of the screen; a check that fails is a line of its own."""
    lines: list[Finding] = []
    for check in (_python, _packages, _opencv, _kernel, _gpu):
        try:
            lines += check()
        except Exception as error:  # a broken package may fail in any way
            name = check.__name__.strip("_")
            lines.append((name, f"{type(error).__name__}: {error}", "make setup"))
    return [*lines, *_places(data_root, runs_dir)]


def report(lines: list[Finding]) -> str:
    """The screen: one line per finding, and below it what to do."""
    texts = []
    for name, found, remedy in lines:
        texts.append(f"{'!' if remedy else ' '} {name:<11}{found}")
        if remedy:
            texts.append(f"{'':13}-> {remedy}")
    wrong = sum(1 for _, _, remedy in lines if remedy)
    return "\n".join([*texts, "", f"{wrong} to mend, marked !" if wrong else "nothing to mend"])


def _python() -> Iterator[Finding]:
    remedy = ""
    if sys.version_info < LEAST_PYTHON:
        remedy = "Python 3.11.5 or newer is needed: make setup PYTHON=/path/to/python3.11"
    yield "Python", f"{platform.python_version()} at {sys.executable}", remedy
    missing = [tool for tool in ("git", "make") if shutil.which(tool) is None]
    if missing:
        yield "commands", f"no {', '.join(missing)}", "install it, or see docs/INSTALL.md"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    locked = re.findall(
        r"^([\w.-]+)==([^\s;\\]+)( *;)?", (ROOT / "requirements.lock").read_text(), re.M
    )
    odd = []
    for name, wanted, conditional in locked:
        found = _version(name)
        if (found or wanted if conditional else found) != wanted:
            odd.append(f"{name} {found or 'absent'} (lock: {wanted})")
    shown = ", ".join(f"{name} {_version(name)}" for name in ("nbkit", "torch", "numpy", "av"))
    yield "packages", shown, ""
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        yield (
            "",
            ", ".join(odd[:3]) + more,
            "make setup (numbers may differ from the committed ones)",
        )


def _opencv() -> Iterator[Finding]:
    wanted = "opencv-contrib-python-headless"
    others = [
        wanted.replace("-contrib", c).replace("-headless", h)
        for c in ("", "-contrib")
        for h in ("", "-headless")
    ]
    there = [name for name in others if _version(name)]
    remedy = ""
    try:
        import cv2

        if not hasattr(cv2, "optflow"):
            remedy = "no TV-L1 flow in it"
    except ImportError as error:
        remedy = f"it cannot be imported ({error})"
    if len(there) > 1:
        remedy = "two packages write one folder; the last one wins"
    if remedy:
        remedy += f": pip uninstall -y {' '.join(there)} && pip install --no-deps {wanted}"
    yield "OpenCV", ", ".join(f"{name} {_version(name)}" for name in there) or "none", remedy


def _kernel() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
        python = shutil.which(spec.argv[0]) or spec.argv[0]
        own = (
            os.path.basename(spec.argv[0]) == spec.argv[0]
            or Path(python).parent == Path(sys.executable).parent
        )
        remedy = (
            ""
            if own
            else "notebooks would run another Python: python -m ipykernel install --sys-prefix"
        )
        yield "kernel", f"python3: {spec.argv[0]}", remedy
    except NoSuchKernel:
        yield "kernel", "no kernel called python3", "python -m ipykernel install --sys-prefix"


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        yield "GPU", f"{', '.join(names)}, CUDA {torch.version.cuda}", ""
    elif shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True)
        found = " ".join((done.stdout or done.stderr).split())[:70]
        advice = f"torch was built for CUDA {torch.version.cuda}: renew the driver"
        yield "GPU", f"{found}, which torch cannot use", advice
    else:
        yield "GPU", "none: runs take the CPU", ""
    cores, asked = os.cpu_count(), os.environ.get("OMP_NUM_THREADS", "unset")
    yield (
        "threads",
        f"{cores} cores, OMP_NUM_THREADS {asked}; a run on the CPU takes THREADS (1)",
        "",
    )


def _places(data_root: Path, runs_dir: Path) -> Iterator[Finding]:
    for name, folder in (
        ("data", data_root),
        ("runs", runs_dir),
        ("temporary", Path(tempfile.gettempdir())),
    ):
        there = folder
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free / 1e9
        remedy = ""
        if not there.is_dir() or not os.access(there, os.W_OK):
            remedy = "it cannot be written: give yourself the right, or choose another folder"
        elif name != "temporary" and free < LEAST_FREE:
            remedy = f"less than {LEAST_FREE:.0f} GB: free some, or choose another folder"
        yield name, f"{folder}: {free:.0f} GB free", remedy
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).free / 1e6
        yield (
            "/dev/shm",
            f"{size:.0f} MB free; this suite works in threads and needs none of it",
            "",
        )


if __name__ == "__main__":
    lines = examine()
    print(report(lines))
    sys.exit(any(remedy for _, _, remedy in lines))
