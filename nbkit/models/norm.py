"""Normalisation layers that know whose statistics to use (domain-specific batch norm, DSBN).

In video domain adaptation this choice has the largest single effect.  Modes:

- `shared`: one set of running statistics for both domains.  In training each batch comes from one
  domain and is normalised by itself.
- `per_domain`: one set per domain, shared affine parameters, as in AdaBN (Li et al., ICLR-W 2017)
  and CAN (Kang et al., CVPR 2019).
- `frozen`: always the running statistics, which change within `learning_statistics` only.
- `group`: GroupNorm, no statistics at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Mode = Literal["shared", "per_domain", "frozen", "group"]
_ROWS = {"source": 0, "target": 1}


class DomainNorm(nn.Module):
    """Normalise (N, C, ...) with the running statistics of the domain in force.

    Args:
        channels: C.
        mode: see the module.
        affine: learn a scale and a shift, shared by the domains.
    """

    def __init__(self, channels: int, mode: Mode = "shared", affine: bool = True):
        super().__init__()
        self.mode, self.momentum, self.eps = mode, 0.1, 1e-5
        self.domain = 0  # row of the statistics in force
        self.updates = True  # whether training passes change the running statistics
        self.repeats = False  # whether this pass has changed them once before
        self.learning = False  # whether the mode `frozen` trains like `shared`
        self.averaged: int | None = None  # batches in a plain mean; None: exponential mean
        self.groups = min(8, channels)  # of the mode `group`
        while channels % self.groups:
            self.groups -= 1
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        rows = 2 if mode == "per_domain" else 1
        self.register_buffer("running_mean", torch.zeros(rows, channels))
        self.register_buffer("running_var", torch.ones(rows, channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, ...)
        if self.mode == "group":
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        row = self.domain if self.mode == "per_domain" else 0
        # (C,) views: batch_norm updates them in place
        mean, var = self.running_mean[row], self.running_var[row]
        if not self.training or (self.mode == "frozen" and not self.learning):
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        momentum = self.momentum
        if not self.updates:  # batch statistics normalise, the running ones stay
            mean = var = None
        elif self.repeats:
            mean, var = mean.clone(), var.clone()
        elif self.averaged is not None:  # the first batch overwrites, later ones average in
            self.averaged += 1
            momentum = 1.0 / self.averaged
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, momentum, self.eps)


@contextmanager
def _setting(model: nn.Module, **values: object) -> Iterator[None]:
    """Within the block, every `DomainNorm` of `model` has these values of its attributes."""
    norms = [module for module in model.modules() if isinstance(module, DomainNorm)]
    before = [{name: getattr(norm, name) for name in values} for norm in norms]
    for norm in norms:
        vars(norm).update(values)
    try:
        yield
    finally:
        for norm, old in zip(norms, before):
            vars(norm).update(old)


def use_domain(model: nn.Module, domain: str) -> AbstractContextManager[None]:
    """Within the block, `model` uses the statistics of `domain`, 'source' or 'target'."""
    return _setting(model, domain=_ROWS[domain])


def keep_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Within the block, forward passes change no running statistics.

    Every pass over negatives runs inside such a block.
    """
    return _setting(model, updates=False)


def repeating(model: nn.Module) -> AbstractContextManager[None]:
    """A block that computes a forward pass of this moment again, whenever it is entered.

    The domain is that of the call, and no running statistics change a second time.
    """
    norms = [module for module in model.modules() if isinstance(module, DomainNorm)]
    now = {name: getattr(norm, name) for norm in norms for name in ("domain", "updates")}
    return _setting(model, repeats=True, **now)


def learning_statistics(model: nn.Module, learning: bool = True) -> AbstractContextManager[None]:
    """Within the block, `frozen` layers train as `shared` ones do, if `learning`."""
    return _setting(model, learning=learning)


@contextmanager
def estimating_statistics(model: nn.Module, domain: str) -> Iterator[None]:
    """Within the block, forward passes estimate the statistics of `domain` anew.

    The statistics become the plain mean over batches.  AdaBN (Li et al. 2018) is this block around
    one pass over the target's training clips.  Inside, the model is in training mode but without
    dropout.  The mode `group` ignores the block, and so does `frozen` outside of
    `learning_statistics`.
    """
    was_training = model.training
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        with use_domain(model, domain), _setting(model, averaged=0):
            yield
    finally:
        model.train(was_training)


def convert_batchnorm(model: nn.Module, mode: Mode) -> nn.Module:
    """Replace every BatchNorm of `model`, in place, by a `DomainNorm`; return `model`.

    The new layers take over weights and statistics (every domain's row starts from the same), so
    call this after published weights are loaded.  Without it, passes over negatives would change
    running statistics.
    """
    for name, old in model.named_children():
        if not isinstance(old, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            convert_batchnorm(old, mode)
            continue
        new = DomainNorm(old.num_features, mode, affine=old.affine)
        new.eps, new.momentum = old.eps, old.momentum
        if old.affine:
            new.weight.data.copy_(old.weight.data)
            new.bias.data.copy_(old.bias.data)
        new.running_mean.copy_(old.running_mean)  # (C,) into every row
        new.running_var.copy_(old.running_var)
        setattr(model, name, new.train(old.training))
    return model
