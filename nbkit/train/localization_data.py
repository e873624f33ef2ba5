"""Both domains of a localization run: frames and boxes, whatever the benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from nbkit.benchmarks.manifest import Manifest, load_manifest
from nbkit.benchmarks.resolve import resolve, shortfall
from nbkit.config import digest
from nbkit.config.localization import LocalizationConfig
from nbkit.data.arrays import fingerprint, one_at_a_time
from nbkit.data.clip_maps import build_clip_maps
from nbkit.data.frame_cache import build_frame_cache
from nbkit.data.keyframes import KeyframeDataset
from nbkit.demo.write import write_demo
from nbkit.errors import NbkitError
from nbkit.models.localizer_sizes import frozen_network

# The demo domains with untrimmed videos among them; the manifest is that of the trimmed ones.
UNTRIMMED_DEMO = "demo_untrimmed"
# HAZE over street: each video loses 30 to 60 % of its contrast, so that proposals are lost, too.
UNTRIMMED, HAZE = 0.25, 0.6
# Benchmarks that lie in another benchmark's folder.
SAME_FOLDER = {"jhmdb_camera_boxes": "jhmdb_camera", "jhmdb_ucf101_two": "jhmdb_ucf101"}


@dataclass
class LocalizationData:
    """What a run reads.  Training sees `labelled` and `target` only.

    Attributes:
        classes: names of the C actions.
        source: labelled training frames of the source.
        target: training frames of the target; its annotation is never opened.
        oracle: the frames of `target` with their labels, for the upper-bound row; else None.
        test: every frame of the target's test videos.
        key: hash of the resolved table and of the contents of videos and annotation.
        partial: what the published benchmark has beyond this copy of it.
    """

    classes: list[str]
    source: KeyframeDataset
    target: KeyframeDataset
    oracle: KeyframeDataset | None
    test: KeyframeDataset
    key: str
    partial: list[str]

    @property
    def labelled(self) -> KeyframeDataset:
        """The frames whose labels are trained on: the source's, or the oracle row's."""
        return self.source if self.oracle is None else self.oracle


def load_data(cfg: LocalizationConfig) -> LocalizationData:
    """Frames and boxes of both domains, decoded once; demo domains are rendered where absent.

    Raises NbkitError where a domain, a split or a class has no video, or a video no boxes.
    """
    demo, domains = cfg.benchmark == UNTRIMMED_DEMO, (cfg.source, cfg.target)
    manifest = _manifest(cfg)
    with one_at_a_time(cfg.watch.data_root, cfg.benchmark):
        root = benchmark_root(cfg.benchmark, cfg.watch.data_root)
        if demo:
            root = _render(cfg)
        how: dict[str, Any] = {"split_seed": cfg.split_seed, "domains": domains}
        table = resolve(manifest, root, allow_partial=demo or cfg.data.allow_partial, **how)
        data = data_of_table(cfg, manifest.classes, table)
    if not demo:
        data.partial = shortfall(manifest, table, domains)
    return data


def benchmark_root(benchmark: str, data_root: str | Path) -> Path:
    """Its own folder below `data_root`, or the one that it shares where only that is there."""
    own = Path(data_root) / benchmark
    shared = Path(data_root) / SAME_FOLDER.get(benchmark, benchmark)
    return own if own.exists() or not shared.exists() else shared


def _manifest(cfg: LocalizationConfig) -> Manifest:
    demo = cfg.benchmark == UNTRIMMED_DEMO
    manifest = load_manifest("demo" if demo else cfg.benchmark)
    if manifest.task != "localization" and not demo:
        raise NbkitError(
            f"BENCHMARK={cfg.benchmark!r} has no boxes (its task is {manifest.task}); "
            f"take {UNTRIMMED_DEMO}, jhmdb_camera_boxes, ucfsports_ucf101 or jhmdb_ucf101"
        )
    for name, domain in (("SOURCE", cfg.source), ("TARGET", cfg.target)):
        if domain not in manifest.domains:
            known = ", ".join(sorted(manifest.domains))
            raise NbkitError(f"{name}={domain!r} is not a domain of {cfg.benchmark}: {known}")
    return manifest


def _render(cfg: LocalizationConfig) -> Path:
    """Render both demo domains unless they are there: a quarter untrimmed, street in haze."""
    train, test = cfg.data.demo_train, cfg.data.demo_test
    counts = {"train": train, "val": test // 2, "test": test}
    name = UNTRIMMED_DEMO
    if (train, test) != (40, 20):
        name += f"_{train}_{test // 2}_{test}_s0"
    root = Path(cfg.watch.data_root) / name
    return write_demo(root, videos_per_class=counts, untrimmed_fraction=UNTRIMMED, haze=HAZE)


def data_of_table(
    cfg: LocalizationConfig, classes: Iterable[str], table: pd.DataFrame
) -> LocalizationData:
    """The data sets of a resolved table, whose rows need `boxes`."""
    classes = list(classes)
    rows = table[table["domain"].isin([cfg.source, cfg.target])]
    if "boxes" not in rows or (rows["boxes"].fillna("") == "").any():
        raise NbkitError("localization needs boxes for every video; run `nbkit check-data`")
    train, target = _part(rows, cfg.source, "train"), _part(rows, cfg.target, "train")
    test = _part(rows, cfg.target, cfg.evaluation.eval_split)
    missing = [name for label, name in enumerate(classes) if label not in set(train["label"])]
    if missing:
        raise NbkitError(f"{cfg.source}: no training video of class {', '.join(missing)}")
    data, size = cfg.data, (cfg.data.height, cfg.data.width)
    folder = Path(cfg.watch.data_root) / "cache"
    cache = build_frame_cache(rows, folder, size=size, progress=cfg.watch.progress)
    maps, keys = None, [cache.key]
    use_gpu = torch.cuda.is_available() and cfg.watch.device != "cpu"
    network = frozen_network(cfg.detector, "cuda" if use_gpu else "cpu")
    if network is not None:
        maps = build_clip_maps(cache, folder, network, progress=cfg.watch.progress)
        keys.append(maps.key)
    clip = {"maps": maps, "clip_len": data.clip_len, "clip_stride": data.clip_stride}
    clip["seed"] = cfg.seed
    fit = {**clip, "key_stride": data.key_stride, "augment": data.augment}
    oracle = None
    if cfg.row == "oracle":
        oracle = KeyframeDataset(cache, target, background=data.background, **fit)
    listed = rows[["video", "label", "domain", "split"]].to_csv(index=False)
    return LocalizationData(
        classes,
        source=KeyframeDataset(cache, train, background=data.background, **fit),
        target=KeyframeDataset(cache, target, withhold_labels=True, **fit),
        oracle=oracle,
        test=KeyframeDataset(cache, test, key_stride=1, background=True, **clip),
        key=digest([listed, *keys, _annotation_prints(rows["boxes"])]),
        partial=[],
    )


def _part(rows: pd.DataFrame, domain: str, split: str) -> pd.DataFrame:
    found = rows[(rows["domain"] == domain) & (rows["split"] == split)].reset_index(drop=True)
    if found.empty:
        raise NbkitError(f"{domain}: no {split} videos with boxes")
    return found


def _annotation_prints(paths: Iterable[str]) -> list[str]:
    files = []
    for path in map(Path, sorted(set(paths))):
        if path.is_dir():
            files += sorted(path.iterdir())
        else:
            files.append(path)
    return [fingerprint(file) for file in files]
