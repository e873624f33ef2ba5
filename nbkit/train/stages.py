"""Training one stage: epochs, steps, checkpoints.  A stage that two rows share is trained once."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from lightning_fabric import Fabric
from tqdm.auto import tqdm

from nbkit.config import digest
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.methods.base import Method, Step
from nbkit.train.checkpoint import read_checkpoint, write_checkpoint
from nbkit.train.domains import get_batch
from nbkit.train.record import RESULT_VERSION
from nbkit.train.selection import due, record

# Fields that determine every stage; a method's own fields come from its signature().
COMMON = (
    "profile",
    "benchmark",
    "source",
    "target",
    "modalities",
    "seed",
    "split_seed",
    "demo_shift",
    "demo_seed",
    "demo_train",
    "demo_test",
    "clips",
    "frames",
    "frame_stride",
    "cache_size",
    "crop",
    "flow",
    "flow_clip",
    "backbone",
    "weights",
    "feature_dim",
    "aggregation",
    "head",
    "cls_on",
    "bn_mode",
    "dropout",
    "optimizer",
    "lr_steps",
    "lr_schedule",
    "weight_decay",
    "grad_clip",
    "batch",
    "precision",
)


def stage_key(method: Method, stage: int) -> str:
    """Hash of all that determines the weights at the end of `stage`, the stages before it included."""
    cfg, earlier = method.cfg, [s for s in range(1, stage + 1) if not method.skips(s)]
    chain = [
        {"stage": s, "epochs": cfg.optim.epochs[s - 1], "lr": cfg.optim.lr[s - 1], **method.signature(s)}
        for s in earlier
    ]
    common = {k: getattr(cfg, k) for k in COMMON}
    return digest(
        {
            "common": common,
            "chain": chain,
            "data": method.domains.data_key,
            "version": RESULT_VERSION[cfg.model.backbone],
        },
        16,
    )


def train_stage(fabric: Fabric, method: Method, stage: int) -> list[dict[str, Any]]:
    """Train (or load) one stage in place; returns its history, one row an epoch."""
    cfg = method.cfg
    folder = Path(cfg.watch.runs_dir) / "stages"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage_key(method, stage)}.pt"
    with FileLock(f"{path}.lock"):  # a second run that needs the same stage waits and then loads it
        state = read_checkpoint(path)
        if state and state["epoch"] == cfg.optim.epochs[stage - 1]:
            restore(method, stage, state, path)
            return state["history"]
        return _train(fabric, method, stage, path, state)


def _train(
    fabric: Fabric, method: Method, stage: int, path: Path, state: dict | None
) -> list[dict[str, Any]]:
    cfg, epochs = method.cfg, method.cfg.optim.epochs[stage - 1]
    optimizer = make_optimizer(method, cfg, stage)
    module, optimizer = fabric.setup(method, optimizer)
    history: list[dict[str, Any]] = []
    if state:
        restore(method, stage, state, path)
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
    elif epochs:
        torch.manual_seed(seed_of(cfg, stage, -1))
        method.train()
        method.start_stage(stage)
    for epoch in range(len(history), epochs):
        torch.manual_seed(
            seed_of(cfg, stage, epoch)
        )  # dropout; everything else has its own generators
        started = time.perf_counter()
        row = {"stage": stage, "epoch": epoch + 1, **method.start_epoch(stage, epoch)}
        row |= run_epoch(fabric, module, method, optimizer, stage, epoch)
        history.append({**row, "seconds": round(time.perf_counter() - started, 2)})
        if due(method, stage, epoch):
            history[-1] |= record(method, fabric.device)
        save_checkpoint(path, method, stage, optimizer, epoch + 1, history)
        if not cfg.watch.progress:
            print(
                "  ".join(
                    f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}"
                    for k, v in history[-1].items()
                ),
                flush=True,
            )
    if not epochs:
        save_checkpoint(path, method, stage, optimizer, 0, history)
    return history


def run_epoch(
    fabric: Fabric, module, method: Method, optimizer, stage: int, epoch: int
) -> dict[str, float]:
    """One pass over the labelled set; returns the mean of every term."""
    cfg = method.cfg
    method.train()
    for dataset in method.domains.train.values():
        dataset.set_epoch(10_000 * stage + epoch)
    batches = method.batches(stage, epoch)
    sums: dict[str, float] = {}
    bar = tqdm(
        batches,
        desc=f"stage {stage} epoch {epoch + 1}",
        leave=False,
        mininterval=2,
        disable=not cfg.watch.progress,
    )
    for i, (a, b) in enumerate(bar):
        progress = (epoch + i / len(batches)) / cfg.optim.epochs[stage - 1]
        set_lr(optimizer, cfg, stage, epoch, progress)
        contrast = cfg.stcl.alpha > 0 and cfg.method == "stcda"
        first = get_batch(method.domains.train[method.labelled[0]], a, cfg, fabric.device, contrast)
        second = (
            get_batch(method.domains.train["target"], b, cfg, fabric.device, contrast)
            if method.uses_target
            else None
        )
        generator = torch.Generator().manual_seed(seed_of(cfg, stage, epoch) * 100_003 + i)
        terms = module(first, second, Step(stage, epoch, progress, generator))
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise NbkitError(
                f"the loss is {loss.item()} in stage {stage}, epoch {epoch + 1}, step {i + 1} "
                f"({ {k: float(x.detach()) for k, x in terms.items()} }); lower LR or ALPHA, or set GRAD_CLIP"
            )
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if cfg.optim.grad_clip:
            fabric.clip_gradients(module, optimizer, max_norm=cfg.optim.grad_clip)
        optimizer.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    return {name: total / len(batches) for name, total in sums.items()}


def seed_of(cfg: RunConfig, stage: int, epoch: int) -> int:
    """One seed for every (run seed, stage, epoch): training needs no stored random state to resume."""
    return (cfg.seed * 1009 + stage) * 10_007 + epoch + 1


def make_optimizer(method: Method, cfg: RunConfig, stage: int) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 (the paper) or AdamW."""
    parameters = [p for p in method.trainable(stage) if p.requires_grad]
    if cfg.optim.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, cfg.optim.lr[stage - 1], momentum=0.9, weight_decay=cfg.optim.weight_decay
        )
    return torch.optim.AdamW(parameters, cfg.optim.lr[stage - 1], weight_decay=cfg.optim.weight_decay)


