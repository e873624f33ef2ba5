"""What nbkit/tables/cost.py rests on, measured here: a training step of every backbone.

    python benchmarks/step_cost.py

Takes a minute on one core and writes benchmarks/results/step_cost.json.  Every figure is the
processor time of one thread, so that other programs on the machine change it little.  Measure with
the Makefile's memory settings (MALLOC_*), as training runs with them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from nbkit.config.recognition import RunConfig
from nbkit.files import write_json
from nbkit.models.two_stream import TwoStream
from nbkit.train.store import environment

OUT = Path(__file__).parent / "results" / "step_cost.json"
# what a clip is made of, where the backbone reads stored features
FEATURES = {"mobilenet_features": (8, 1280), "i3d_features": (1, 1024)}
# crop, frames, batch
CASES = {
    "small": (40, 8, 32),
    "mobilenet_features": (160, 8, 64),
    "i3d_features": (128, 8, 64),
    "mobilenet": (128, 4, 2),
    "bn_inception": (128, 4, 2),
    "i3d": (112, 8, 1),
}


def processor_seconds(job: Callable[[], None], times: int) -> float:
    """Mean processor time of a job, after one run that is not counted."""
    job()
    start = time.process_time()
    for _ in range(times):
        job()
    return (time.process_time() - start) / times


def step_case(backbone: str, crop: int, frames: int, batch: int, times: int) -> dict[str, Any]:
    """One optimisation step of both streams on random clips."""
    cfg = RunConfig.make(
        profile="paper", backbone=backbone, crop=crop, frames=frames, weights="random"
    )
    torch.manual_seed(0)
    model = TwoStream(cfg, 12)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x = {}
    for stream, channels in (("rgb", 3), ("flow", 2)):
        shape = (batch, cfg.data.clips, channels, frames, crop, crop)
        if backbone in FEATURES:
            shape = (batch, cfg.data.clips, *FEATURES[backbone])
        x[stream] = torch.rand(shape)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = [z for out in model(x).values() for z in model.logits(out)]
        sum(z.logsumexp(-1).mean() for z in logits).backward()
        optimizer.step()

    return {
        "crop": crop,
        "frames": frames,
        "clips": cfg.data.clips,
        "batch": batch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": round(processor_seconds(step, times), 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--times", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {backbone: step_case(backbone, *CASES[backbone], args.times) for backbone in args.only}
    write_json(args.out, {"backbones": found, "environment": environment()})
    print(args.out.read_text())


if __name__ == "__main__":
    main()
