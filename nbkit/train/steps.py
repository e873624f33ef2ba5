"""One epoch of a stage: batches, steps, the optimizer, and what the history says of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nbkit.errors import NbkitError
from nbkit.methods.base import Batch, Method, Step
from nbkit.methods.batches import ahead, assembled, to_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# What a step says, still on the device: its loss, the norm of its gradient, its terms.
Said = tuple[Tensor, Tensor, dict[str, Tensor]]


def run_epoch(
    fabric: Fabric, module: Any, method: Method, optimizer: Any, stage: int, epoch: int
) -> dict[str, float]:
    """Run one pass over the labelled set; returns the mean of every term, unweighted.

    No step reads a value from the device, so that the host prepares the next ones meanwhile.

    Raises:
        NbkitError: at the end of the epoch, naming the first step whose loss or gradient was not
            finite.
    """
    cfg, train = method.cfg, method.data.train
    method.train()
    for dataset in train.values():
        dataset.set_epoch(10_000 * stage + epoch)
    batches, views = method.batches(stage, epoch), method.views(stage)

    def load(pair: tuple[np.ndarray, np.ndarray]) -> tuple[Batch, Batch | None]:
        first = assembled(fabric.device, train[method.labelled[0]], pair[0], **views)
        if not method.uses_target:
            return first, None
        return first, assembled(fabric.device, train["target"], pair[1], **views)

    said: list[Said] = []
    loaded = ahead(load, batches)
    if cfg.watch.progress:
        from tqdm.auto import tqdm  # only where somebody looks

        title = f"stage {stage} epoch {epoch + 1}"
        loaded = tqdm(loaded, desc=title, total=len(batches), leave=False, mininterval=2)
    for i, (first, second) in enumerate(loaded):
        progress = (epoch + i / len(batches)) / cfg.optim.epochs[stage - 1]
        set_lr(optimizer, cfg, stage, epoch, progress)
        first = to_device(first, fabric.device)
        if second is not None:
            second = to_device(second, fabric.device)
        generator = torch.Generator().manual_seed(seed_of(cfg, stage, epoch) * 100_003 + i)
        loss, terms = module(first, second, Step(stage, epoch, progress, generator))
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        norm = loss.detach()
        if cfg.optim.grad_clip:
            most = cfg.optim.grad_clip
            norm = fabric.clip_gradients(module, optimizer, max_norm=most, error_if_nonfinite=False)
        optimizer.step()
        terms = {name: value.detach() for name, value in terms.items()}
        said.append((loss.detach(), norm, terms))
    return _means(said, f"stage {stage}, epoch {epoch + 1}")


def _means(said: list[Said], place: str) -> dict[str, float]:
    checked = torch.stack([torch.stack([loss, norm]) for loss, norm, _ in said]).tolist()
    for i, (loss, norm) in enumerate(checked):
        if not math.isfinite(loss + norm):
            values = {name: float(value) for name, value in said[i][2].items()}
            raise NbkitError(
                f"the loss is {loss}, the gradient's norm {norm} in {place}, step {i + 1} "
                f"({values}); lower LR or ALPHA, or set GRAD_CLIP"
            )
    sums: dict[str, float] = {}
    for name in said[0][2]:
        for value in torch.stack([terms[name] for _, _, terms in said]).tolist():
            sums[name] = sums.get(name, 0.0) + value
    return {name: total / len(said) for name, total in sums.items()}


# --- seeds and optimisation ----------------------------------------------------------------------
def seed_of(cfg: Any, stage: int, epoch: int) -> int:
    """One seed per (run seed, stage, epoch): resuming needs no stored random state."""
    # A step multiplies by 100,003, and torch takes 64 bits; seeds below 7 million are as they are.
    return ((cfg.seed * 1009 + stage) * 10_007 + epoch + 1) % 2**46


def make_optimizer(method: Method, stage: int) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 (the paper) or AdamW."""
    optim = method.cfg.optim
    parameters = [p for p in method.trainable(stage) if p.requires_grad]
    rates: dict[str, Any] = {"lr": optim.lr[stage - 1], "weight_decay": optim.weight_decay}
    # one kernel for all parameters where that exists
    rates["fused"] = parameters[0].is_cuda or None
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
