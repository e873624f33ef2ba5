"""From stored bytes to a batch: what one thread assembles, and what a step waits for.

    python benchmarks/data_path.py

Takes a minute on one core and writes benchmarks/results/data_path.json.  Videos lie in memory, as
in the page cache.  `in_floats` is what a training step did before: bytes, then floats, then the
step; `in_bytes` is what a thread of nbkit/methods/batches.py does while the step runs.  The step is
a wait of --step seconds, as for a GPU that works alone.  Seconds are processor time of one thread;
the share of waiting is wall time, which other programs on the machine raise: look at its load.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu  # its arrays of moving squares
import numpy as np
import torch

from nbkit.files import write_json
from nbkit.methods.batches import AHEAD, ahead, assembled
from nbkit.train.store import environment

OUT = Path(__file__).parent / "results" / "data_path.json"


def processor_seconds(job: Callable[[], Any], times: int) -> float:
    """Least processor time of this process for a job, after one run that is not counted."""
    job()
    found = []
    for _ in range(times):
        start = time.process_time()
        job()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--videos", type=int, default=32, help="of a domain in a batch")
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--step", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = gpu.configuration(crop=args.crop, cache_size=round(args.crop * 8 / 7))
    data = gpu.rendered(cfg, args.videos).train
    chosen, device = np.arange(args.videos), torch.device("cpu")
    both = list(data.values())
    floats = processor_seconds(lambda: [d.batch(chosen) for d in both], args.times)
    raw = processor_seconds(lambda: [d.raw(chosen) for d in both], args.times)

    def load(_: int) -> list[Any]:
        return [assembled(device, d, chosen) for d in both]

    waited, loaded = [], ahead(load, range(args.steps))
    for _ in range(args.steps):
        start = time.perf_counter()
        batch = next(loaded)
        waited.append(time.perf_counter() - start)
        time.sleep(args.step)
    whole = sum(waited[1:]) + args.step * (args.steps - 1)
    videos = 2 * args.videos
    result = {
        "videos": videos,
        "crop": args.crop,
        "clips": cfg.data.clips,
        "frames": cfg.data.frames,
        "bytes": sum(x.nbytes for part in batch for x in part.values()),
        "in_floats": {"seconds": round(floats, 3), "videos_per_second": round(videos / floats, 1)},
        "in_bytes": {"seconds": round(raw, 3), "videos_per_second": round(videos / raw, 1)},
        "times_as_many_videos": round(floats / raw, 2),
        "workers": AHEAD,
        "step_seconds": args.step,
        "first_batch_seconds": round(waited[0], 3),
        "share_of_waiting": round(sum(waited[1:]) / whole, 4),
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "freed_memory_is_kept": os.environ.get("MALLOC_TRIM_THRESHOLD_") is not None,
        "environment": environment(),
    }
    write_json(args.out, result)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
