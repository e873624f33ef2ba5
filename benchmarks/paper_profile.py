"""Real training steps of stage 3 of the paper profile on a GPU: seconds, clips a second, memory,
both precisions.

    python benchmarks/paper_profile.py                        both backbones, batch 64, 50 steps;
    needs a GPU python benchmarks/paper_profile.py --benchmark jhmdb_camera --source static --target
    moving       on its real videos python benchmarks/paper_profile.py --device cpu --out
    /tmp/try.json --batch 4 --steps 2 --crop 32 --frames 2 --videos 2 \\
        --nce-k 4 --backbones bn_inception

The steps are those of the training loop (nbkit/train/stages.py): contrastive, cross-entropy and
alignment terms, backward pass and update.  Random weights: what is measured does not depend on
them.  The default videos are the rendered ones; they are decoded and cached once in --data.
nbkit/cost_speed.py reads the result.
"""

import argparse
import gc
import sys
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric

from nbkit.config.recognition import RunConfig
from nbkit.files import write_json
from nbkit.methods import METHODS
from nbkit.methods.base import Step
from nbkit.tables.cost import clip_flops, encoder_clips, plan
from nbkit.train.domains import get_batch, load_domains
from nbkit.train.store import environment
from nbkit.train.stages import make_optimizer

OUT = Path(__file__).parent / "results" / "paper_profile.json"
STAGE = 3
WARM_UP = 3  # steps that are not counted


def config(args, backbone, precision):
    """The paper's configuration; at 224 pixels the cache has the paper's 256."""
    classes = min(8, args.batch // 2)
    demo = (
        {"demo_train": args.videos, "demo_test": 2}
        if args.benchmark == "demo"
        else {"allow_partial": True}
    )
    return RunConfig.make(
        profile="paper",
        benchmark=args.benchmark,
        source=args.source,
        target=args.target,
        **demo,
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
    )


def case(args, backbone, precision):
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


def measure(cfg, fabric, steps):
    """Seconds of the update alone and with assembling its batch, the peak of memory, operations a
    second.
    """
    torch.manual_seed(cfg.seed)
    domains = load_domains(cfg)
    method = fabric.to_device(METHODS[cfg.method](cfg, domains))
    optimizer = make_optimizer(method, cfg, STAGE)
    module, optimizer = fabric.setup(method, optimizer)
    method.train()
    truth = torch.arange(len(domains.train["target"])) % len(
        domains.classes
    )  # any labels: only their number matters
    method.pseudo[:] = truth.to(method.pseudo.device)
    pairs, read, update = method.batches(STAGE, 0), [], []
    if fabric.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for i in range(steps + WARM_UP):
        start = time.perf_counter()
        a, b = pairs[i % len(pairs)]
        batches = [
            get_batch(domains.train[d], index, cfg, fabric.device, True)
            for d, index in (("source", a), ("target", b))
        ]
        _wait(fabric.device)
        ready = time.perf_counter()
        terms = module(*batches, Step(STAGE, 0, 0.5, torch.Generator().manual_seed(i)))
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        _wait(fabric.device)
        read.append(ready - start)
        update.append(time.perf_counter() - ready)
    assert torch.isfinite(loss), "the loss is not finite"
    seconds, reading = (
        sorted(x[WARM_UP:])[len(x[WARM_UP:]) // 2] for x in (update, read)
    )  # medians
    planned, _ = plan(cfg)
    passes, _ = encoder_clips(planned, STAGE, pairs[0])
    videos = sum(map(len, pairs[0]))
    return {
        "videos_per_step": videos,
        "seconds_per_step": seconds,
        "seconds_per_batch": reading,
        "clips_per_second": videos * cfg.data.clips / seconds,
        "loss": float(loss.detach()),
        "terms": {k: float(v.detach()) for k, v in terms.items()},
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9
        if fabric.device.type == "cuda"
        else None,
        "flops_per_second": passes
        * clip_flops(cfg.model.backbone, cfg.data.frames, cfg.data.crop, cfg.data.modalities)
        / seconds,
    }


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device(device):
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def main(arguments=None):
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
        "--videos", type=int, default=16, help="rendered training videos a class and domain"
    )
    parser.add_argument("--nce-k", type=int, default=1024)
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu is for trying the script out")
    if args.device == "cpu" and args.out == OUT:
        parser.error(f"{OUT.name} holds measurements of a GPU: give --out for a CPU")
    cases = [case(args, b, p) for b in args.backbones for p in args.precisions]
    command = "python benchmarks/paper_profile.py " + " ".join(
        sys.argv[1:] if arguments is None else arguments
    )
    write_json(
        args.out,
        {
            "command": command.strip(),
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "cases": cases,
            "environment": environment(),
        },
    )
    print(args.out.read_text())


if __name__ == "__main__":
    main()
