"""What keeping freed memory saves on this machine: passes of the demo network with and without it.

    python benchmarks/freed_memory.py

Takes a minute on one core and writes benchmarks/results/freed_memory.json.  The settings are those
of the Makefile; the C library reads them at the start of a process, so each case has a process of
its own.  Given are the processor time of one thread and, beside it, the system's part (mapping
pages).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from nbkit.config.recognition import RunConfig
from nbkit.files import write_json
from nbkit.models.two_stream import TwoStream
from nbkit.train.store import environment

OUT = Path(__file__).parent / "results" / "freed_memory.json"
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}
VIDEOS, PASSES = 64, 6  # the size of an evaluation batch


def case(training: bool) -> dict[str, float]:
    """Seconds per pass over `VIDEOS` demo videos, and the largest memory of this process."""
    torch.set_num_threads(1)
    cfg = RunConfig.make(profile="demo")
    torch.manual_seed(0)
    model = TwoStream(cfg, 8).train(training)
    x = {}
    for stream, channels in (("rgb", 3), ("flow", 2)):
        shape = (VIDEOS, cfg.data.clips, channels, cfg.data.frames, cfg.data.crop, cfg.data.crop)
        x[stream] = torch.rand(shape)

    def once() -> None:
        with torch.set_grad_enabled(training):
            loss = sum(out.video_logits.logsumexp(-1).mean() for out in model(x).values())
        if training:
            loss.backward()

    once()  # not counted
    before = os.times()
    for _ in range(PASSES):
        once()
    after = os.times()
    return {
        "user_seconds": round((after.user - before.user) / PASSES, 4),
        "system_seconds": round((after.system - before.system) / PASSES, 4),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def in_a_process(training: bool, kept: bool) -> dict[str, Any]:
    """`case` in a process that keeps freed memory, or in one that does not."""
    variables = {name: value for name, value in os.environ.items() if name not in KEPT}
    if kept:
        variables |= KEPT
    command = [sys.executable, __file__, "--case", str(int(training))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    return {"kept": kept, "training": training, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", type=int, metavar="TRAINING", help="one case, in this process")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(case(bool(args.case))))
        return
    found = []
    for training in (False, True):
        for kept in (False, True):
            found.append(in_a_process(training, kept))
    write_json(args.out, {"videos": VIDEOS, "cases": found, "environment": environment()})
    print(args.out.read_text())


if __name__ == "__main__":
    main()
