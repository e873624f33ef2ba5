"""What a GPU makes of the paper's size, in ten minutes, offline: `make gpu`.

    python benchmarks/gpu.py                                       # torch, torchvision, numpy
    python benchmarks/gpu.py --device cpu --tiny --out /tmp/gpu.json    # tries the script out

Measured, each with its peak memory: the card's matrix products; forward and backward passes of
both encoders in float32, TF32 and bfloat16, with channels last, compiled, whole and in chunks; the
same of I3D as its public module computes it, in plain float32; one epoch of every stage on rendered
clips, at batch 64, 3 clips, two streams, with and without CLIPS_AT_ONCE.  For epochs also: the
share of time spent waiting for data, and whether a step reads a value from the device.  What does
not fit into the memory, or into --minutes, is recorded as such.  The steps are those of
nbkit/train/steps.py; nbkit/data/clips.py reads the clips from arrays that are made here.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
OUT, PAPER = HERE / "results" / "gpu.json", HERE / "paper.json"


def stand_in_for_opencv() -> bool:
    """Two of its functions by numpy where it is not installed; whether it is."""
    try:
        import cv2  # noqa: F401
    except ImportError:
        module = ModuleType("cv2")
        module.LUT = lambda x, table, dst: np.copyto(  # type: ignore[attr-defined]
            dst, np.stack([table[0, x[..., c], c] for c in range(3)], -1)
        )
        module.flip = lambda x, _, dst: np.copyto(  # type: ignore[attr-defined]
            dst, x[:, ::-1].copy()
        )
        sys.modules["cv2"] = module
        return False
    return True


OPENCV = stand_in_for_opencv()

from nbkit.data.clips import ClipDataset  # noqa: E402
from nbkit.methods import method_class  # noqa: E402
from nbkit.methods.base import TrainingData  # noqa: E402
from nbkit.models.bn_inception import BNInception  # noqa: E402
from nbkit.models.i3d import InceptionI3D  # noqa: E402
from nbkit.models.two_stream import Stream  # noqa: E402
from nbkit.train import steps  # noqa: E402

BACKBONES = {"bn_inception": BNInception, "i3d": InceptionI3D}


# --- a configuration, data and a loop without their packages -------------------------------------
def configuration(**changes: Any) -> Any:
    """The paper's values from paper.json, which a test compares with the profile."""
    sections = json.loads(PAPER.read_text())
    cfg = SimpleNamespace()
    for name, section in sections.items():
        if isinstance(section, dict):
            own = {k: changes.pop(k) for k in set(changes) & set(section)}
            section = SimpleNamespace(**{**section, **own})
        setattr(cfg, name, section)
    cfg.model.weights = "random"
    vars(cfg).update(changes)
    cfg.streams = tuple(cfg.data.modalities.split("+"))
    return cfg


class Table:
    """What a data set asks of a table of videos."""

    def __init__(self, **columns: list):
        self.columns = {name: np.array(values) for name, values in columns.items()}

    def reset_index(self, drop: bool) -> Table:
        return self

    def drop(self, columns: list, errors: str) -> Table:
        return Table(**{k: v for k, v in self.columns.items() if k not in columns})

    def __len__(self) -> int:
        return len(self.columns["video"])

    def __getitem__(self, name: str) -> Any:
        values = self.columns[name]
        return SimpleNamespace(to_numpy=values.astype, tolist=values.tolist)


class Arrays:
    """Videos of squares that move, in memory, as a cache of decoded videos holds them."""

    def __init__(self, videos: int, frames: int, size: int):
        self.size, self.flow_clip, self.frames = size, 20.0, frames
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (frames, size, size, 3), dtype=np.uint8) // 2
        motion = np.full((frames, size, size, 2), 128, np.uint8)
        side = size // 4
        for t in range(frames):
            x = (4 * t) % (size - side)
            pixels[t, x : x + side, x : x + side] += 100
            motion[t, x : x + side, x : x + side] = 160
        # one array per video: reading goes through as much memory as with files in the page cache
        self.pixels = {f"v{i}": np.roll(pixels, i, axis=1) for i in range(videos)}
        self.motion = {f"v{i}": np.roll(motion, i, axis=1) for i in range(videos)}
        self.rgb, self.flow = self.pixels.__getitem__, self.motion.__getitem__

    def n_frames(self, video: str) -> int:
        return self.frames


