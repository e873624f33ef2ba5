"""`run(cfg)`: train what is missing, evaluate, write the run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.evaluate.accuracy import per_class, top1
from nbkit.files import write_csv, write_json
from nbkit.methods import method_class
from nbkit.methods.base import STAGES, Method
from nbkit.methods.passes import Features
from nbkit.train.checkpoint import stage_path
from nbkit.train.domains import Domains, load_domains
from nbkit.train.selection import own_history, selected, target_features
from nbkit.train.shipped import shipped_weights
from nbkit.train.stages import History, restore, stage_key, train_stage
from nbkit.train.store import Run, environment, finish, read_run, run_folder, run_key, unfinished


class Prepared(NamedTuple):
    """What a run needs, untrained: Fabric (the device), the method, and both domains."""

    fabric: Fabric
    method: Method
    domains: Domains


def prepare(cfg: RunConfig) -> Prepared:
    """Data and method of `cfg`, untrained.  The user's input is checked here, before training."""
    run_key(cfg)  # refuses an unknown METHOD
    if cfg.watch.device == "cuda" and not torch.cuda.is_available():
        raise NbkitError("DEVICE='cuda', but no GPU is visible; use DEVICE='auto' or 'cpu'")
    fabric = Fabric(accelerator=cfg.watch.device, devices=1)
    if fabric.device.type == "cpu":
        torch.set_num_threads(cfg.watch.threads)  # the numbers depend on it
    make = method_class(cfg.method)
    domains = load_domains(cfg, make.labelled)
    torch.manual_seed(cfg.seed)
    method = fabric.to_device(make(cfg, domains.training))
    return Prepared(fabric, method, domains)


def run(cfg: RunConfig) -> Run:
    """Train (or reuse) the stages of `cfg`, test on the target, and return the `Run`."""
    prepared = prepare(cfg)
    folder = run_folder(cfg, prepared.domains.data_key)
    with unfinished(folder) as todo:
        if todo:
            made_with = environment(prepared.fabric.device)
            history = train(prepared)
            write_run(folder, prepared, history, made_with)
    return read_run(cfg, folder)


def train(prepared: Prepared) -> History:
    """Train all stages in order."""
    fabric, method, domains = prepared
    history: History = []
    for stage in STAGES:
        if not method.skips(stage):
            history += train_stage(fabric, method, stage, domains)
    return history


def load_or_train(prepared: Prepared, last: int = STAGES[-1]) -> None:
    """Give the method its weights at the end of stage `last`; its `weights_from` says whose.

    This machine's checkpoint counts first, then the network in models/ with the same key, if
    SHIPPED allows it.  Where neither is, the stages are trained now.
    """
    fabric, method, domains = prepared
    stages = [stage for stage in STAGES[:last] if not method.skips(stage)]
    key = stage_key(method, stages[-1], domains.data_key)
    if method.cfg.watch.shipped and not stage_path(method.cfg, key).exists():
        if found := shipped_weights(key):
            path, weights = found
            restore(method, stages[-1], {"model": weights, "extra": {}}, path)
            method.weights_from = f"shipped: models/{path.name}"
            return
    for stage in stages:
        train_stage(fabric, method, stage, domains)
    method.weights_from = "own run"


def trained_method(cfg: RunConfig) -> Prepared:
    """The method with its final weights, as `load_or_train` finds them."""
    prepared = prepare(cfg)
    load_or_train(prepared)
    # Leaves the target's normalisation statistics as evaluation uses them.
    target_features(prepared.method, prepared.domains, prepared.fabric.device)
    prepared.method.eval()
    return prepared


# --- the run folder ------------------------------------------------------------------------------
def write_run(folder: Path, prepared: Prepared, history: History, made_with: dict) -> None:
    """Evaluate, and write all files of a run folder; metrics.json last."""
    fabric, method, domains = prepared
    started = time.perf_counter()
    features = target_features(method, domains, fabric.device)
    test_seconds = time.perf_counter() - started
    write_json(folder / "config.json", method.cfg.flat())
    write_json(folder / "env.json", made_with)
    write_csv(folder / "history.csv", own_history(method, history))
    write_csv(folder / "predictions.csv", _predictions(features, domains.test["target"].videos))
    metrics = _metrics(features, prepared)
    metrics["train_seconds"] = round(sum(row["seconds"] for row in history), 1)
    metrics["test_seconds"] = round(test_seconds, 1)
    if method.cfg.watch.eval_every:
        metrics["selected"] = selected(method, history)
    finish(folder, metrics)


def _predicted(features: Features) -> dict[str, np.ndarray]:
    return {name: p.argmax(-1).cpu().numpy() for name, p in features.probs.items()}


def _predictions(features: Features, videos: list[str]) -> list[dict[str, Any]]:
    predicted = _predicted(features)
    labels = features.labels.cpu().numpy()
    confidence = features.probs["fused"].max(-1).values.cpu().numpy().round(5)
    lines = []
    for i, video in enumerate(videos):
        line = {"video": video, "label": int(labels[i])}
        line |= {name: int(numbers[i]) for name, numbers in predicted.items()}
        lines.append({**line, "confidence": float(confidence[i])})
    return lines


def _metrics(features: Features, prepared: Prepared) -> dict[str, Any]:
    _, method, domains = prepared
    predicted, labels = _predicted(features), features.labels.cpu().numpy()
    classes = domains.training.classes
    by_class = per_class(predicted["fused"], labels, len(classes))
    return {
        "cell": run_key(method.cfg),
        "accuracy": {name: top1(numbers, labels) for name, numbers in predicted.items()},
        "per_class": dict(zip(classes, by_class)),
        "videos": int(len(labels)),
        "selection": "last epoch",
        "split": method.cfg.evaluation.eval_split,
        "partial_data": domains.partial,
        "parameters": sum(p.numel() for p in method.model.parameters()),
        "finished": time.strftime("%FT%TZ", time.gmtime()),
    }
