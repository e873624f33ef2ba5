"""What a table cell needs before it runs: operations, bytes read, and disk for its cache and its
checkpoints.

The clips that pass through the encoders are counted, with the method's own code on tiny stand-in
clips; the operations of a clip are counted with torch's FLOP counter on tensors without memory.
nbkit/cost_speed.py makes hours of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nbkit.benchmarks.manifest import Manifest, load_manifest
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.methods import METHODS
from nbkit.methods.base import STAGES, Method, Step
from nbkit.models.two_stream import TwoStream, make_encoder
from nbkit.train.domains import Domains, demo_counts
from nbkit.train.stages import stage_key

FEATURES = 1280  # of a MobileNetV2 frame
TRIED = 4


@dataclass(frozen=True)
class StageCost:
    """One stage of one run.  `key` is that of its checkpoint: equal keys are trained once."""

    key: str
    stage: int
    steps: int
    flops: float  # of all epochs
    read_bytes: float  # of clips, of all epochs
    disk: float  # bytes of its checkpoint


@dataclass(frozen=True)
class Cost:
    """What one run needs: its stages, its cache (key, bytes, frames), and where the seconds of a
    GPU come from.
    """

    cfg: RunConfig
    stages: list[StageCost]
    cache_key: str
    cache_bytes: float
    cache_frames: float


class Planned:
    """A data set of which only the size is known: labels in turn."""

    def __init__(self, n: int, classes: int, hidden: bool):
        self.labels = np.full(n, -1) if hidden else np.arange(n) % classes
        self.true = np.arange(n) % classes

    def __len__(self) -> int:
        return len(self.labels)


def planned_videos(cfg: RunConfig, manifest: Manifest, domain: str, split: str) -> int:
    """Videos of a domain's split as the manifest states them; 0 for a split that it does not have."""
    if cfg.benchmark == "demo":
        return demo_counts(cfg).get(split, 0) * len(manifest.classes)
    spec = manifest.domains[domain]
    expected = spec.expected_now()
    counts = expected.counts if expected else {}
    if not counts:
        raise NbkitError(
            f"{cfg.benchmark}: the manifest states no counts for {domain}, so nothing can be predicted"
        )
    if "all" in counts and split not in counts:
        share = spec.split.test_fraction if spec.split.rule == "grouped" else 0.0
        return round(counts["all"] * {"train": 1 - share, "test": share}.get(split, 0.0))
    return counts.get(split, 0)


def plan(cfg: RunConfig) -> tuple[Method, Manifest]:
    """The method of `cfg` over planned data, its network replaced by a tiny one of equal feature
    size.
    """
    manifest = load_manifest(cfg.benchmark)
    if cfg.method not in METHODS:
        raise NbkitError(f"METHOD={cfg.method!r} is not one of {', '.join(METHODS)}")
    cls, classes = METHODS[cfg.method], len(manifest.classes)
    sizes = {
        d: planned_videos(cfg, manifest, getattr(cfg, d), "train") for d in ("source", "target")
    }
    train = {d: Planned(n, classes, d not in cls.labelled) for d, n in sizes.items()}
    data_key = f"planned-{cfg.benchmark}-{cfg.source}-{cfg.target}-{cfg.split_seed}"
    domains = Domains(list(manifest.classes), train, train, train, train["source"], data_key)
    tiny = cfg.model_copy(
        update={
            "backbone": "small",
            "weights": "random",
            "crop": 16,
            "cache_size": 16,
            "frames": 4,
            "nce_k": 2,
        }
    )
    torch.manual_seed(cfg.seed)
    method = cls(tiny, domains)
    if hasattr(method, "pseudo"):  # as if k-means had found them
        method.pseudo[:] = torch.from_numpy(train["target"].true)
    return method, manifest


def encoder_clips(
    method: Method, stage: int, pair: tuple[np.ndarray, np.ndarray]
) -> tuple[float, int]:
    """Clips through an encoder in one step, forward and backward: (a clip with gradient counts 3,
    else 1; clips read).

    Counted with at most TRIED videos of a domain: the number is proportional to the batch.
    """
    cfg, total = method.cfg, 0.0
    whole = sum(map(len, pair))
    pair = tuple(index[:TRIED] for index in pair)
    share = whole / sum(map(len, pair))

    def count(_module, inputs, output):
        nonlocal total
        total += len(inputs[0]) * (3 if output.requires_grad else 1)

    hooks = [s.encoder.register_forward_hook(count) for s in method.model.streams.values()]
    batches = [_clips(cfg, index) for index in pair]
    for batch, domain, index in zip(batches, (method.labelled[0], "target"), pair):
        if domain in method.labelled:
            batch["label"] = torch.from_numpy(method.domains.train[domain].true[index])
    try:
        method.train()
        method(
            batches[0],
            batches[1] if method.uses_target else None,
            Step(stage, 0, 0.5, torch.Generator().manual_seed(0)),
        )
    finally:
        for hook in hooks:
            hook.remove()
    read = sum(len(index) for index in (pair if method.uses_target else pair[:1])) * cfg.data.clips
    return share * total, round(share * read * (2 if f"{cfg.streams[0]}_2" in batches[0] else 1))


