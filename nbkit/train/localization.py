"""Training the localizer, and `run(cfg)`: train what is missing, evaluate, write the run folder.

Every step draws its batches and its random numbers from (seed, step) alone, so a resumed run
continues bit for bit.  The labelled source goes through the detector before anything adversarial,
and each branch has its gradient clipped by its own norm: so a module that acts on the temporal
branch leaves the key-frame branch, and with it the proposals, exactly as they are without it.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from nbkit.config import digest
from nbkit.config.localization import LocalizationConfig
from nbkit.data.keyframes import KeyframeDataset
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import COLUMNS
from nbkit.files import atomically, write_csv, write_json
from nbkit.losses.adversarial import action_loss, adversarial_loss, localization_objective, ramp
from nbkit.models.localizer import Localizer
from nbkit.models.localizer_sizes import build_discriminators, build_localizer
from nbkit.models.norm import learning_statistics, use_domain
from nbkit.train.checkpoint import read_checkpoint, stage_file, write_checkpoint
from nbkit.train.localization_data import LocalizationData, load_data
from nbkit.train.localization_eval import adapt_statistics, evaluate_localizer, target_statistics
from nbkit.train.store import (
    Run,
    commit,
    environment,
    finish,
    read_run,
    run_folder,
    run_key,
    unfinished,
)


class LocalizationModel(nn.Module):
    """Detector and discriminators: one forward pass computes every loss of a step."""

    def __init__(self, cfg: LocalizationConfig, n_classes: int):
        super().__init__()
        height, seed = cfg.data.height, cfg.seed
        self.detector = build_localizer(cfg.detector, n_classes, height=height, seed=seed)
        self.discriminators = None
        if cfg.modules:
            fitting = (self.detector, cfg.adaptation, seed)
            self.discriminators = build_discriminators(cfg.modules, *fitting)

    def forward(
        self, source: dict, target: dict | None, beta: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The four terms of Eq. (1), and those of Eq. (6) that the row has.

        `target` is None where nothing is adapted.
        """
        act, seen_source = self.detector.source_step(source)
        if self.discriminators is None or target is None:
            return act, {}
        instances = "t_ins" in self.discriminators.names
        with use_domain(self.detector, "target"):
            seen_target = self.detector.target_step(target, instances)
        return act, self.discriminators(seen_source, seen_target, beta)


# --- run -----------------------------------------------------------------------------------------
def run(cfg: LocalizationConfig) -> Run:
    """Train (or reuse) the detector of `cfg`, test on the target, and return the `Run`."""
    data = load_data(cfg)
    folder = run_folder(cfg, data.key)
    with unfinished(folder) as todo:
        if todo:
            model, state = _trained(cfg, data)
            _write_run(folder, cfg, data, model.detector, state)
    return read_run(cfg, folder)


def trained_detector(cfg: LocalizationConfig) -> Localizer:
    """The detector of a run as it is evaluated, on the CPU; trained now where it never was.

    Read the target within `use_domain(detector, target_statistics(cfg.row))`.
    """
    model, _ = _trained(cfg, load_data(cfg))
    return model.detector.cpu()


def training_key(cfg: LocalizationConfig, data_key: str) -> str:
    """Hash of all that determines the trained weights: I3D+RPN and AdaBN have one in common."""
    sections = ["data", "detector", "optim"]
    if cfg.modules:
        sections.append("adaptation")
    labels_of = "target" if cfg.row == "oracle" else "source"
    return digest([cfg.part(*sections), cfg.modules, labels_of, data_key], 16)


def common_key(cfg: LocalizationConfig, data_key: str) -> str:
    """Hash of what determines the first `source_steps`, which all rows have in common."""
    return digest(["source steps", training_key(cfg.replace(row="I3D+RPN"), data_key)], 16)


