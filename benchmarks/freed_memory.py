"""What nbkit/memory.py saves on this machine: passes of the demo network with and without kept
memory.

    python benchmarks/freed_memory.py         a minute on one core; writes
    benchmarks/results/freed_memory.json

Each case runs in a process of its own, because the C library cannot be told to forget the habit.
Processor time of one thread, the system's part (mapping pages) beside it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch

from nbkit.config.recognition import RunConfig
from nbkit.memory import keep_freed_memory
from nbkit.models.two_stream import TwoStream
from nbkit.train.store import environment

VIDEOS, PASSES = 64, 6  # the size of an evaluation batch


def case(kept: bool, training: bool) -> dict:
    """Seconds a pass over `VIDEOS` demo videos, user and system, and the largest memory of the
    process.
    """
    torch.set_num_threads(1)
    if kept and not keep_freed_memory():
        raise SystemExit("this C library does not keep freed memory on request: nothing to compare")
    cfg = RunConfig.make(profile="demo")
    torch.manual_seed(0)
    model = TwoStream(cfg, 8).train(training)
    x = {
        m: torch.rand(VIDEOS, cfg.data.clips, c, cfg.data.frames, cfg.data.crop, cfg.data.crop)
        for m, c in (("rgb", 3), ("flow", 2))
    }

    def once():
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
        "kept": kept,
        "training": training,
        "user_seconds": round((after.user - before.user) / PASSES, 4),
        "system_seconds": round((after.system - before.system) / PASSES, 4),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--case", nargs=2, type=int, metavar=("KEPT", "TRAINING"), help="one case, in this process"
    )
    parser.add_argument(
        "--out", default=str(Path(__file__).parent / "results" / "freed_memory.json")
    )
    args = parser.parse_args()
    if args.case:
        return print(json.dumps(case(*map(bool, args.case))))
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, "--case", str(kept), str(training)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()[-1]
        )
        for training in (0, 1)
        for kept in (0, 1)
    ]
    text = (
        json.dumps({"videos": VIDEOS, "cases": found, "environment": environment()}, indent=1)
        + "\n"
    )
    Path(args.out).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
