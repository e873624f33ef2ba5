"""Passes over a whole training or test set: features, predictions, normalisation statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from nbkit.config.recognition import RunConfig
from nbkit.methods.samplers import epoch_batches
from nbkit.models.norm import estimating_statistics, use_domain
from nbkit.models.two_stream import TwoStream
from nbkit.train.domains import get_batch

if TYPE_CHECKING:
    from nbkit.methods.base import Method

EVAL_BATCH = 64


class Features(NamedTuple):
    """Outputs of a data set, in its order."""

    v: dict[str, torch.Tensor]  # by stream (N, K, D)
    V: dict[str, torch.Tensor]  # by stream (N, D)
    probs: dict[str, torch.Tensor]  # by stream and 'fused' (N, C)
    labels: torch.Tensor  # (N,), -1 where withheld


def in_batches(
    dataset, cfg: RunConfig, device: torch.device, contrast: bool = False, size: int = EVAL_BATCH
) -> Iterator[dict[str, torch.Tensor]]:
    """All videos of `dataset` once, in order.  For evaluation mode: the order is that of the files,
    so of the classes.
    """
    for start in range(0, len(dataset), size):
        yield get_batch(
            dataset, np.arange(start, min(start + size, len(dataset))), cfg, device, contrast
        )


def in_random_batches(
    dataset, cfg: RunConfig, device: torch.device, contrast: bool = False
) -> Iterator[dict[str, torch.Tensor]]:
    """All videos of `dataset` once, in a random order, in batches of equal size (+-1): for whatever
    reads batch statistics.

    In the order of the files a batch would hold two or three classes, and its statistics would know
    their labels.
    """
    for chosen in epoch_batches(len(dataset), EVAL_BATCH, cfg.seed + 5171, 0):
        yield get_batch(dataset, chosen, cfg, device, contrast)


@torch.no_grad()
def extract(
    model: TwoStream, dataset, domain: str, cfg: RunConfig, device: torch.device
) -> Features:
    """Features and predictions in evaluation mode with `domain`'s statistics."""
    was_training = model.training
    model.eval()
    rows: list[tuple[dict, dict, dict, torch.Tensor]] = []
    with use_domain(model, domain):
        for batch in in_batches(dataset, cfg, device):
            out = model(batch)
            rows.append(
                (
                    {m: o.v for m, o in out.items()},
                    {m: o.V for m, o in out.items()},
                    model.probabilities(out),
                    batch["label"],
                )
            )
    model.train(was_training)

    def joined(i: int) -> dict[str, torch.Tensor]:
        return {m: torch.cat([row[i][m] for row in rows]) for m in rows[0][i]}

    return Features(joined(0), joined(1), joined(2), torch.cat([row[3] for row in rows]))


@torch.no_grad()
def estimate_statistics(
    model: TwoStream, dataset, domain: str, cfg: RunConfig, device: torch.device
) -> None:
    """AdaBN: fill `domain`'s normalisation statistics from one pass over `dataset` (no labels, no
    gradient).
    """
    with estimating_statistics(model, domain):
        for batch in in_random_batches(dataset, cfg, device):
            model(batch)


def test_features(method: Method, device: torch.device) -> Features:
    """The target's test videos through the final network (the last epoch: nothing is selected)."""
    cfg, domains = method.cfg, method.domains
    if method.statistics == "target" and cfg.model.bn_mode in ("shared", "per_domain"):
        needs = cfg.model.bn_mode == "per_domain" or cfg.method == "adabn"
        if needs:
            estimate_statistics(method.model, domains.plain["target"], "target", cfg, device)
    return extract(method.model, domains.test["target"], method.statistics, cfg, device)