def _clips(cfg: RunConfig, index: np.ndarray) -> dict[str, torch.Tensor]:
    shape = (len(index), cfg.data.clips), (cfg.data.frames, cfg.data.crop, cfg.data.crop)
    batch = {
        m: torch.rand(*shape[0], c, *shape[1])
        for m, c in (("rgb", 3), ("flow", 2))
        if m in cfg.streams
    }
    if (
        len(batch) == 1
        and cfg.stcl.single_view2 == "augment"
        and cfg.method == "stcda"
        and cfg.stcl.alpha > 0
    ):
        batch |= {f"{m}_2": x for m, x in batch.items()}
    return batch | {"label": torch.full((len(index),), -1), "index": torch.from_numpy(index)}


@lru_cache
def clip_flops(backbone: str, frames: int, crop: int, modalities: str) -> float:
    """Multiply-adds times two of one clip's forward pass, the mean over the streams."""
    cfg = RunConfig.make(
        profile="paper",
        backbone=backbone,
        frames=frames,
        crop=crop,
        cache_size=max(crop, 256),
        modalities=modalities,
        weights="random",
    )
    found = []
    for stream, channels in (("rgb", 3), ("flow", 2)):
        if stream in cfg.streams:
            shape = (
                (1, frames, FEATURES)
                if backbone == "mobilenet_features"
                else (1, channels, frames, crop, crop)
            )
            with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
                make_encoder(stream, cfg).eval()(torch.zeros(shape))
            found.append(counter.get_total_flops())
    return float(np.mean(found))


def cost(cfg: RunConfig) -> Cost:
    """Predicted operations and bytes of a run; nothing is trained, decoded or downloaded."""
    method, manifest = plan(cfg)
    each = clip_flops(cfg.model.backbone, cfg.data.frames, cfg.data.crop, cfg.data.modalities)
    clip_bytes = cfg.data.frames * cfg.data.crop**2 * (3 + 2)
    stages, state = [], state_bytes(cfg, method, len(manifest.classes))
    for stage in STAGES:
        if method.skips(stage):
            continue
        epochs, pairs = cfg.optim.epochs[stage - 1], method.batches(stage, 0)
        clips, read = encoder_clips(method, stage, pairs[0])
        extra = _between_epochs(cfg, method, stage)
        tiny, method.cfg = method.cfg, cfg  # the key is that of the real configuration
        key = stage_key(method, stage)
        method.cfg = tiny
        stages.append(
            StageCost(
                key,
                stage,
                epochs * len(pairs),
                epochs * (len(pairs) * clips + extra * len(cfg.streams)) * each,
                epochs * (len(pairs) * read + extra) * clip_bytes,
                state,
            )
        )
    videos = sum(
        planned_videos(cfg, manifest, d, s)
        for d in (cfg.source, cfg.target)
        for s in ("train", "val", "test")
    )
    frames = videos * manifest.mean_frames
    key = f"{cfg.benchmark}-{'-'.join(sorted((cfg.source, cfg.target)))}-{cfg.data.cache_size}-{cfg.data.flow}-{cfg.data.flow_clip}"
    return Cost(cfg, stages, key, frames * cfg.data.cache_size**2 * 5, frames)


def _between_epochs(cfg: RunConfig, method: Method, stage: int) -> int:
    """Clips a stream reads without gradient before each epoch: the pseudo-labels of a stage that
    aligns.
    """
    if not getattr(method, "aligns", lambda _stage: False)(stage) or cfg.vca.pseudo_labels != "updated":
        return 0
    source, target = (len(method.domains.train[d]) for d in ("source", "target"))
    return cfg.data.clips * (source + target * (2 if cfg.model.bn_mode == "per_domain" else 1))


def state_bytes(cfg: RunConfig, method: Method, classes: int) -> float:
    """Bytes of a checkpoint: the network, the optimiser's copies of it, banks and other modules."""
    with torch.device("meta"):
        model = TwoStream(cfg.model_copy(update={"weights": "random"}), classes)
    copies = 1 if cfg.optim.optimizer == "sgd" else 2
    extra = sum(_bytes(v) for k, v in method.state_dict().items() if not k.startswith("model."))
    return sum(map(_bytes, model.state_dict().values())) + copies * _trained(model) + extra


def _trained(model: nn.Module) -> float:
    return sum(_bytes(p) for p in model.parameters() if p.requires_grad)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