def _trained(cfg: LocalizationConfig, data: LocalizationData) -> tuple[LocalizationModel, dict]:
    if cfg.watch.device == "cuda" and not torch.cuda.is_available():
        raise NbkitError("DEVICE='cuda', but no GPU is visible; use DEVICE='auto' or 'cpu'")
    fabric = Fabric(accelerator=cfg.watch.device, devices=1)
    if fabric.device.type == "cpu":
        torch.set_num_threads(cfg.watch.threads)  # the numbers depend on it
    domains = data.classes, data.labelled, data.target
    common = None
    if cfg.optim.source_steps and cfg.row != "oracle":
        plain = cfg.replace(row="I3D+RPN")
        with stage_file(cfg, common_key(cfg, data.key)) as common:
            train_localizer(fabric, plain, *domains, common, until=cfg.optim.source_steps)
    with stage_file(cfg, training_key(cfg, data.key)) as path:
        model, state = train_localizer(fabric, cfg, *domains, path, common)
    statistics_of_target = target_statistics(cfg.row) == "target"
    if cfg.row == "AdaBN" or (cfg.detector.norm == "per_domain" and statistics_of_target):
        # So no RoI head is judged with statistics that were never set.
        adapt_statistics(model.detector, data.target, cfg)
        _require_finite(model, "with the target's statistics")
    return model, state


def _write_run(
    folder: Path, cfg: LocalizationConfig, data: LocalizationData, detector: Localizer, state: dict
) -> None:
    started = time.perf_counter()
    statistics = target_statistics(cfg.row)
    scores, found = evaluate_localizer(detector, data.test, data.classes, cfg, statistics)
    # Of the logged steps: right for a resumed run, too.
    per_step = float(np.mean([row["seconds"] for row in state["history"]]))
    evaluated = time.perf_counter() - started
    write_json(folder / "config.json", cfg.flat())
    write_json(folder / "env.json", {**state["environment"], "scored_at": commit()})
    write_csv(folder / "history.csv", state["history"])
    columns = {name: getattr(found, name) for name in COLUMNS}
    columns["videos"] = np.array(data.test.videos)

    def save(part: Path) -> None:
        with part.open("wb") as file:  # given a path, numpy would append .npz to it
            np.savez_compressed(file, **columns)

    atomically(folder / "detections.npz", save)
    metrics = {
        "cell": run_key(cfg),
        **scores,
        "videos": len(data.test.videos),
        "selection": "last step",
        "split": cfg.evaluation.eval_split,
        "partial_data": data.partial,
        "seconds": {"train": per_step * cfg.optim.steps, "evaluate": evaluated},
        "finished": time.strftime("%FT%TZ", time.gmtime()),
    }
    finish(folder, metrics)


# --- training ------------------------------------------------------------------------------------
def train_localizer(
    fabric: Fabric,
    cfg: LocalizationConfig,
    classes: list[str],
    labelled: KeyframeDataset,
    target: KeyframeDataset,
    path: Path,
    common: Path | None = None,
    until: int | None = None,
) -> tuple[LocalizationModel, dict[str, Any]]:
    """Train a row up to step `until` (None: all), going on from the checkpoint at `path`.

    Without that file it goes on from the one at `common`, which is of a row without modules.

    Returns the model in evaluation mode and the checkpoint's state: `history`, one dict per logged
    step, and `environment`, in which the row's own training began.
    """
    if labelled.withhold_labels or not target.withhold_labels:
        raise NbkitError(
            "training reads labels of `labelled` alone: open that domain with "
            "withhold_labels=False, and the unlabelled one with withhold_labels=True"
        )
    model = LocalizationModel(cfg, len(classes))
    module, optimizer = fabric.setup(model, branch_optimizer(cfg, model))
    kept = ("step", "history", "environment", "model", "optimizer")
    state = read_checkpoint(path, *kept)
    if state is None and common is not None:
        state = read_checkpoint(common, *kept)
        if state is not None:  # the row's own training begins here
            state["environment"] = environment(fabric.device)
    if state is None:
        state = {"step": 0, "history": [], "environment": environment(fabric.device)}
    else:
        # That of `common` has no discriminators: these start now.
        model.load_state_dict({**model.state_dict(), **state["model"]})
        moments = state["optimizer"]["state"]
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    steps = range(state["step"], until or cfg.optim.steps)
    for step in tqdm(steps, "steps", disable=not cfg.watch.progress):
        row = train_step(fabric, module, optimizer, cfg, labelled, target, step)
        last = step == steps[-1]
        if step % cfg.watch.log_every == 0 or last:
            state["history"].append(row)
        if (step + 1) % cfg.watch.save_every == 0 or last:
            state["step"] = step + 1
            state["model"], state["optimizer"] = model.state_dict(), optimizer.state_dict()
            _require_finite(model, f"after step {step}")
            write_checkpoint(path, state)
    return model.eval(), state


