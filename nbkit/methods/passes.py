"""Passes over a whole data set: features, predictions, normalisation statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbkit.methods.samplers import epoch_batches
from nbkit.models.norm import estimating_statistics

if TYPE_CHECKING:
    from nbkit.methods.base import Batch, Method

EVAL_BATCH = 64


class Features(NamedTuple):
    """Outputs of a data set, in its order."""

    v: dict[str, Tensor]  # by stream (N, K, D)
    V: dict[str, Tensor]  # by stream (N, D)
    probs: dict[str, Tensor]  # by stream and 'fused' (N, C)
    labels: Tensor  # (N,), -1 where withheld


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    return {name: x.to(device, non_blocking=True) for name, x in batch.items()}


def in_batches(dataset: Any, device: torch.device, size: int = EVAL_BATCH) -> Iterator[Batch]:
    """All videos of `dataset` once, in the order of the files, so of the classes.

    Only for evaluation mode: batch statistics would know the labels.
    """
    for start in range(0, len(dataset), size):
        chosen = np.arange(start, min(start + size, len(dataset)))
        yield to_device(dataset.batch(chosen), device)


def in_random_batches(
    dataset: Any, seed: int, device: torch.device, **views: Any
) -> Iterator[Batch]:
    """All videos of `dataset` once, in a random order, in batches of equal size (+-1).

    For whatever reads batch statistics.  `views` are arguments of `dataset.batch`.
    """
    for chosen in epoch_batches(len(dataset), EVAL_BATCH, seed + 5171, 0):
        yield to_device(dataset.batch(chosen, **views), device)


@torch.no_grad()
def extract(method: Method, dataset: Any, domain: str, device: torch.device) -> Features:
    """Features and predictions in evaluation mode with `domain`'s statistics."""
    was_training = method.training
    method.eval()
    found = [_one_batch(method, batch, domain) for batch in in_batches(dataset, device)]
    method.train(was_training)
    v, V, probs, labels = zip(*found, strict=True)
    return Features(_joined(v), _joined(V), _joined(probs), torch.cat(labels))


def _one_batch(method: Method, batch: Batch, domain: str) -> Features:
    out = method.outputs(batch, domain)
    v = {m: stream.v for m, stream in out.items()}
    V = {m: stream.V for m, stream in out.items()}
    return Features(v, V, method.model.probabilities(out), batch["label"])


def _joined(parts: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    return {m: torch.cat([part[m] for part in parts]) for m in parts[0]}


@torch.no_grad()
def estimate_statistics(method: Method, dataset: Any, domain: str, device: torch.device) -> None:
    """Fill `domain`'s normalisation statistics from one pass over `dataset` (AdaBN, no labels)."""
    with estimating_statistics(method.model, domain):
        for batch in in_random_batches(dataset, method.cfg.seed, device):
            method.outputs(batch, domain)
