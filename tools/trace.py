"""Trace one training step, from the notebook's `run(cfg)` down to the losses.

    python tools/trace.py stcda daaa

The step is one of stage 3 at the smoke profile.  For every method the script prints the calls that
lead from the notebook to each loss function, the files on that way, and the other files of the
package that the step executes (the clips, the network, the inside of the losses).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType

import nbkit
from nbkit.config.recognition import RunConfig
from nbkit.train.recognition import prepare, run

ROOT = Path(nbkit.__file__).parents[1]
PACKAGE = f"{ROOT / 'nbkit'}/"
LOSSES = f"{ROOT / 'nbkit' / 'losses'}/"
STAGE = 3


class Tracer:
    """Record the package's own calls in stage 3's training loop; a function for `sys.setprofile`.

    Attributes:
        files: every file of ours that a step executes.
        walks: loss function -> the shortest chain of calls to it from the notebook, itself last.
            Loss functions that another loss function calls have none.
    """

    def __init__(self) -> None:
        self.stack: list[CodeType] = []
        self.loop = 0  # depth of the training loop in the stack; 0: outside of it
        self.files: set[str] = set()
        self.walks: dict[str, list[CodeType]] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Follow one call or return."""
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or code.co_name.startswith("<"):
            return
        if event == "call":
            self.stack.append(code)
            if code.co_name == "run_epoch" and frame.f_locals["stage"] == STAGE:
                self.loop = len(self.stack)
                self.files.update(outer.co_filename for outer in self.stack)
            if self.loop:
                self.files.add(code.co_filename)
                self.reached(code)
        elif event == "return":
            self.stack.pop()
            if len(self.stack) < self.loop:
                self.loop = 0

    def reached(self, code: CodeType) -> None:
        """Keep the chain to a loss function, if it is the first or the shortest."""
        loss = code.co_filename.startswith(LOSSES) and not code.co_qualname.startswith("_")
        if not loss or any(outer.co_filename.startswith(LOSSES) for outer in self.stack[:-1]):
            return
        known = self.walks.get(code.co_qualname)
        if known is None or len(self.stack) < len(known):
            self.walks[code.co_qualname] = list(self.stack)

    def on_the_way(self) -> set[str]:
        """The files on the way from the notebook to the losses."""
        return {code.co_filename for walk in self.walks.values() for code in walk}

    def depth(self) -> int:
        """Calls from the notebook to the loss function that lies deepest."""
        return max(len(walk) for walk in self.walks.values())


def trace(cfg: RunConfig) -> Tracer:
    """Trace a run of `cfg`, whose run folder must be new."""
    prepare(cfg)  # renders and decodes the videos, untraced
    tracer = Tracer()
    sys.setprofile(tracer)
    try:
        run(cfg)
    finally:
        sys.setprofile(None)
    return tracer


def report(method: str, tracer: Tracer) -> str:
    """The trace of one method as text."""
    way = tracer.on_the_way()
    lines = [f"{method}: {len(way)} files and at most {tracer.depth()} calls to a loss"]
    for walk in sorted(tracer.walks.values(), key=len):
        names = " > ".join(code.co_qualname for code in walk)
        lines.append(f"  {len(walk)} calls: {names}")
    lines += ["on the way:", *_names(way)]
    around = tracer.files - way
    lines += [f"executed besides, {len(around)} files:", *_names(around)]
    return "\n".join([*lines, ""])


def _names(files: set[str]) -> list[str]:
    return sorted(f"  {Path(file).relative_to(ROOT).as_posix()}" for file in files)


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="+", help="names of nbkit.methods.METHODS")
    methods = parser.parse_args(arguments).methods
    with tempfile.TemporaryDirectory() as folder:
        places = {"data_root": f"{folder}/data", "runs_dir": f"{folder}/runs"}
        for method in methods:
            cfg = RunConfig.make(profile="smoke", method=method, device="cpu", **places)
            print(report(method, trace(cfg)))


if __name__ == "__main__":
    main()
