"""`run(cfg)`: train what is missing, evaluate, write the run folder.  A finished run is read, not
repeated.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.evaluate.accuracy import per_class, top1
from nbkit.files import write_csv, write_json
from nbkit.memory import keep_freed_memory
from nbkit.methods import METHODS
from nbkit.methods.base import STAGES, Method
from nbkit.train.domains import load_domains
from nbkit.train.features import Features, test_features
from nbkit.train.record import EVALUATION_VERSION, RESULT_VERSION, environment, run_id, versions
from nbkit.train.selection import own_history, selected
from nbkit.train.stages import train_stage


@dataclass
class Run:
    """A finished run: its folder, metrics, history, and (built on demand) the trained method with
    its data.
    """

    cfg: RunConfig
    folder: Path
    metrics: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame


def prepare(cfg: RunConfig) -> tuple[Fabric, Method]:
    """Data and method of `cfg`, untrained.  All checks of the user's input happen here, before any
    training.
    """
    if cfg.method not in METHODS:
        raise NbkitError(f"METHOD={cfg.method!r} is not one of {', '.join(METHODS)}")
    if cfg.watch.device == "cuda" and not torch.cuda.is_available():
        raise NbkitError("DEVICE='cuda', but no GPU is visible; use DEVICE='auto' or 'cpu'")
    keep_freed_memory()
    fabric = Fabric(accelerator=cfg.watch.device, devices=1, precision=cfg.optim.precision)
    cls = METHODS[cfg.method]
    domains = load_domains(cfg, cls.labelled)
    torch.manual_seed(cfg.seed)
    return fabric, fabric.to_device(cls(cfg, domains))


def run(cfg: RunConfig) -> Run:
    """Train (or reuse) the stages of `cfg`, test on the target, and return the `Run`."""
    fabric, method = prepare(cfg)
    folder = Path(cfg.watch.runs_dir) / run_id(cfg, method.domains.data_key)
    if not (folder / "metrics.json").exists():
        made_with = environment(fabric.device)
        history = train(fabric, method)
        started = time.perf_counter()
        features = test_features(method, fabric.device)
        write_run(folder, method, history, features, time.perf_counter() - started, made_with)
    return read_run(cfg, folder)


def trained_method(cfg: RunConfig) -> tuple[Method, torch.device]:
    """The method with its final weights, from the stage checkpoints (trained now when they are
    absent).
    """
    fabric, method = prepare(cfg)
    train(fabric, method)
    test_features(
        method, fabric.device
    )  # also leaves the target's statistics as evaluation uses them
    return method.eval(), fabric.device


def train(fabric: Fabric, method: Method) -> list[dict[str, Any]]:
    """All stages in order."""
    history: list[dict[str, Any]] = []
    for stage in STAGES:
        if not method.skips(stage):
            history += train_stage(fabric, method, stage)
    return history


def write_run(
    folder: Path,
    method: Method,
    history: list,
    features: Features,
    test_seconds: float,
    made_with: dict,
) -> None:
    """All files of a run folder; metrics.json last, because its presence says that the run is
    finished.
    """
    cfg, classes = method.cfg, method.domains.classes
    labels = features.labels.cpu().numpy()
    predicted = {
        m: p.argmax(-1).cpu().numpy() for m, p in features.probs.items()
    }  # (N,) by stream and fused
    write_json(folder / "config.json", cfg.model_dump(mode="json"))
    write_json(folder / "env.json", made_with)
    write_csv(folder / "history.csv", own_history(method, history))
    videos = method.domains.test["target"].videos
    confidence = features.probs["fused"].max(-1).values.cpu().numpy().round(5)
    write_csv(
        folder / "predictions.csv",
        [
            {
                "video": v,
                "label": int(labels[i]),
                **{m: int(p[i]) for m, p in predicted.items()},
                "confidence": float(confidence[i]),
            }
            for i, v in enumerate(videos)
        ],
    )
    write_json(
        folder / "metrics.json",
        {
            "accuracy": {m: top1(p, labels) for m, p in predicted.items()},
            "per_class": dict(zip(classes, per_class(predicted["fused"], labels, len(classes)))),
            "videos": int(len(labels)),
            "selection": "last epoch",
            "split": cfg.evaluation.eval_split,
            "partial_data": method.domains.partial,
            "result_version": RESULT_VERSION[cfg.model.backbone],
            "evaluation_version": EVALUATION_VERSION,
            "method_version": versions(cfg)[2:],
            "parameters": sum(p.numel() for p in method.model.parameters()),
            "train_seconds": round(
                sum(row["seconds"] for row in history), 1
            ),  # of all stages, shared ones included
            "test_seconds": round(test_seconds, 1),
            "finished": time.strftime("%FT%TZ", time.gmtime()),
            **({"selected": selected(method, history)} if cfg.watch.eval_every else {}),
        },
    )


def read_run(cfg: RunConfig, folder: Path) -> Run:
    """A finished run from its folder."""
    return Run(
        cfg,
        folder,
        json.loads((folder / "metrics.json").read_text()),
        pd.read_csv(folder / "history.csv"),
        pd.read_csv(folder / "predictions.csv"),
    )
