"""What nbkit/cost.py rests on, measured here: training steps by backbone, batches from a cache,
decoding and flow.

    python benchmarks/step_cost.py            a minute or two on one core; writes
    benchmarks/results/step_cost.json

Every figure is the processor time of one thread, so that other programs on the machine change it
little.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nbkit.config.recognition import RunConfig
from nbkit.data.cache import prepare_video, square
from nbkit.data.clips import ClipDataset
from nbkit.data.decode import read_video
from nbkit.demo.write import encode
from nbkit.memory import keep_freed_memory
from nbkit.models.two_stream import TwoStream
from nbkit.tables.cost import FEATURES, clip_flops
from nbkit.train.store import environment

CASES = {
    "small": (40, 8, 32),
    "mobilenet_features": (160, 8, 64),
    "mobilenet": (128, 4, 2),
    "bn_inception": (128, 4, 2),
    "i3d": (112, 8, 1),
}  # crop, frames, batch


def processor_seconds(job, times):
    """Mean processor time of a job, after one run that is not counted."""
    job()
    start = time.process_time()
    for _ in range(times):
        job()
    return (time.process_time() - start) / times


def step_case(backbone, crop, frames, batch, times):
    """One optimisation step of both streams on random clips."""
    cfg = RunConfig.make(
        profile="paper", backbone=backbone, crop=crop, frames=frames, weights="random"
    )
    torch.manual_seed(0)
    model = TwoStream(cfg, 12)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    if backbone == "mobilenet_features":
        x = {m: torch.rand(batch, cfg.data.clips, frames, FEATURES) for m in cfg.streams}
    else:
        x = {
            m: torch.rand(batch, cfg.data.clips, c, frames, crop, crop)
            for m, c in (("rgb", 3), ("flow", 2))
        }

    def step():
        optimizer.zero_grad(set_to_none=True)
        sum(
            z.logsumexp(-1).mean() for out in model(x).values() for z in model.logits(out)
        ).backward()
        optimizer.step()

    seconds = processor_seconds(step, times)
    flops = (
        3
        * batch
        * cfg.data.clips
        * len(cfg.streams)
        * clip_flops(backbone, frames, crop, cfg.data.modalities)
    )
    return {
        "crop": crop,
        "frames": frames,
        "clips": cfg.data.clips,
        "batch": batch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_step": flops,
        "seconds_per_step": round(seconds, 4),
        "flops_per_second": flops / seconds,
    }


class FilledCache:
    """One video of noise in memory, in the shape of a cache."""

    def __init__(self, size, frames=80):
        rng = np.random.default_rng(0)
        self.size, self.flow_clip = size, 20.0
        self.stored = {
            c: rng.integers(0, 256, (frames, size, size, c), dtype=np.uint8) for c in (3, 2)
        }

    def n_frames(self, video):
        return len(self.stored[3])

    def rgb(self, video):
        return self.stored[3]

    def flow(self, video):
        return self.stored[2]


def batch_bytes_per_second(size, crop):
    table = pd.DataFrame({"video": ["v"] * 4, "label": [0] * 4})
    data = ClipDataset(FilledCache(size), table, clips=3, frames=16, crop=crop, augment=True)
    seconds = processor_seconds(lambda: data.batch([0, 1, 2, 3]), 2)
    return 4 * 3 * 16 * crop**2 * 5 / seconds


def seconds_per_frame(size, tvl1):
    """Decoding alone, and decoding with flow and resizing, of a 320x240 video."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    wide = square(np.repeat(np.repeat(ground, 30, 0), 30, 1)[None], 360)[0][0]  # a smooth texture
    frames = np.stack([wide[t : t + 240, t : t + 320] for t in range(16)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.avi"
        encode(str(path), frames)
        found = {"decode": processor_seconds(lambda: read_video(path), 2) / len(frames)}
        for method, cut in (("dis", None), ("tvl1", 3)) if tvl1 else (("dis", None),):
            n = cut or len(frames)
            found[method] = (
                processor_seconds(partial(prepare_video, path, size, method, 20.0, cut), 1) / n
            )
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "step_cost.json"))
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--no-tvl1", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()  # as in training
    found = {
        "backbones": {b: step_case(b, *CASES[b], args.times) for b in args.only},
        "batch_bytes_per_second": batch_bytes_per_second(256, 224),
        "cache_seconds_per_frame": seconds_per_frame(256, not args.no_tvl1),
        "environment": environment(),
    }
    Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    print(Path(args.out).read_text())


if __name__ == "__main__":
    main()
