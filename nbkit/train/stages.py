"""Training one stage of a recognition run: epochs and checkpoints.

A stage that two rows share is trained once: its key is a hash of all that its method reads in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from nbkit.config import digest
from nbkit.errors import NbkitError
from nbkit.methods.base import Method
from nbkit.methods.passes import in_batches, require_finite
from nbkit.train.checkpoint import read_checkpoint, stage_file, write_checkpoint
from nbkit.train.domains import Domains
from nbkit.train.selection import due, record
from nbkit.train.steps import make_optimizer, run_epoch, seed_of

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


def _line(row: dict[str, Any]) -> str:
    texts = []
    for name, value in row.items():
        if isinstance(value, float):
            value = f"{value:.3f}"
        texts.append(f"{name} {value}")
    return "  ".join(texts)


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
