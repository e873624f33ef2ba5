"""`run(cfg)`: train what is missing, evaluate, write the run folder.

Training goes stage by stage.  A stage that two rows share is trained once: its key is a hash of all
that its method reads in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric

from nbkit.config import digest
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.evaluate.accuracy import per_class
from nbkit.files import write_csv, write_json
from nbkit.methods import method_class
from nbkit.methods.base import STAGES, Method
from nbkit.methods.batches import Features, in_batches, require_finite
from nbkit.train.checkpoint import read_checkpoint, stage_file, stage_path, write_checkpoint
from nbkit.train.domains import Domains, load_domains
from nbkit.train.selection import due, own_history, record, selected, target_features
from nbkit.train.shipped import shipped_weights
from nbkit.train.steps import make_optimizer, run_epoch, seed_of
from nbkit.train.store import Run, environment, finish, read_run, run_folder, run_key, unfinished

History = list[dict[str, Any]]


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


def load_or_train(prepared: Prepared, last: int = STAGES[-1]) -> None:
    """Give the method its weights at the end of stage `last`; its `weights_from` says whose.

    This machine's checkpoint counts first, then the network in models/ with the same key, if
    SHIPPED allows it.  Where neither is, the stages are trained now.
    """
    method, watch = prepared.method, prepared.method.cfg.watch
    stage = method.stages(last)[-1]
    key = stage_key(method, stage, prepared.domains.data_key)
    if watch.shipped and not stage_path(method.cfg, key).exists():
        if found := shipped_weights(key):
            path, weights = found
            restore(method, stage, {"model": weights, "extra": {}}, path)
            method.weights_from = f"shipped: models/{path.name}"
            return
    train(prepared, last)
    method.weights_from = "own run"


def trained_method(cfg: RunConfig) -> Prepared:
    """The method with its final weights, as `load_or_train` finds them."""
    prepared = prepare(cfg)
    load_or_train(prepared)
    # Leaves the target's normalisation statistics as evaluation uses them.
    target_features(prepared.method, prepared.domains, prepared.fabric.device)
    prepared.method.eval()
    return prepared


# --- training ------------------------------------------------------------------------------------
def stage_key(method: Method, stage: int, data_key: str) -> str:
    """Hash of all that determines the weights at the end of `stage`, earlier stages included."""
    chain = [{"stage": each, **method.determined_by(each)} for each in method.stages(stage)]
    return digest([chain, data_key], 16)


def train(prepared: Prepared, last: int = STAGES[-1]) -> History:
    """Train, or load, the stages up to `last` in place; returns one row per epoch, in order."""
    fabric, method, domains = prepared
    cfg, history = method.cfg, []
    for stage in method.stages(last):
        epochs = cfg.optim.epochs[stage - 1]
        with stage_file(cfg, stage_key(method, stage, domains.data_key)) as path:
            state = read_checkpoint(path, "epoch", "history", "model", "optimizer", "extra")
            if state:
                restore(method, stage, state, path)
                if state["epoch"] == epochs:
                    history += state["history"]
                    continue
            module, optimizer = fabric.setup(method, make_optimizer(method, stage))
            rows: History = []
            if state:
                optimizer.load_state_dict(state["optimizer"])
                rows = state["history"]
            elif epochs:
                torch.manual_seed(seed_of(cfg, stage, -1))
                method.train()
                method.start_stage(stage)
            for epoch in range(len(rows), epochs):
                # Dropout draws from the global generator; all else has a generator of its own.
                torch.manual_seed(seed_of(cfg, stage, epoch))
                started = time.perf_counter()
                row = {"stage": stage, "epoch": epoch + 1, **method.start_epoch(stage, epoch)}
                with refusing_ruin(method, row):
                    row |= run_epoch(fabric, module, method, optimizer, stage, epoch)
                row["seconds"] = round(time.perf_counter() - started, 2)
                if (stage, epoch + 1) in due(method):
                    row |= record(method, domains, fabric.device)
                rows.append(row)
                save_stage(path, method, stage, optimizer, rows)
                if not cfg.watch.progress:
                    print(_line(row), flush=True)
            if not epochs:
                save_stage(path, method, stage, optimizer, rows)
            history += rows
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
    untrained = set()
    if not method.active(stage):
        untrained = {name for name, _ in method.named_parameters()}
    return {
        name: value
        for name, value in method.state_dict().items()
        if not name.startswith("model.") and name not in untrained
    }


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


def _predictions(features: Features, videos: list[str]) -> list[dict[str, Any]]:
    confidence = features.probs["fused"].max(-1).values.cpu().numpy().round(5)
    columns = {"video": videos, "label": features.labels.tolist()}
    columns |= {name: numbers.tolist() for name, numbers in features.predicted().items()}
    columns["confidence"] = confidence.tolist()
    return [dict(zip(columns, line)) for line in zip(*columns.values())]


def _metrics(features: Features, prepared: Prepared) -> dict[str, Any]:
    _, method, domains = prepared
    labels, classes = features.labels.cpu().numpy(), domains.training.classes
    by_class = per_class(features.predicted()["fused"], labels, len(classes))
    return {
        "cell": run_key(method.cfg),
        "accuracy": features.accuracies(),
        "per_class": dict(zip(classes, by_class)),
        "videos": int(len(labels)),
        "selection": "last epoch",
        "split": method.cfg.evaluation.eval_split,
        "partial_data": domains.partial,
        "parameters": sum(p.numel() for p in method.model.parameters()),
        "finished": time.strftime("%FT%TZ", time.gmtime()),
    }
