"""Features of source and target videos side by side, each read exactly as evaluation reads it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError, require_one_of
from nbkit.evaluate.separability import unit_joined
from nbkit.losses.alignment import VideoFeatures
from nbkit.methods.batches import Features, extract
from nbkit.train.domains import resolved_videos
from nbkit.train.recognition import load_or_train, prepare
from nbkit.train.selection import target_features


class BothDomains(NamedTuple):
    """Features of one trained method; the labels are the true ones of all three sets.

    Attributes:
        source: training videos of the source, centred clips.
        held_out: the source's test videos, which no training has seen.
        target: test videos of the target, as in the tables.
        statistics: whose normalisation statistics read 'source' and 'target'.
        weights_from: whose network it is, an own run's or a shipped one.
    """

    source: Features
    held_out: Features
    target: Features
    statistics: dict[str, str]
    classes: list[str]
    weights_from: str


def both_domains(cfg: RunConfig) -> BothDomains:
    """Both domains through the final network of `cfg`, as `load_or_train` finds it.

    The target is read with the statistics that evaluation uses for this method, the source with its
    own, except by a network trained on the target alone.  Raises NbkitError, before any training,
    where the source has no test videos.
    """
    prepared = prepare(cfg)
    fabric, method, domains = prepared
    if not len(domains.test["source"]):
        raise NbkitError(
            f"{cfg.source} has no {cfg.evaluation.eval_split} videos in {cfg.benchmark}: nothing "
            "to compare a domain gap with"
        )
    load_or_train(prepared)
    reads_source = "source" if "source" in method.labelled else method.statistics
    if reads_source == "target":
        target_features(method, domains, fabric.device)  # fills the statistics
    videos = domains.training.plain["source"]
    source = extract(method, videos, reads_source, fabric.device)
    held_out = extract(method, domains.test["source"], reads_source, fabric.device)
    # Last, because it may replace shared statistics.
    target = target_features(method, domains, fabric.device)
    table = resolved_videos(cfg)[1]
    known = table[table["domain"] == cfg.source].set_index("video")["label"]
    true = known.loc[list(videos.videos)].to_numpy().copy()
    statistics = {"source": reads_source, "target": method.statistics}
    return BothDomains(
        source._replace(labels=torch.as_tensor(true).to(source.labels)),
        held_out,
        target,
        statistics,
        domains.training.classes,
        method.weights_from,
    )


def joined(features: Features, stream: str = "fused") -> VideoFeatures:
    """Clips v (N, K, D) and videos V (N, D) of 'rgb', of 'flow', or of all streams ('fused').

    Each stream is scaled to unit length first; 'fused' has D of all streams side by side.  Raises
    NbkitError for a stream that the network does not have.
    """
    require_one_of("FEATURE", stream, ("fused", *features.V))
    names = list(features.V) if stream == "fused" else [stream]
    clips = unit_joined({name: features.v[name] for name in names})
    videos = unit_joined({name: features.V[name] for name in names})
    return VideoFeatures(clips, videos)
