"""What tests of methods share: a method as a run builds it, batches of both domains, a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nbkit.methods.base import Method, Step
from nbkit.train.recognition import prepare


def built(cfg: Any) -> Method:
    return prepare(cfg).method


def batches(method: Method, n: int = 8) -> list[dict[str, torch.Tensor]]:
    """The first `n` training videos of source and target."""
    return [method.data.train[d].batch(np.arange(n)) for d in ("source", "target")]


def at(stage: int = 3, progress: float = 0.5) -> Step:
    return Step(stage, 0, progress, torch.Generator().manual_seed(0))


def terms_of(method: Method, stage: int = 3, progress: float = 0.5, n: int = 8) -> dict:
    """The unweighted terms of one step on the first `n` videos of each domain."""
    return method(*batches(method, n), at(stage, progress))[1]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
