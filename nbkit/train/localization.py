"""Training the localizer: one readable loop on Lightning Fabric, resumable, with a history.

Reproducibility rests on three habits. Every step draws its batches and its random numbers from
(seed, step) alone, so a resumed run continues bit for bit without stored random states. The
labelled source goes through the detector before anything adversarial happens, so an adaptation
module never shifts the detector's random numbers. And each branch has its gradient clipped by its
own norm: a module that acts on the temporal branch leaves the key-frame branch, and with it the
proposals, exactly as they are without it.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from nbkit.config.localization import LocalizationConfig
from nbkit.data.keyframes import KeyframeDataset
from nbkit.errors import NbkitError
from nbkit.files import write_csv
from nbkit.losses.adversarial import action_loss, adversarial_loss, localization_objective, ramp
from nbkit.memory import keep_freed_memory
from nbkit.models.localizer import Localizer
from nbkit.models.localizer_sizes import build_discriminators, build_localizer, default_settings
from nbkit.models.norm import use_domain
from nbkit.train.checkpoint import read_checkpoint, write_checkpoint


class LocalizationModel(nn.Module):
    """Detector and discriminators as one module, so that one forward pass computes every loss of a
    step.
    """

    def __init__(self, cfg: LocalizationConfig, n_classes: int):
        super().__init__()
        settings = replace(default_settings(cfg.detector.size, cfg.data.height), temporal_pool=cfg.detector.temporal_pool)
        files = {"keyframe": cfg.detector.keyframe_weights, "temporal": cfg.detector.temporal_weights}
        self.detector = build_localizer(
            cfg.detector.size,
            n_classes,
            height=cfg.data.height,
            norm=cfg.detector.norm,
            weights=files,
            settings=settings,
            tf1_end=cfg.detector.tf1_end,
            tf2_pool5a=cfg.detector.tf2_pool5a,
            seed=cfg.seed,
        )
        self.discriminators = build_discriminators(
            cfg.detector.size,
            cfg.adapt,
            self.detector,
            gamma=cfg.adaptation.gamma,
            reduction=cfg.adaptation.adv_reduction,
            ds_norm=cfg.adaptation.ds_norm,
            seed=cfg.seed,
        )

    def forward(
        self, source: dict, target: dict | None, beta: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The four terms of Eq. (1), and the terms of Eq. (6) that are in use (none without
        discriminators).
        """
        act, seen_source = self.detector.source_step(source)
        if self.discriminators is None:
            return act, {}
        with use_domain(self.detector, "target"):
            seen_target = self.detector.target_step(
                target, instances="t_ins" in self.discriminators.adapt
            )
        return act, self.discriminators(seen_source, seen_target, beta)

    def groups(self) -> list[list[nn.Parameter]]:
        """Trainable parameters of the key-frame branch, the temporal branch and the discriminators."""
        parts = [self.detector.spatial_parameters(), self.detector.temporal_parameters()]
        return parts + (
            [list(self.discriminators.parameters())] if self.discriminators is not None else []
        )


def learning_rate(cfg: LocalizationConfig, step: int) -> float:
    """Rate of a step (0-based): warm-up, then cosine to zero or one division by ten at 5/7."""
    rate = cfg.optim.lr * min(1.0, (step + 1) / cfg.optim.warmup) if cfg.optim.warmup else cfg.optim.lr
    if cfg.optim.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * step / cfg.optim.steps))
    return rate * (0.1 if step >= cfg.optim.steps * 5 / 7 else 1.0)


def reversal(cfg: LocalizationConfig, step: int) -> float:
    """Coefficient of the gradient reversal at a step."""
    return cfg.adaptation.beta * (ramp(step / cfg.optim.steps) if cfg.adaptation.beta_ramp else 1.0)


def step_indices(
    n: int, cfg: LocalizationConfig, step: int, domain: int, rank: int = 0, world: int = 1
) -> np.ndarray:
    """Key frames of one step: `batch` different ones (all of a smaller set), this process's share
    of them.
    """
    rng = np.random.default_rng([cfg.seed, step, domain])
    return rng.permutation(n)[: cfg.optim.batch][rank::world]


def make_optimizer(cfg: LocalizationConfig, model: LocalizationModel) -> torch.optim.Optimizer:
    """One parameter group each for the key-frame branch, the temporal branch and the
    discriminators.
    """
    groups = [{"params": g} for g in model.groups()]
    if cfg.optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=cfg.optim.lr, weight_decay=cfg.optim.weight_decay)
    return torch.optim.SGD(groups, lr=cfg.optim.lr, momentum=0.9, weight_decay=cfg.optim.weight_decay)