def rendered(cfg: Any, videos: int) -> TrainingData:
    """Both domains' training videos; the target's labels are withheld."""
    cache = Arrays(videos, 3 * cfg.data.frames, cfg.data.cache_size)
    classes = [f"c{i}" for i in range(12)]
    names = list(cache.pixels)

    def make(withheld: bool, augment: bool) -> ClipDataset:
        labels = [i % len(classes) for i in range(videos)]
        table: Any = Table(video=names, label=labels)
        shape = {"clips": cfg.data.clips, "frames": cfg.data.frames, "crop": cfg.data.crop}
        return ClipDataset(cache, table, augment=augment, withhold_labels=withheld, **shape)

    sides = (("source", False), ("target", True))
    train, plain = ({d: make(w, augment) for d, w in sides} for augment in (True, False))
    return TrainingData(classes, train, plain)


class Loop:
    """What an epoch asks of Lightning's Fabric."""

    def __init__(self, device: torch.device):
        self.device = device

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip_gradients(self, module: nn.Module, optimizer: Any, max_norm: float, **_: Any) -> Any:
        return nn.utils.clip_grad_norm_(module.parameters(), max_norm)


# --- measuring -----------------------------------------------------------------------------------
class Bench:
    """Cases one after the other until the time is over."""

    def __init__(self, device: str, minutes: float):
        self.device, self.end = torch.device(device), time.monotonic() + 60 * minutes
        self.cuda = device == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def case(self, measure: Callable[..., dict[str, Any]], *given: Any, **more: Any) -> dict:
        """What `measure` finds and its peak memory, or why there is nothing."""
        if time.monotonic() > self.end:
            return {"skipped": "no time left"}
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            found = measure(self, *given, **more)
        except torch.cuda.OutOfMemoryError as error:
            return {"out_of_memory": str(error).splitlines()[0]}
        except Exception as error:  # one case must not cost the others
            return {"failed": f"{type(error).__name__}: {error}"[:500]}
        if self.cuda:
            found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return found

    def seconds(self, job: Callable[[], Any], at_least: float = 1.0) -> float:
        """Mean time of a job, after two that are not counted; on a CPU, of its first time."""
        for _ in range(2 if self.cuda else 0):
            job()
        self.wait()
        start, times = time.perf_counter(), 0
        while times == 0 or (self.cuda and time.perf_counter() - start < at_least):
            job()
            self.wait()
            times += 1
        return (time.perf_counter() - start) / times


def tf32(on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def products(bench: Bench, side: int) -> dict[str, Any]:
    """Matrix products, TFLOP/s."""
    found: dict[str, Any] = {"side": side}
    kinds = {"float32": (torch.float32, False), "tf32": (torch.float32, True)}
    for name, (kind, allowed) in {**kinds, "bfloat16": (torch.bfloat16, True)}.items():
        tf32(allowed)
        a = torch.randn(side, side, device=bench.device, dtype=kind)
        seconds = bench.seconds(lambda a=a: a @ a, 0.5)
        found[name] = round(2 * side**3 / seconds / 1e12, 3)
    return found


def flops_per_clip(backbone: str, cfg: Any) -> float:
    """Of a forward and a backward pass of one RGB clip: three times the forward pass."""
    encoder = BACKBONES[backbone](3).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.rand(1, 3, cfg.data.frames, cfg.data.crop, cfg.data.crop, device="meta"))
    return 3.0 * counter.get_total_flops()


