"""Both domains of a run, ready for training: resolved, decoded into the cache, target training
labels withheld.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve, shortfall
from nbkit.config import digest
from nbkit.config.recognition import RunConfig
from nbkit.data.cache import build_cache
from nbkit.data.clips import ClipDataset, load_batch
from nbkit.data.locks import one_at_a_time
from nbkit.demo.write import write_demo
from nbkit.errors import NbkitError


@dataclass
class Domains:
    """`train[d]` (augmented clips), `plain[d]` (the same videos, centred clips) and `test[d]` for d
    in source, target.

    `source_val`: labelled source videos that no training sees: the source's validation draw where
    the benchmark has one (the demo), its own test part otherwise.  Only the diagnostic columns of
    nbkit/train/selection.py read it.
    """

    classes: list[str]
    train: dict[str, ClipDataset]
    plain: dict[str, ClipDataset]
    test: dict[str, ClipDataset]
    source_val: ClipDataset
    data_key: str  # hash of the resolved table and of the files' contents: part of a run's identity
    partial: list[str] = field(
        default_factory=list
    )  # what the published benchmark has beyond this copy of it


def load_table(cfg: RunConfig) -> tuple[list[str], pd.DataFrame]:
    """Class names and the resolved table of both domains of `cfg`; renders the demo domains when
    they are absent.
    """
    manifest = load_manifest(cfg.benchmark)
    root = Path(cfg.watch.data_root) / cfg.benchmark
    if cfg.benchmark == "demo":
        with one_at_a_time(cfg.watch.data_root, cfg.benchmark):
            root = write_demo(
                demo_folder(cfg),
                videos_per_class=demo_counts(cfg),
                seed=cfg.data.demo_seed,
                shift=cfg.data.demo_shift,
                workers=cfg.watch.workers,
            )
    for side in ("source", "target"):
        if getattr(cfg, side) not in manifest.domains:
            raise NbkitError(
                f"{side.upper()}={getattr(cfg, side)!r} is not a domain of {cfg.benchmark}: "
                f"{', '.join(manifest.domains)}"
            )
    table = resolve(
        manifest,
        root,
        split_seed=cfg.split_seed,
        allow_partial=cfg.data.allow_partial or cfg.benchmark == "demo",
        domains=(cfg.source, cfg.target),
    )
    return list(manifest.classes), table


def demo_counts(cfg: RunConfig) -> dict[str, int]:
    """Demo videos a class and domain, by split."""
    return {"train": cfg.data.demo_train, "val": cfg.data.demo_test // 2, "test": cfg.data.demo_test}


def demo_folder(cfg: RunConfig) -> Path:
    """Where the demo domains of this size, seed and shift live: the default ones in `data/demo`."""
    key = (cfg.data.demo_train, cfg.data.demo_test, cfg.data.demo_seed, cfg.data.demo_shift)
    name = "demo" if key == (40, 40, 0, 1.0) else "demo_" + digest(list(key), 6)
    return Path(cfg.watch.data_root) / name


def load_domains(
    cfg: RunConfig, labelled: tuple[str, ...] = ("source",), table: pd.DataFrame | None = None
) -> Domains:
    """Everything training and evaluation read.

    Args:
        labelled: domains whose training labels are handed out.  The target's are -1 everywhere
            unless it is named
            here, which only the upper-bound rows do.
        table: a resolved table to use in place of the benchmark's.
    """
    classes, resolved = load_table(cfg)
    table = resolved if table is None else table
    names = {"source": cfg.source, "target": cfg.target}
    parts = {
        (d, s): table[(table["domain"] == names[d]) & (table["split"] == s)].reset_index(drop=True)
        for d in names
        for s in ("train", "val", "test")
    }
    for d in names:
        _check_part(parts[d, "train"], classes, f"{names[d]} train", every_class=d == "source")
    _check_part(
        parts["target", cfg.evaluation.eval_split],
        classes,
        f"{cfg.target} {cfg.evaluation.eval_split}",
        every_class=False,
    )
    manifest = load_manifest(
        cfg.benchmark
    )  # a source need not have test videos: UCF Sports has none
    with one_at_a_time(cfg.watch.data_root, cfg.benchmark):
        cache = build_cache(
            table,
            Path(cfg.watch.data_root) / "cache",
            size=cfg.data.cache_size,
            flow=cfg.data.flow,
            flow_clip=cfg.data.flow_clip,
            workers=cfg.watch.workers,
            progress=cfg.watch.progress,
            flow_rate=manifest.flow.rate,
            image_clip=manifest.flow.clip,
        )
        make = (
            _feature_maker(cfg, cache)
            if cfg.model.backbone == "mobilenet_features"
            else _clip_maker(cfg, cache)
        )
    return Domains(
        classes,
        train={
            d: make(parts[d, "train"], augment=True, withhold_labels=d not in labelled)
            for d in names
        },
        plain={
            d: make(parts[d, "train"], augment=False, withhold_labels=d not in labelled)
            for d in names
        },
        test={
            d: make(parts[d, cfg.evaluation.eval_split], augment=False, withhold_labels=False) for d in names
        },
        source_val=make(
            parts["source", "test" if parts["source", "val"].empty else "val"],
            augment=False,
            withhold_labels=False,
        ),
        data_key=digest(
            [table[["video", "label", "domain", "split"]].to_csv(index=False), cache.folder.name]
        ),
        partial=[]
        if cfg.benchmark == "demo"
        else shortfall(manifest, table, (cfg.source, cfg.target)),
    )


def _clip_maker(cfg: RunConfig, cache):
    def make(part: pd.DataFrame, **how) -> ClipDataset:
        return ClipDataset(
            cache,
            part,
            clips=cfg.data.clips,
            frames=cfg.data.frames,
            stride=cfg.data.frame_stride,
            crop=cfg.data.crop,
            flow_clip=cfg.data.flow_clip,
            seed=cfg.seed,
            **how,
        )

    return make


def _feature_maker(cfg: RunConfig, cache):
    from nbkit.data.features import FeatureClipDataset, build_features

    if cfg.data.frame_stride != 1:
        raise NbkitError(
            f"FRAME_STRIDE={cfg.data.frame_stride} with backbone mobilenet_features: features are of single frames, "
            "read one after the other; leave it at 1"
        )
    if cfg.model.weights not in (None, "random"):
        raise NbkitError(
            f"WEIGHTS={cfg.model.weights!r} with backbone mobilenet_features: its features are torchvision's; leave it out"
        )
    features = build_features(cache, Path(cfg.watch.data_root) / "features")

    def make(part: pd.DataFrame, **how) -> FeatureClipDataset:
        return FeatureClipDataset(
            features, part, clips=cfg.data.clips, frames=cfg.data.frames, seed=cfg.seed, **how
        )

    return make


def _check_part(part: pd.DataFrame, classes: list[str], what: str, every_class: bool) -> None:
    if part.empty:
        raise NbkitError(f"{what}: no videos. Run `nbkit check-data` to see what is missing")
    missing = [c for i, c in enumerate(classes) if i not in set(part["label"])]
    if every_class and missing:
        raise NbkitError(
            f"{what}: no video of class {', '.join(missing)}. Run `nbkit check-data` to see what is missing"
        )


def get_batch(
    dataset, indices: np.ndarray, cfg: RunConfig, device: torch.device, contrast: bool
) -> dict:
    """One batch on `device`.  `contrast`: add what negatives and second views need."""
    if cfg.model.backbone == "mobilenet_features":
        batch = dataset.load_batch(indices, with_views=contrast)
    else:
        batch = load_batch(dataset, indices)
    if contrast and len(cfg.streams) == 1 and cfg.stcl.single_view2 == "augment":
        m, seed = cfg.streams[0], dataset.seed
        dataset.seed = (
            seed + 104729
        )  # other random crop, clip starts, flip and colours of the same videos
        second = (
            dataset.load_batch(indices)
            if cfg.model.backbone == "mobilenet_features"
            else load_batch(dataset, indices)
        )
        dataset.seed = seed
        batch[f"{m}_2"] = second[m]
    return {k: x.to(device, non_blocking=True) for k, x in batch.items()}
