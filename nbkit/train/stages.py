"""Training one stage of a recognition run: epochs, steps, checkpoints.

A stage that two rows share is trained once: its key is a hash of all that its method reads in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from tqdm.auto import tqdm

from nbkit.config import digest
from nbkit.errors import NbkitError
from nbkit.methods.base import Method, Step
from nbkit.methods.passes import in_batches, require_finite, to_device
from nbkit.train.checkpoint import read_checkpoint, stage_file, write_checkpoint
from nbkit.train.domains import Domains
from nbkit.train.selection import due, record

History = list[dict[str, Any]]


def stage_key(method: Method, stage: int, data_key: str) -> str:
    """Hash of all that determines the weights at the end of `stage`, earlier stages included."""
    chain = []
    for each in range(1, stage + 1):
        if not method.skips(each):
            chain.append({"stage": each, **method.determined_by(each)})
    return digest([chain, data_key], 16)


def train_stage(fabric: Fabric, method: Method, stage: int, domains: Domains) -> History:
    """Train (or load) one stage in place; returns its history, one row per epoch."""
    cfg, epochs = method.cfg, method.cfg.optim.epochs[stage - 1]
    with stage_file(cfg, stage_key(method, stage, domains.data_key)) as path:
        state = read_checkpoint(path, "epoch", "history", "model", "optimizer", "extra")
        if state:
            restore(method, stage, state, path)
            if state["epoch"] == epochs:
                return state["history"]
        module, optimizer = fabric.setup(method, make_optimizer(method, stage))
        history: History = []
        if state:
            optimizer.load_state_dict(state["optimizer"])
            history = state["history"]
        elif epochs:
            torch.manual_seed(seed_of(cfg, stage, -1))
            method.train()
            method.start_stage(stage)
        for epoch in range(len(history), epochs):
            # Dropout draws from the global generator; all else has a generator of its own.
            torch.manual_seed(seed_of(cfg, stage, epoch))
            started = time.perf_counter()
            row = {"stage": stage, "epoch": epoch + 1, **method.start_epoch(stage, epoch)}
            with refusing_ruin(method, row):
                row |= run_epoch(fabric, module, method, optimizer, stage, epoch)
            row["seconds"] = round(time.perf_counter() - started, 2)
            if due(method, stage, epoch):
                row |= record(method, domains, fabric.device)
            history.append(row)
            save_stage(path, method, stage, optimizer, history)
            if not cfg.watch.progress:
                print(_line(row), flush=True)
        if not epochs:
            save_stage(path, method, stage, optimizer, history)
    return history


def run_epoch(
    fabric: Fabric, module: Any, method: Method, optimizer: Any, stage: int, epoch: int
) -> dict[str, float]:
    """Run one pass over the labelled set; returns the mean of every term, unweighted."""
    cfg, train = method.cfg, method.data.train
    method.train()
    for dataset in train.values():
        dataset.set_epoch(10_000 * stage + epoch)
    batches, views = method.batches(stage, epoch), method.views(stage)
    sums: dict[str, float] = {}
    for i, (labelled, unlabelled) in enumerate(_watched(batches, cfg, stage, epoch)):
        progress = (epoch + i / len(batches)) / cfg.optim.epochs[stage - 1]
        set_lr(optimizer, cfg, stage, epoch, progress)
        first = train[method.labelled[0]].batch(labelled, **views)
        second = None
        if method.uses_target:
            second = to_device(train["target"].batch(unlabelled, **views), fabric.device)
        generator = torch.Generator().manual_seed(seed_of(cfg, stage, epoch) * 100_003 + i)
        step = Step(stage, epoch, progress, generator)
        loss, terms = module(to_device(first, fabric.device), second, step)
        if not torch.isfinite(loss):
            _refuse(loss, terms, stage, epoch, i)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if cfg.optim.grad_clip:
            most = cfg.optim.grad_clip
            fabric.clip_gradients(module, optimizer, max_norm=most, error_if_nonfinite=False)
        optimizer.step()
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    return {name: total / len(batches) for name, total in sums.items()}


def _watched(batches: list, cfg: Any, stage: int, epoch: int) -> Any:
    title = f"stage {stage} epoch {epoch + 1}"
    silent = not cfg.watch.progress
    return tqdm(batches, desc=title, leave=False, mininterval=2, disable=silent)


def _line(row: dict[str, Any]) -> str:
    texts = [f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()]
    return "  ".join(texts)


def _refuse(loss: torch.Tensor, terms: dict, stage: int, epoch: int, i: int) -> None:
    values = {name: float(value.detach()) for name, value in terms.items()}
    raise NbkitError(
        f"the loss is {loss.item()} in stage {stage}, epoch {epoch + 1}, step {i + 1} ({values}); "
        "lower LR or ALPHA, or set GRAD_CLIP"
    )


@contextmanager
def refusing_ruin(method: Method, row: dict[str, Any]) -> Iterator[None]:
    """NbkitError after an epoch that left a network of NaN, or met a video that holds one."""
    try:
        yield
        if not all(torch.isfinite(value).all() for value in method.state_dict().values()):
            raise NbkitError(
                f"the network is not finite after stage {row['stage']}, epoch {row['epoch']}; "
                "lower LR or ALPHA, or set GRAD_CLIP"
            )
    except NbkitError:
        for data in method.data.plain.values():
            for batch in in_batches(data, torch.device("cpu")):
                require_finite(batch, data.videos, "clips")
        raise


# --- seeds and optimisation ----------------------------------------------------------------------
def seed_of(cfg: Any, stage: int, epoch: int) -> int:
    """One seed per (run seed, stage, epoch): resuming needs no stored random state."""
    # A step multiplies by 100,003, and torch takes 64 bits; seeds below 7 million are as they are.
    return ((cfg.seed * 1009 + stage) * 10_007 + epoch + 1) % 2**46


def make_optimizer(method: Method, stage: int) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 (the paper) or AdamW."""
    optim = method.cfg.optim
    parameters = [p for p in method.trainable(stage) if p.requires_grad]
    rates = {"lr": optim.lr[stage - 1], "weight_decay": optim.weight_decay}
    if optim.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **rates)
    return torch.optim.AdamW(parameters, **rates)


