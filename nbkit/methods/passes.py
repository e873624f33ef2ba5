"""Passes over a whole data set: features, predictions, normalisation statistics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbkit.errors import NbkitError
from nbkit.methods.samplers import epoch_batches
from nbkit.models.norm import estimating_statistics

if TYPE_CHECKING:
    from nbkit.methods.base import Batch, Method

EVAL_BATCH = 64
# threads that assemble batches, and batches that wait assembled
AHEAD = 2


class Features(NamedTuple):
    """Outputs of a data set, in its order."""

    v: dict[str, Tensor]  # by stream (N, K, D)
    V: dict[str, Tensor]  # by stream (N, D)
    probs: dict[str, Tensor]  # by stream and 'fused' (N, C)
    labels: Tensor  # (N,), -1 where withheld


def ahead(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work(item)` of every item in order; threads do the next ones while the caller is busy."""
    pool, waiting = ThreadPoolExecutor(AHEAD), deque[Future]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def assembled(device: torch.device, dataset: Any, chosen: np.ndarray, **views: bool) -> Batch:
    """A batch in bytes, in memory that a GPU can fetch by itself where `device` is one."""
    batch = dataset.raw(chosen, **views)
    if device.type != "cuda":
        return batch
    return {name: x.pin_memory() for name, x in batch.items()}


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    return {name: x.to(device, non_blocking=True) for name, x in batch.items()}


def require_finite(found: Batch, videos: list[str], what: str) -> None:
    """NbkitError that names the videos of whose tensors (N, ...) one is not finite.

    `found["index"]` says which of `videos` the N are; without it they are all.
    """
    index = found.get("index", torch.arange(len(videos))).tolist()
    bad = torch.zeros(len(index), dtype=torch.bool)
    for x in found.values():
        bad |= ~x.reshape(len(index), -1).isfinite().all(1).cpu()
    names = [videos[i] for i, is_bad in zip(index, bad.tolist()) if is_bad]
    if names:
        raise NbkitError(
            f"{what} of {len(names)} videos are not finite numbers ({', '.join(names[:5])}): a run "
            "would count them as some class. Their cached files are damaged (delete those), or "
            "training diverged (lower LR)"
        )


def in_batches(dataset: Any, device: torch.device) -> Iterator[Batch]:
    """All videos of `dataset` once, in the order of the files, so of the classes.

    Only for evaluation mode: batch statistics would know the labels.
    """
    every = np.arange(len(dataset))
    parts = np.split(every, every[EVAL_BATCH::EVAL_BATCH])
    for batch in ahead(partial(assembled, device, dataset), parts):
        yield to_device(batch, device)


def in_random_batches(
    dataset: Any, seed: int, device: torch.device, **views: Any
) -> Iterator[Batch]:
    """All videos of `dataset` once, in a random order, in batches of equal size (+-1).

    For whatever reads batch statistics.  `views` are arguments of `dataset.raw`.
    """
    parts = epoch_batches(len(dataset), EVAL_BATCH, seed + 5171, 0)
    for batch in ahead(partial(assembled, device, dataset, **views), parts):
        yield to_device(batch, device)


@torch.no_grad()
def extract(method: Method, dataset: Any, domain: str, device: torch.device) -> Features:
    """Features and predictions in evaluation mode with `domain`'s statistics."""
    was_training = method.training
    method.eval()
    found = [_one_batch(method, batch, domain) for batch in in_batches(dataset, device)]
    method.train(was_training)
    v, V, probs, labels = zip(*found, strict=True)
    features = Features(_joined(v), _joined(V), _joined(probs), torch.cat(labels))
    for each in (features.V, features.probs):
        require_finite(each, dataset.videos, "features or probabilities")
    return features


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
            require_finite(batch, dataset.videos, "clips")
            outputs = method.outputs(batch, domain)
            features = {m: out.V for m, out in outputs.items()}
            require_finite({**features, "index": batch["index"]}, dataset.videos, "features")
