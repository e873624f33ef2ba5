"""Real training steps of stage 3 of the paper profile on a GPU: seconds, clips per second, memory.

    python benchmarks/paper_profile.py
    python benchmarks/paper_profile.py --benchmark jhmdb_camera --source static --target moving
    python benchmarks/paper_profile.py --device cpu --out /tmp/try.json --batch 8 --steps 2 \\
        --crop 32 --frames 2 --videos 2 --nce-k 4 --backbones bn_inception

The first line measures both backbones in both precisions, at batch 64 for 50 steps, on rendered
videos; the second does so on real ones; the third tries the script out without a GPU.  The steps
are those of the training loop (nbkit/train/steps.py): contrastive, cross-entropy and alignment
terms, backward pass and update.  The weights are random: what is measured does not depend on them.
The videos are decoded and cached once in --data.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning_fabric import Fabric

from nbkit.config.recognition import RunConfig
from nbkit.files import write_json
from nbkit.methods import method_class
from nbkit.methods.base import Step
from nbkit.methods.batches import to_device
from nbkit.train.domains import load_domains
from nbkit.train.steps import make_optimizer
from nbkit.train.store import environment

OUT = Path(__file__).parent / "results" / "paper_profile.json"
STAGE = 3
WARM_UP = 3  # steps that are not counted


def config(args: argparse.Namespace, backbone: str, precision: str) -> RunConfig:
    """The paper's configuration; at 224 pixels the cache has the paper's 256."""
    classes = min(8, args.batch // 2)
    fields: dict[str, Any] = {"allow_partial": True}
    if args.benchmark == "demo":
        fields = {"demo_train": args.videos, "demo_test": 2}
    return RunConfig.make(
        profile="paper",
        benchmark=args.benchmark,
        source=args.source,
        target=args.target,
        backbone=backbone,
        weights="random",
        precision=precision,
        batch=args.batch,
        crop=args.crop,
        frames=args.frames,
        cache_size=round(args.crop * 8 / 7),
        data_root=args.data,
        device=args.device,
        cas_classes=classes,
        cas_per_class=args.batch // (2 * classes),
        nce_k=args.nce_k,
        **fields,
    )


def case(args: argparse.Namespace, backbone: str, precision: str) -> dict[str, Any]:
    """Steps of one backbone and precision; a case that does not fit is recorded as such."""
    cfg = config(args, backbone, precision)
    fabric = Fabric(accelerator=args.device, devices=1, precision=precision)
    found = {
        "backbone": backbone,
        "precision": precision,
        "batch": args.batch,
        "clips": cfg.data.clips,
        "frames": cfg.data.frames,
        "crop": cfg.data.crop,
        "steps": args.steps,
        "device": _device(fabric.device),
    }
    try:
        return {**found, **measure(cfg, fabric, args.steps)}
    except torch.cuda.OutOfMemoryError as error:
        return {**found, "out_of_memory": str(error).splitlines()[0]}
    finally:
        gc.collect()  # or the next case's peak would hold this one's network
        if fabric.device.type == "cuda":
            torch.cuda.empty_cache()


def measure(cfg: RunConfig, fabric: Fabric, steps: int) -> dict[str, Any]:
    """Time the update alone and the assembling of its batch; read the peak of memory."""
    torch.manual_seed(cfg.seed)
    data = load_domains(cfg).training
    method = fabric.to_device(method_class(cfg.method)(cfg, data))
    module, optimizer = fabric.setup(method, make_optimizer(method, STAGE))
    method.train()
    # Any labels: only their number matters.
    truth = torch.arange(len(data.train["target"])) % len(data.classes)
    method.pseudo[:] = truth.to(method.pseudo.device)
    pairs, views = method.batches(STAGE, 0), method.views(STAGE)
    cuda = fabric.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    read, update = [], []
    for i in range(steps + WARM_UP):
        start = time.perf_counter()
        labelled, unlabelled = pairs[i % len(pairs)]
        source = to_device(data.train["source"].batch(labelled, **views), fabric.device)
        target = to_device(data.train["target"].batch(unlabelled, **views), fabric.device)
        _wait(fabric.device)
        ready = time.perf_counter()
        step = Step(STAGE, 0, 0.5, torch.Generator().manual_seed(i))
        loss, terms = module(source, target, step)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        _wait(fabric.device)
        read.append(ready - start)
        update.append(time.perf_counter() - ready)
    assert torch.isfinite(loss), "the loss is not finite"
    seconds = median(update[WARM_UP:])
    videos = len(pairs[0][0]) + len(pairs[0][1])
    return {
        "videos_per_step": videos,
        "seconds_per_step": seconds,
        "seconds_per_batch": median(read[WARM_UP:]),
        "clips_per_second": videos * cfg.data.clips / seconds,
        "loss": float(loss.detach()),
        "terms": {name: float(value.detach()) for name, value in terms.items()},
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--benchmark", default="demo", help="whose videos: a file of data_manifests/, without .yaml"
    )
    parser.add_argument("--source", default="studio")
    parser.add_argument("--target", default="street")
    parser.add_argument(
        "--data", default="data", help="folder that holds the benchmark, and the cache"
    )
    parser.add_argument("--backbones", nargs="*", default=["bn_inception", "i3d"])
    parser.add_argument("--precisions", nargs="*", default=["bf16-mixed", "32-true"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument(
        "--videos", type=int, default=16, help="rendered training videos per class and domain"
    )
    parser.add_argument("--nce-k", type=int, default=1024)
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu is for trying the script out")
    if args.device == "cpu" and args.out == OUT:
        parser.error(f"{OUT.name} holds measurements of a GPU: give --out for a CPU")
    cases = [case(args, b, p) for b in args.backbones for p in args.precisions]
    given = sys.argv[1:] if arguments is None else arguments
    result = {
        "command": " ".join(["python benchmarks/paper_profile.py", *given]),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "cases": cases,
        "environment": environment(args.device),
    }
    write_json(args.out, result)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