def bytes_of(cfg: Any, clips: int, device: torch.device) -> torch.Tensor:
    """Random RGB clips (1, K, 3, T, H, W), their channels last in memory."""
    shape = (1, clips, cfg.data.frames, cfg.data.crop, cfg.data.crop, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device).movedim(-1, 2)


def encoder(
    bench: Bench,
    backbone: str,
    clips: int,
    at_once: int | None,
    how: str,
    peaks: dict[str, float],
    small: dict[str, Any],
) -> dict[str, Any]:
    """Clips per second of a stream's encoder, forward and backward, from bytes."""
    cfg = configuration(backbone=backbone, clips_at_once=at_once, **small)
    half = how.startswith("bfloat16")
    cfg.optim.precision = "bf16-mixed" if half else "32-true"
    tf32(how != "float32")
    stream = Stream("rgb", cfg, 12).to(bench.device).train()
    if "channels last" in how:
        last = torch.channels_last if backbone == "bn_inception" else torch.channels_last_3d
        stream.encoder.to(memory_format=last)
    if "compiled" in how:
        stream.encoder.compile()
    x = bytes_of(cfg, clips, bench.device)

    def job() -> None:
        stream.zero_grad(set_to_none=True)
        stream.clip_features(x).square().mean().backward()

    per_second = clips / bench.seconds(job)
    work = flops_per_clip(backbone, cfg) * per_second / 1e12  # without what is computed twice
    peak = peaks["bfloat16" if half else "tf32" if how == "tf32" else "float32"]
    return {
        "clips": clips,
        "clips_per_second": round(per_second, 2),
        "share_of_matmul_peak": round(work / peak, 4),
    }


def plain_i3d(bench: Bench, clips: int, small: dict[str, Any]) -> dict[str, Any]:
    """I3D as its public module computes it: float32, floats in memory, all clips at once."""
    cfg, found = configuration(**small), InceptionI3D(3).to(bench.device).train()
    tf32(False)
    x = bytes_of(cfg, clips, bench.device)[0].float().div_(255)

    def job() -> None:
        found.zero_grad(set_to_none=True)
        found(x).square().mean().backward()

    return {"clips": clips, "clips_per_second": round(clips / bench.seconds(job), 2)}


def epochs(
    bench: Bench,
    backbone: str,
    stages: tuple[int, ...],
    at_once: int | None,
    precision: str,
    videos: int,
    small: dict[str, Any],
) -> dict[str, Any]:
    """One epoch of each stage of STCDA: seconds per step and the share of waiting for data."""
    cfg = configuration(
        backbone=backbone, clips_at_once=at_once, precision=precision, method="stcda", **small
    )
    tf32(True)
    torch.manual_seed(0)
    method = method_class("stcda")(cfg, rendered(cfg, videos)).to(bench.device)
    loop, found = Loop(bench.device), {}
    for stage in stages:
        optimizer = steps.make_optimizer(method, stage)
        method.start_stage(stage)
        method.pseudo[:] = torch.arange(videos, device=bench.device) % len(method.data.classes)
        waited: list[float] = []
        ahead = steps.ahead

        def timed(*given: Any, ahead: Any = ahead, waited: list = waited) -> Iterator:
            loaded = ahead(*given)
            while True:
                bench.wait()  # for the step before; the next batch should be there by then
                start = time.perf_counter()
                try:
                    batch = next(loaded)
                except StopIteration:
                    return
                waited.append(time.perf_counter() - start)
                yield batch

        steps.ahead = timed
        try:
            start = time.perf_counter()
            terms = steps.run_epoch(loop, method, method, optimizer, stage, 0)
            bench.wait()
            seconds = time.perf_counter() - start
        finally:
            steps.ahead = ahead
        count = len(waited)
        found[f"stage {stage}"] = {
            "steps": count,
            "seconds_per_step": round((seconds - waited[0]) / count, 4),
            "seconds_for_the_first_batch": round(waited[0], 4),
            "share_of_waiting": round(sum(waited[1:]) / (seconds - waited[0]), 4),
            "terms": {name: round(value, 4) for name, value in terms.items()},
        }
    if bench.cuda:
        found["reads_values_in_a_step"] = reads(method, stages[-1], bench.device)
    return found


