"""How much memory a step of the paper's size needs, and what CLIPS_AT_ONCE a card allows.

    python benchmarks/clips_at_once.py             # bytes per clip, a proposal for each card
    python benchmarks/clips_at_once.py --train     # two steps of the paper's batch, on this CPU

No GPU is needed.  The first line counts what autograd keeps of a clip at a small crop, scales it
by pixels, and measures it once at 224 x 224 for the error of that.  How much more a backward pass
takes than what was kept is the slope of a process's largest memory over the number of clips.  The
second line trains stage 3 on rendered videos, batch 64, 16 frames, at the crop of --crop.
Both write benchmarks/results/clips_at_once.json.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.files import write_json
from nbkit.models.two_stream import TwoStream
from nbkit.train.store import environment

OUT = Path(__file__).parent / "results" / "clips_at_once.json"
CARDS = (16, 24, 80, 141)  # GiB
GIB = 2**30
SMALL, FULL = 96, 224  # crops
SLOTS = 3 * (1438 + 840)  # bank slots of UCF-HMDB full, the paper's largest pair with all lists
CONTEXT = 1.5 * GIB  # of CUDA and cuDNN: a guess, no GPU was there
USABLE = 0.9  # of what is left: the allocator's fragments


def paper(backbone: str, **more: Any) -> RunConfig:
    return RunConfig.make(profile="paper", backbone=backbone, weights="random", **more)


def clips(stream: str, n: int, crop: int, frames: int = 16) -> torch.Tensor:
    channels = {"rgb": 3, "flow": 2}[stream]
    return torch.randint(0, 256, (n, channels, frames, crop, crop), dtype=torch.uint8)


def kept_per_clip(backbone: str, crop: int) -> float:
    """Bytes that the RGB encoder keeps of one clip for the backward pass, without the weights."""
    stream = TwoStream(paper(backbone), 12).train().streams["rgb"]
    own = {p.untyped_storage().data_ptr() for p in stream.parameters()}
    found: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = stream.encode(clips("rgb", 1, crop), None)
    del out
    return float(sum(found.values()))


def largest() -> float:
    """Largest memory of this process so far, in bytes; not that of the one which started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024.0 * int(found[1]) if found else float("nan")


def peak(backbone: str, crop: int, n: int) -> float:
    """Largest memory of a process, in bytes, that passes n clips forward and backward."""
    stream = TwoStream(paper(backbone, clips_at_once=n), 12).train().streams["rgb"]
    stream.clip_features(clips("rgb", n, crop).unsqueeze(0)).sum().backward()
    return largest()


def in_a_process(*words: str) -> Any:
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def fixed(cfg: RunConfig, model: nn.Module) -> dict[str, float]:
    """Bytes of a step that do not depend on CLIPS_AT_ONCE."""
    weights = sum(p.numel() for p in model.parameters()) * 4
    videos, k, d = cfg.optim.batch, cfg.data.clips, cfg.model.feature_dim
    streams, anchors = len(cfg.streams), videos * k
    pictures = anchors * cfg.data.frames * cfg.data.crop**2 * 5
    return {
        "weights, gradients, momentum": 3.0 * weights,
        "clips and their negatives, bytes": 2.0 * pictures,
        "drawn bank entries": 2.0 * streams * anchors * cfg.stcl.nce_k * d * 4,
        "banks": 2.0 * streams * SLOTS * d * 4,
    }


def report(backbone: str) -> dict[str, Any]:
    cfg = paper(backbone)
    small, full = kept_per_clip(backbone, SMALL), kept_per_clip(backbone, FULL)
    scaled = small * (FULL / SMALL) ** 2
    two, four = (in_a_process("--peak", backbone, str(n)) for n in (2, 4))
    slope = (four - two) / 2 / small
    parts = fixed(cfg, TwoStream(cfg, 12))
    everything = cfg.optim.batch * cfg.data.clips
    whole = everything * len(cfg.streams) * 2 * scaled  # clips and live negatives
    fits = {}
    for card in CARDS:
        room = USABLE * (card * GIB - CONTEXT - sum(parts.values()))
        n = int(room / (max(slope, 1.0) * scaled))  # a peak holds at least what was kept
        fits[f"{card} GiB"] = min(n, everything) if n >= 1 else None
    return {
        "kept_per_clip_gib": round(scaled / GIB, 3),
        "kept_per_clip_at_224_gib": round(full / GIB, 3),
        "error_of_scaling": round(scaled / full - 1, 4),
        "peak_over_kept": round(slope, 2),
        "whole_batch_gib": round(whole / GIB, 1),
        "fixed_gib": {name: round(size / GIB, 2) for name, size in parts.items()},
        "clips_at_once": fits,
    }


def train(backbone: str, crop: int, at_once: int | None, steps: int) -> dict[str, Any]:
    """Steps of stage 3 at the paper's batch through the training loop: peak memory, seconds."""
    from nbkit.train.recognition import prepare
    from nbkit.train.steps import make_optimizer, run_epoch

    with tempfile.TemporaryDirectory() as folder:
        cfg = paper(
            backbone,
            crop=crop,
            cache_size=round(crop * 8 / 7),
            clips_at_once=at_once,
            demo_train=8,
            demo_test=2,
            data_root=folder,
            runs_dir=folder,
            device="cpu",
        )
        fabric, method, _ = prepare(cfg)
        module, optimizer = fabric.setup(method, make_optimizer(method, 3))
        method.start_stage(3)
        truth = torch.arange(method.pseudo.shape[1]) % len(method.data.classes)
        method.pseudo[:] = truth  # any labels: only their number matters
        pairs = method.batches(3, 0)
        method.batches = lambda *_: (pairs * steps)[:steps]  # type: ignore[method-assign]
        before = [p.detach().clone() for p in method.model.parameters()]
        start = time.perf_counter()
        terms = run_epoch(fabric, module, method, optimizer, 3, 0)
        seconds = time.perf_counter() - start
        moved = sum(not torch.equal(p, q) for p, q in zip(method.model.parameters(), before))
    return {
        "backbone": backbone,
        "batch": cfg.optim.batch,
        "clips": cfg.data.clips,
        "frames": cfg.data.frames,
        "crop": crop,
        "clips_at_once": at_once,
        "steps": steps,
        "terms": {name: round(value, 4) for name, value in terms.items()},
        "parameters_moved": moved,
        "seconds_per_step": round(seconds / steps, 1),
        "peak_gib": round(largest() / GIB, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--backbones", nargs="*", default=["bn_inception", "i3d"])
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.peak:
        print(json.dumps(peak(args.peak[0], SMALL, int(args.peak[1]))))
        return
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.train:
        result["trained"] = train(args.backbones[0], args.crop, args.at_once, args.steps)
    else:
        result["memory"] = {backbone: report(backbone) for backbone in args.backbones}
    result["environment"] = environment()
    write_json(args.out, result)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
