"""Both domains of a run: resolved, decoded once, target training labels withheld."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from nbkit.benchmarks.manifest import Manifest, load_manifest
from nbkit.benchmarks.resolve import resolve, shortfall
from nbkit.config import digest
from nbkit.config.recognition import RunConfig
from nbkit.data.arrays import one_at_a_time
from nbkit.data.cache import build_cache
from nbkit.data.clips import ClipDataset
from nbkit.demo.write import write_demo
from nbkit.errors import NbkitError
from nbkit.methods.base import TrainingData

SIDES = ("source", "target")


@dataclass
class Domains:
    """`training` is all that a method sees; the rest is for evaluation alone.

    Attributes:
        training: augmented and centred clips of both domains' training videos.
        test: the test videos of source and target, labelled.
        source_val: labelled source videos that no training sees, the validation draw where the
            benchmark has one (the demo), else the source's test part.
        data_key: hash of the resolved table and of the files' contents; part of a run's name.
        partial: what the published benchmark has beyond this copy of it.
    """

    training: TrainingData
    test: dict[str, Any]
    source_val: Any
    data_key: str
    partial: list[str]


def load_domains(
    cfg: RunConfig, labelled: tuple[str, ...] = ("source",), table: pd.DataFrame | None = None
) -> Domains:
    """Everything that training and evaluation read.

    Args:
        labelled: domains whose training labels are handed out.  The target's are -1 everywhere
            unless it is named here, which only the upper-bound rows do.
        table: a resolved table to use in place of the benchmark's.
    """
    classes, resolved = resolved_videos(cfg)
    table = resolved if table is None else table
    parts = _parts(cfg, table, classes)
    manifest = _manifest(cfg)
    with one_at_a_time(cfg.watch.data_root, cfg.benchmark):
        make, made_of = dataset_maker(cfg, manifest, table)
    train, plain, test = {}, {}, {}
    for side in SIDES:
        withheld = side not in labelled
        train[side] = make(parts[side, "train"], augment=True, withhold_labels=withheld)
        plain[side] = make(parts[side, "train"], augment=False, withhold_labels=withheld)
        tested = parts[side, cfg.evaluation.eval_split]
        test[side] = make(tested, augment=False, withhold_labels=False)
    held_out = "test" if parts["source", "val"].empty else "val"
    source_val = make(parts["source", held_out], augment=False, withhold_labels=False)
    listed = table[["video", "label", "domain", "split"]].to_csv(index=False)
    missing = []
    if cfg.benchmark != "demo":
        missing = shortfall(manifest, table, (cfg.source, cfg.target))
    training = TrainingData(classes, train, plain)
    return Domains(training, test, source_val, digest([listed, made_of]), missing)


# --- the videos ----------------------------------------------------------------------------------
def _manifest(cfg: RunConfig) -> Manifest:
    """The benchmark's manifest; SPLIT_SEED 1 and 2 are the official lists after its own."""
    manifest = load_manifest(cfg.benchmark)
    if cfg.split_seed:
        return manifest.with_split_number(1 + cfg.split_seed)
    return manifest