def set_lr(optimizer: Any, cfg: Any, stage: int, epoch: int, progress: float) -> None:
    """Set a step's rate: divided by 10 after each of `lr_steps` (the paper), or half a cosine."""
    lr = cfg.optim.lr[stage - 1]
    if cfg.optim.lr_schedule == "step":
        lr *= 0.1 ** sum(epoch >= step for step in cfg.optim.lr_steps)
    else:
        lr *= 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = lr


# --- what a stage's checkpoint holds -------------------------------------------------------------
def save_stage(path: Path, method: Method, stage: int, optimizer: Any, history: History) -> None:
    """Write everything that a killed run needs to go on with the same numbers."""
    state = {
        "epoch": len(history),
        "history": history,
        "optimizer": optimizer.state_dict(),
        "model": method.model.state_dict(),
        "extra": own_state(method, stage),
    }
    write_checkpoint(path, state)


def own_state(method: Method, stage: int) -> dict[str, torch.Tensor]:
    """State beside the network's: banks, pseudo-labels, extra modules that the stage trains."""
    found = {}
    for name, value in method.state_dict().items():
        if not name.startswith("model.") and method.keeps(stage, name):
            found[name] = value
    return found


def restore(method: Method, stage: int, state: dict, path: Path) -> None:
    """Load weights.  Extra modules that the stored row did not have stay as they are."""
    try:
        method.model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise NbkitError(
            f"{path}: weights of another network, written by another version of the suite. Move "
            f"the file away and run again ({error})"
        ) from None
    own = own_state(method, stage)
    known = {name: value for name, value in state["extra"].items() if name in own}
    method.load_state_dict(known, strict=False)
