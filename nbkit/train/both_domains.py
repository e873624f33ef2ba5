"""Features of source and target videos side by side, each read exactly as evaluation reads it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError
from nbkit.evaluate.separability import unit_joined
from nbkit.losses.alignment import VideoFeatures
from nbkit.train.domains import load_table
from nbkit.train.features import Features, extract
from nbkit.train.loop import prepare, test_features, train


class BothDomains(NamedTuple):
    """Features of one trained method; the labels are the true ones of all three sets."""

    source: Features  # training videos of the source, centred clips
    held_out: Features  # its test videos, which no training has seen
    target: Features  # test videos of the target, as in the tables
    statistics: dict[str, str]  # whose normalisation statistics read 'source' and 'target'
    classes: list[str]


def both_domains(cfg: RunConfig) -> BothDomains:
    """Both domains through the final network of `cfg`, from stage checkpoints (trained now when
    they are absent).

    The target is read with the statistics that evaluation uses for this method. The source is read
    with its own, except by a network trained on the target alone, which has never seen any but the
    target's. Raises NbkitError, before any training, where the source has no test videos.
    """
    fabric, method = prepare(cfg)
    if not len(method.domains.test["source"]):
        raise NbkitError(
            f"{cfg.source} has no {cfg.evaluation.eval_split} videos in {cfg.benchmark}: nothing to compare a domain gap with"
        )
    train(fabric, method)
    reads_source = "source" if "source" in method.labelled else method.statistics
    if reads_source == "target":
        test_features(method, fabric.device)  # fills the statistics
    source, held_out = (
        extract(method.model, part["source"], reads_source, cfg, fabric.device)
        for part in (method.domains.plain, method.domains.test)
    )
    target = test_features(method, fabric.device)  # last: it may replace shared statistics
    source = source._replace(
        labels=_source_labels(cfg, method.domains.plain["source"].videos).to(source.labels)
    )
    return BothDomains(
        source,
        held_out,
        target,
        {"source": reads_source, "target": method.statistics},
        method.domains.classes,
    )


def _source_labels(cfg: RunConfig, videos: list[str]) -> torch.Tensor:
    """Classes of source training videos: a network trained on the target alone gets them withheld."""
    table = load_table(cfg)[1]
    known = table[table["domain"] == cfg.source].set_index("video")["label"]
    return torch.as_tensor(known.loc[list(videos)].to_numpy().copy())


def joined(features: Features, stream: str = "fused") -> VideoFeatures:
    """Clips v (N, K, D) and videos V (N, D) of 'rgb', of 'flow', or of all streams side by side
    ('fused').

    Each stream is scaled to unit length first; 'fused' has D of all streams together. Raises
    NbkitError for a stream that the network does not have.
    """
    names = list(features.V) if stream == "fused" else [stream]
    if any(m not in features.V for m in names):
        raise NbkitError(f"FEATURE={stream!r} is not one of fused, {', '.join(features.V)}")
    return VideoFeatures(
        *(unit_joined({m: part[m] for m in names}) for part in (features.v, features.V))
    )