def resolved_videos(cfg: RunConfig) -> tuple[list[str], pd.DataFrame]:
    """Class names and the resolved table of both domains; renders the demo where it is absent."""
    manifest = _manifest(cfg)
    for side in SIDES:
        if getattr(cfg, side) not in manifest.domains:
            known = ", ".join(manifest.domains)
            raise NbkitError(
                f"{side.upper()}={getattr(cfg, side)!r} is not a domain of {cfg.benchmark}: {known}"
            )
    root = Path(cfg.watch.data_root) / cfg.benchmark
    if cfg.benchmark == "demo":
        root, train, test = demo_folder(cfg), cfg.data.demo_train, cfg.data.demo_test
        with one_at_a_time(cfg.watch.data_root, cfg.benchmark):
            write_demo(
                root,
                videos_per_class={"train": train, "val": test // 2, "test": test},
                seed=cfg.data.demo_seed,
                shift=cfg.data.demo_shift,
                workers=cfg.watch.workers,
            )
    table = resolve(
        manifest,
        root,
        split_seed=cfg.split_seed,
        allow_partial=cfg.data.allow_partial or cfg.benchmark == "demo",
        domains=(cfg.source, cfg.target),
    )
    return list(manifest.classes), table


def demo_folder(cfg: RunConfig) -> Path:
    """Where the demo domains of this size, seed and shift lie; the default ones in `data/demo`."""
    data = cfg.data
    key = [data.demo_train, data.demo_test, data.demo_seed, data.demo_shift]
    name = "demo" if key == [40, 40, 0, 1.0] else f"demo_{digest(key, 6)}"
    return Path(cfg.watch.data_root) / name


def _parts(
    cfg: RunConfig, table: pd.DataFrame, classes: list[str]
) -> dict[tuple[str, str], pd.DataFrame]:
    parts = {}
    for side in SIDES:
        own = table[table["domain"] == getattr(cfg, side)]
        for split in ("train", "val", "test"):
            parts[side, split] = own[own["split"] == split].reset_index(drop=True)
    check = "Run `nbkit check-data` to see what is missing"
    needed = [("source", "train"), ("target", "train"), ("target", cfg.evaluation.eval_split)]
    for side, split in needed:  # a source need not have test videos: UCF Sports has none
        if parts[side, split].empty:
            raise NbkitError(f"{getattr(cfg, side)} {split}: no videos. {check}")
    present = set(parts["source", "train"]["label"])
    missing = [name for label, name in enumerate(classes) if label not in present]
    if missing:
        raise NbkitError(f"{cfg.source} train: no video of class {', '.join(missing)}. {check}")
    return parts


# --- the data sets -------------------------------------------------------------------------------
def dataset_maker(
    cfg: RunConfig, manifest: Manifest, table: pd.DataFrame
) -> tuple[Callable[..., Any], str]:
    """A function from a part of the table to its data set, and the name of what it reads."""
    shape = {"clips": cfg.data.clips, "seed": cfg.seed}
    if cfg.model.backbone == "i3d_features":
        return _clip_feature_maker(cfg, table, shape)
    shape["frames"] = cfg.data.frames
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
    if cfg.model.backbone == "mobilenet_features":
        return _feature_maker(cfg, cache, shape), cache.key
    shape |= {"stride": cfg.data.frame_stride, "crop": cfg.data.crop}
    return partial(ClipDataset, cache, **shape), cache.key


def _feature_maker(cfg: RunConfig, cache: Any, shape: dict[str, int]) -> Callable[..., Any]:
    # only here are they needed
    from nbkit.data.features import FeatureClipDataset, build_features
    from nbkit.models.mobilenet import FrozenMobileNet

    if cfg.data.frame_stride != 1:
        raise NbkitError(
            f"FRAME_STRIDE={cfg.data.frame_stride} with backbone mobilenet_features: features are "
            "of single frames, read one after the other; leave it at 1"
        )
    folder = Path(cfg.watch.data_root) / "features"
    features = build_features(cache, folder, FrozenMobileNet(), progress=cfg.watch.progress)
    return partial(FeatureClipDataset, features, **shape)


def _clip_feature_maker(
    cfg: RunConfig, table: pd.DataFrame, shape: dict[str, int]
) -> tuple[Callable[..., Any], str]:
    """As `dataset_maker`: features of clips come straight from the files, without a cache."""
    # only here are they needed
    import torch

    from nbkit.data.features import FeatureClipDataset, build_clip_features
    from nbkit.methods.negatives import clip_variants
    from nbkit.models.i3d import FrozenI3D

    if cfg.data.flow == "precomputed":
        raise NbkitError("FLOW='precomputed' with backbone i3d_features: it computes flow; use dis")
    if cfg.model.weights == "random":
        raise NbkitError("WEIGHTS='random' with backbone i3d_features: nothing would train it")
    use_gpu = torch.cuda.is_available() and cfg.watch.device != "cpu"
    device, channels = "cuda" if use_gpu else "cpu", {"rgb": 3, "flow": 2}

    def variants(clips: torch.Tensor, stream: str, video: str) -> torch.Tensor:
        seed = int(digest([stream, video], 8), 16)  # the same whatever is made before it
        generator = torch.Generator().manual_seed(seed)
        return clip_variants(clips, cfg.stcl.residual_scale, generator)

    features = build_clip_features(
        table,
        Path(cfg.watch.data_root) / "features",
        {m: FrozenI3D(channels[m], "kinetics400", device) for m in cfg.streams},
        variants,
        cfg.stcl.residual_scale,
        size=cfg.data.crop,
        frames=cfg.data.frames,
        stride=cfg.data.frame_stride,
        flow=cfg.data.flow,
        progress=cfg.watch.progress,
    )
    return partial(FeatureClipDataset, features, frames=1, **shape), features.key