def reads(method: Any, stage: int, device: torch.device) -> str:
    """'none', or what CUDA's own check for synchronisation says of one step."""
    first, second = method.batches(stage, 0)[0]
    views = method.views(stage)
    pair = [
        steps.to_device(steps.assembled(device, method.data.train[d], chosen, **views), device)
        for d, chosen in (("source", first), ("target", second))
    ]
    optimizer = steps.make_optimizer(method, stage)
    step = steps.Step(stage, 0, 0.5, torch.Generator().manual_seed(0))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        method(*pair, step)[0].backward()
        optimizer.step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def machine(device: str) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    found = {"device": "CPU", "memory_gib": None}
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        found = {"device": about.name, "memory_gib": round(about.total_memory / 2**30, 1)}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"numpy": np.__version__, "cuda": torch.version.cuda}
    versions["cudnn"] = torch.backends.cudnn.version()
    return {**found, "versions": versions, "opencv": OPENCV, "commit": commit or None}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--minutes", type=float, default=9.0, help="no case starts after them")
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--tiny", action="store_true", help="sizes for trying the script out")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu --tiny tries the script out")
    if args.device == "cpu" and args.out == OUT:
        parser.error(f"{OUT.name} holds measurements of a GPU: give --out for a CPU")
    bench = Bench(args.device, args.minutes)
    small: dict[str, Any] = {}
    clips, whole, videos, side, at_once = 96, 24, 128, 8192, args.at_once
    if args.tiny:
        small = {"crop": 32, "cache_size": 36, "frames": 2, "batch": 6, "nce_k": 4}
        small |= {"cas_classes": 3, "cas_per_class": 1}
        clips, whole, videos, side, at_once = 4, 2, 6, 64, 5
    result: dict[str, Any] = {"command": " ".join(["python benchmarks/gpu.py", *sys.argv[1:]])}
    result |= {"machine": machine(args.device), "tiny": args.tiny}

    def done(**more: Any) -> None:
        result.update(more)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")  # a killed run leaves its cases

    done(matmul_tflops=bench.case(products, side))
    peaks = result["matmul_tflops"]
    # First of all: does the paper's batch train?
    trained: dict[str, Any] = {}
    for backbone in BACKBONES:
        for precision, chunk in (("bf16-mixed", at_once), ("32-true", at_once)):
            name = f"{backbone}, {precision}, {chunk} clips at once"
            stages = (1, 2, 3) if precision == "bf16-mixed" else (3,)
            trained[name] = bench.case(epochs, backbone, stages, chunk, precision, videos, small)
            done(steps=trained)
    encoders: dict[str, Any] = {}
    for backbone in BACKBONES:
        hows = ["float32", "tf32", "bfloat16", "bfloat16, channels last", "bfloat16, compiled"]
        for how in hows if bench.cuda else hows[:4]:  # compiling for a CPU takes minutes
            for n, chunk in ((whole, None), (clips, at_once)):
                name = f"{backbone}, {how}, {chunk or 'all'} clips at once"
                encoders[name] = bench.case(encoder, backbone, n, chunk, how, peaks, small)
                done(encoders=encoders)
    done(plain_i3d=bench.case(plain_i3d, whole, small))
    fast = [
        case.get("clips_per_second", 0) for name, case in encoders.items() if name.startswith("i3d")
    ]
    base = result["plain_i3d"].get("clips_per_second")
    done(i3d_over_plain=round(max(fast) / base, 2) if base else None)
    # Last, as it is expected to fail: everything at once.
    for backbone in BACKBONES:
        name = f"{backbone}, bf16-mixed, all clips at once"
        trained[name] = bench.case(epochs, backbone, (3,), None, "bf16-mixed", videos, small)
        done(steps=trained)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