def set_lr(optimizer, cfg: RunConfig, stage: int, epoch: int, progress: float) -> None:
    """Divide by 10 after each of `lr_steps` epochs of the stage (the paper), or follow half a
    cosine.
    """
    lr = cfg.optim.lr[stage - 1]
    if cfg.optim.lr_schedule == "step":
        lr *= 0.1 ** sum(epoch >= s for s in cfg.optim.lr_steps)
    else:
        lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = lr


# --- checkpoints
# -------------------------------------------------------------------------------------------------
def save_checkpoint(
    path: Path, method: Method, stage: int, optimizer, epoch: int, history: list
) -> None:
    """Everything a killed run needs to go on with the same numbers, written atomically."""
    state = {
        "epoch": epoch,
        "history": history,
        "optimizer": optimizer.state_dict(),
        "model": method.model.state_dict(),
        "extra": own_state(method, stage),
    }
    write_checkpoint(path, state)


def own_state(method: Method, stage: int) -> dict[str, torch.Tensor]:
    """What a stage's checkpoint holds beside the network: banks, pseudo-labels, extra modules that
    the stage trains.
    """
    return {
        k: v
        for k, v in method.state_dict().items()
        if not k.startswith("model.") and method.keeps(stage, k)
    }


def restore(method: Method, stage: int, state: dict, path: Path) -> None:
    """Weights into the method.  Extra modules that the stored row did not have (banks, say) stay as
    they are.
    """
    try:
        method.model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise NbkitError(
            f"{path}: weights of another network, written by another version of the suite. Move the file away "
            f"and run again ({error})"
        ) from None
    own = own_state(method, stage)
    method.load_state_dict({k: v for k, v in state["extra"].items() if k in own}, strict=False)