def _require_finite(model: nn.Module, when: str) -> None:
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise NbkitError(f"the detector is not finite {when}. Lower LR, LAM or BETA")


def train_step(
    fabric: Fabric,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    cfg: LocalizationConfig,
    labelled: KeyframeDataset,
    target: KeyframeDataset,
    step: int,
) -> dict[str, float]:
    """One step of Eq. (7); returns what history.csv records of it, terms unweighted."""
    started = time.perf_counter()
    rate, beta = learning_rate(cfg, step), reversal(cfg, step)
    first, second = fabric.to_device(step_batch(cfg, labelled, step, 0)), None
    alone = step < cfg.optim.source_steps
    if cfg.modules and not alone:
        second = fabric.to_device(step_batch(cfg, target, step, 1))
    for group in optimizer.param_groups:
        group["lr"] = rate
    torch.manual_seed(int(np.random.SeedSequence([cfg.seed, step, 0]).generate_state(1)[0]))
    module.train()
    with learning_statistics(module, alone):
        act, adv = module(first, second, beta)
    loss = action_loss(**act)
    if adv:
        loss = localization_objective(loss, adversarial_loss(adv), cfg.adaptation.lam)
    values = {name: float(term.detach()) for name, term in {"loss": loss, **act, **adv}.items()}
    if not math.isfinite(values["loss"]):
        raise NbkitError(
            f"step {step}: the loss is not finite ({values}). Lower LR, LAM or BETA, or set "
            "GRAD_CLIP"
        )
    optimizer.zero_grad()
    fabric.backward(loss)
    if cfg.optim.grad_clip:
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], cfg.optim.grad_clip)
    optimizer.step()
    used = {"lr": rate, "beta": beta, "lam": cfg.adaptation.lam}
    return {"step": step, **values, **used, "seconds": time.perf_counter() - started}


def step_batch(cfg: LocalizationConfig, data: KeyframeDataset, step: int, domain: int) -> dict:
    """The batch of a step: `batch` different key frames, or all of a smaller set."""
    data.set_epoch(step)
    order = np.random.default_rng([cfg.seed, step, domain]).permutation(len(data))
    return data.batch(order[: cfg.optim.batch])


def learning_rate(cfg: LocalizationConfig, step: int) -> float:
    """Rate of a step (0-based): warm-up, then cosine to zero or one division by ten at 5/7."""
    optim, rate = cfg.optim, cfg.optim.lr
    if optim.warmup:
        rate *= min(1.0, (step + 1) / optim.warmup)
    if optim.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * step / optim.steps))
    return rate * 0.1 if step >= optim.steps * 5 / 7 else rate


def reversal(cfg: LocalizationConfig, step: int) -> float:
    """Coefficient of the gradient reversal at a step; its ramp begins with the adaptation."""
    first, beta = cfg.optim.source_steps, cfg.adaptation.beta
    if not cfg.adaptation.beta_ramp:
        return beta
    return beta * ramp(max(step - first, 0) / (cfg.optim.steps - first))


def branch_optimizer(cfg: LocalizationConfig, model: LocalizationModel) -> torch.optim.Optimizer:
    """One parameter group each for key-frame branch, temporal branch and discriminators."""
    parts = [model.detector.spatial_parameters(), model.detector.temporal_parameters()]
    if model.discriminators is not None:
        parts.append(list(model.discriminators.parameters()))
    groups, optim = [{"params": part} for part in parts], cfg.optim
    rates = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, **rates)
    return torch.optim.SGD(groups, momentum=0.9, **rates)
