"""What tests of methods share: a method as a run builds it, a batch of each domain, a step of a
stage.
"""

import numpy as np
import torch

from nbkit.methods.base import Step
from nbkit.train.domains import get_batch
from nbkit.train.loop import prepare


def built(cfg):
    return prepare(cfg)[1]


def batches(method, n=8):
    cfg = method.cfg
    return [
        get_batch(method.domains.train[d], np.arange(n), cfg, torch.device("cpu"), False)
        for d in ("source", "target")
    ]


def at(stage=3, progress=0.5):
    return Step(stage, 0, progress, torch.Generator().manual_seed(0))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
