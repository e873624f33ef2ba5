"""How the losses of a step grow with the classes and with the slots of a bank.

    python benchmarks/losses.py

Takes half a minute on one core and writes benchmarks/results/losses.json.  Milliseconds are
processor time of one thread: Eq. (8) of one stream, forward and backward, for 64 videos per domain,
3 clips and 512 numbers; and drawing 1024 bank entries of 128 numbers for each of 192 clips and
comparing them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nbkit.files import write_json
from nbkit.losses.alignment import VideoFeatures, vca
from nbkit.losses.contrastive import MemoryBank, bank_log_theta
from nbkit.train.store import environment

OUT = Path(__file__).parent / "results" / "losses.json"
VIDEOS, CLIPS, DIM, DRAWN, BANK_DIM = 64, 3, 512, 1024, 128


def milliseconds(job: Callable[[], Any], times: int) -> float:
    """Median processor time of a job, after one that is not counted."""
    job()
    found = []
    for _ in range(times):
        start = time.process_time()
        job()
        found.append(time.process_time() - start)
    return round(1000 * median(found), 1)


def alignment(classes: int, in_batch: int | None) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)

    def side() -> VideoFeatures:
        v = torch.randn(VIDEOS, CLIPS, DIM, generator=generator, requires_grad=True)
        return VideoFeatures(v, torch.randn(VIDEOS, DIM, generator=generator, requires_grad=True))

    pair = side(), side()
    labels = [torch.randint(classes, (VIDEOS,), generator=generator) for _ in pair]
    if in_batch:
        labels = [torch.arange(VIDEOS) % in_batch] * 2
    return lambda: vca(pair, *labels, classes).total.backward()


def drawing(slots: int) -> Callable[[], Any]:
    bank, generator = MemoryBank(slots, BANK_DIM), torch.Generator().manual_seed(0)
    own = torch.arange(VIDEOS * CLIPS)
    v = torch.randn(VIDEOS, CLIPS, BANK_DIM)

    def job() -> Any:
        drawn = bank.draw(own, DRAWN, generator).unflatten(0, (VIDEOS, CLIPS))
        return bank_log_theta(v, drawn, 0.07, unit=True)

    return job


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    classes, slots = (12, 100, 400), (1000, 10_000, 100_000, 1_000_000)
    result = {
        "alignment_by_classes": {
            "8 classes in the batch": {n: milliseconds(alignment(n, 8), 15) for n in classes},
            "random labels": {n: milliseconds(alignment(n, None), 15) for n in classes},
        },
        "bank_by_slots": {n: milliseconds(drawing(n), 3) for n in slots},
        "environment": environment(),
    }
    write_json(args.out, result)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