def train_localizer(
    cfg: LocalizationConfig,
    classes: list[str],
    source: KeyframeDataset,
    target: KeyframeDataset | None = None,
    folder: str | Path | None = None,
    *,
    fabric: Fabric | None = None,
    progress: bool = False,
    stop_after: int | None = None,
) -> tuple[LocalizationModel, list[dict]]:
    """Train one row of the tables.

    Args:
        source: labelled key frames. For the oracle these are the target's, with `cfg.adapt` empty.
        target: key frames of the unlabelled domain; needed when `cfg.adapt` is not empty.
        folder: gets `history.csv` and `checkpoint.pt`; a run found there goes on where it
            stopped. None: nothing kept.
        stop_after: leave after so many steps of this call (to show that resuming works).
    Returns:
        the model in evaluation mode, and the history: one dict a logged step.
    """
    _check(cfg, source, target)
    keep_freed_memory()
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    model = LocalizationModel(cfg, len(classes))
    optimizer = make_optimizer(cfg, model)
    wrapped, optimizer = fabric.setup(model, optimizer)
    path = None if folder is None else Path(folder) / "checkpoint.pt"
    first, history = load_checkpoint(path, cfg, classes, model, optimizer)
    last = cfg.optim.steps if stop_after is None else min(cfg.optim.steps, first + stop_after)
    for step in tqdm(range(first, last), "steps", disable=not progress):
        row = train_step(fabric, wrapped, model, optimizer, cfg, source, target, step)
        if step % cfg.watch.log_every == 0 or step == cfg.optim.steps - 1:
            history.append(row)
        done = step + 1
        if (
            path is not None
            and fabric.global_rank == 0
            and (done % cfg.watch.save_every == 0 or done == last)
        ):
            save_checkpoint(path, cfg, classes, model, optimizer, done, history)
            write_csv(path.parent / "history.csv", history)
    fabric.barrier()
    return model.eval(), history


def train_step(
    fabric: Fabric,
    wrapped,
    model: LocalizationModel,
    optimizer,
    cfg: LocalizationConfig,
    source: KeyframeDataset,
    target: KeyframeDataset | None,
    step: int,
) -> dict[str, float]:
    """One step of Eq. (7); returns what history.csv records of it."""
    start, rate, beta = time.perf_counter(), learning_rate(cfg, step), reversal(cfg, step)
    batches = []
    for domain, data in enumerate((source, target if cfg.adapt else None)):
        if data is None:
            batches.append(None)
            continue
        data.set_epoch(step)
        chosen = step_indices(len(data), cfg, step, domain, fabric.global_rank, fabric.world_size)
        batches.append(fabric.to_device(data.batch(chosen)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(
        int(np.random.SeedSequence([cfg.seed, step, fabric.global_rank]).generate_state(1)[0])
    )
    wrapped.train()
    act, adv = wrapped(*batches, beta)
    loss = action_loss(**act)
    if adv:
        loss = localization_objective(loss, adversarial_loss(adv), cfg.adaptation.lam)
    if not torch.isfinite(loss):
        parts = {k: float(v) for k, v in {**act, **adv}.items()}
        raise NbkitError(
            f"step {step}: the loss is not finite ({parts}). Lower LR, LAM or BETA, or set GRAD_CLIP"
        )
    optimizer.zero_grad()
    fabric.backward(loss)
    if cfg.optim.grad_clip:
        for group in model.groups():
            nn.utils.clip_grad_norm_(group, cfg.optim.grad_clip)
    optimizer.step()
    values = {k: float(v.detach()) for k, v in {"loss": loss, **act, **adv}.items()}
    return {
        "step": step,
        **values,
        "lr": rate,
        "beta": beta,
        "lam": cfg.adaptation.lam,
        "seconds": time.perf_counter() - start,
    }


def save_checkpoint(path: Path, cfg, classes, model, optimizer, step: int, history: list) -> None:
    """Everything a later call needs, in one atomic file."""
    state = {
        "config": cfg.key(),
        "classes": list(classes),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "history": history,
    }
    write_checkpoint(path, state)


def load_checkpoint(path: Path | None, cfg, classes, model, optimizer) -> tuple[int, list]:
    """-> (steps done, history). (0, []) without a file; NbkitError for a file of another run, or a
    broken one.
    """
    state = None if path is None else read_checkpoint(path)
    if state is None:
        return 0, []
    if (state.get("config"), state.get("classes")) != (cfg.key(), list(classes)):
        raise NbkitError(
            f"{path}: belongs to a run with another configuration. Choose another folder, or delete it."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), list(state["history"])


def load_detector(folder: str | Path, cfg: LocalizationConfig, classes: list[str]) -> Localizer:
    """The detector of a finished run, in evaluation mode."""
    model = LocalizationModel(cfg, len(classes))
    path = Path(folder) / "checkpoint.pt"
    step, _ = load_checkpoint(path, cfg, classes, model, make_optimizer(cfg, model))
    if step < cfg.optim.steps:
        raise NbkitError(f"{path}: {step} of {cfg.optim.steps} steps are done. Finish the run first.")
    return model.eval().detector


def _check(
    cfg: LocalizationConfig, source: KeyframeDataset, target: KeyframeDataset | None
) -> None:
    if source.withhold_labels:
        raise NbkitError(
            "the labelled domain was opened with withhold_labels=True: there is nothing to learn from"
        )
    if cfg.adapt and target is None:
        raise NbkitError(f"adapt={list(cfg.adapt)} needs key frames of the unlabelled domain")
    if cfg.adapt and not target.withhold_labels:
        raise NbkitError(
            "open the unlabelled domain with withhold_labels=True: its annotation must not be read"
        )
