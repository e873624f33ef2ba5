"""Normalisation with a say in whose statistics are used: the largest single effect in video domain
adaptation.

Modes: `shared` (one set of running statistics for both domains; in training each batch, of one
domain, is normalised by itself), `per_domain` (one set each, shared affine parameters; what AdaBN,
ICLR-W 2017, and CAN, CVPR 2019, use), `frozen` (running statistics always, never updated), `group`
(GroupNorm: no statistics at all).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Mode = Literal["shared", "per_domain", "frozen", "group"]
DOMAINS = ("source", "target")


class DomainNorm(nn.Module):
    """Batch or group normalisation of (N, C, ...) whose running statistics depend on the domain in
    force.

    Args:
        channels: C.
        mode: see the module.
        affine: learn a scale and a shift (shared by the domains).
        groups: groups of the `group` mode; reduced until it divides C.
    """

    def __init__(self, channels: int, mode: Mode = "shared", affine: bool = True, groups: int = 8):
        super().__init__()
        self.mode, self.momentum, self.eps = mode, 0.1, 1e-5
        self.domain, self.updates = 0, True
        self.groups = next(g for g in range(min(groups, channels), 0, -1) if channels % g == 0)
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        rows = 2 if mode == "per_domain" else 1
        self.register_buffer("running_mean", torch.zeros(rows, channels))
        self.register_buffer("running_var", torch.ones(rows, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, C, ...)
        if self.mode == "group":
            return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        row = self.domain if self.mode == "per_domain" else 0
        mean, var = self.running_mean[row], self.running_var[row]  # (C,), views: updated in place
        if self.training and self.mode != "frozen":
            if not self.updates:  # batch statistics are used, the running ones are left alone
                mean = var = None
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)


def _norms(model: nn.Module) -> list[DomainNorm]:
    return [m for m in model.modules() if isinstance(m, DomainNorm)]


@contextmanager
def use_domain(model: nn.Module, domain: str) -> Iterator[None]:
    """Within the block, every `DomainNorm` of `model` uses the statistics of `domain` ('source' or
    'target').
    """
    norms = _norms(model)
    before = [m.domain for m in norms]
    for m in norms:
        m.domain = DOMAINS.index(domain)
    try:
        yield
    finally:
        for m, row in zip(norms, before):
            m.domain = row


@contextmanager
def keep_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block, forward passes leave all running statistics untouched (used for every pass
    over negatives).
    """
    norms = _norms(model)
    before = [m.updates for m in norms]
    for m in norms:
        m.updates = False
    try:
        yield
    finally:
        for m, updates in zip(norms, before):
            m.updates = updates


@contextmanager
def estimating_statistics(model: nn.Module, domain: str) -> Iterator[None]:
    """Within the block, forward passes re-estimate `domain`'s statistics from nothing, as the plain
    mean over batches.

    AdaBN (Li et al. 2018) is this block around one pass over the target's training clips.  The
    model is in training mode inside, without dropout (the statistics are for the network as it is
    tested), and back in its former mode after. Nothing happens for `group` and `frozen`.
    """
    norms, was_training = _norms(model), model.training
    momenta, seen = [m.momentum for m in norms], [0] * len(norms)

    def cumulative(i: int):
        def hook(module: DomainNorm, _inputs):
            if module.training and module.updates:
                seen[i] += 1
                module.momentum = 1.0 / seen[i]  # the first batch overwrites, later ones average in

        return hook

    hooks = [m.register_forward_pre_hook(cumulative(i)) for i, m in enumerate(norms)]
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        with use_domain(model, domain):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for m, momentum in zip(norms, momenta):
            m.momentum = momentum
        model.train(was_training)


def convert_batchnorm(model: nn.Module, mode: Mode) -> nn.Module:
    """Replace every BatchNorm of `model`, in place, by a `DomainNorm` with its weights and
    statistics; returns `model`.

    Call it after published weights are loaded.  Without it, passes over negatives would change
    running statistics.
    """
    for name, child in model.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            new = DomainNorm(child.num_features, mode, affine=child.affine)
            new.eps, new.momentum = child.eps, child.momentum
            if child.affine:
                new.weight.data.copy_(child.weight.data)
                new.bias.data.copy_(child.bias.data)
            new.running_mean.copy_(child.running_mean)  # (C,) into every domain's row
            new.running_var.copy_(child.running_var)
            setattr(model, name, new.train(child.training))
        else:
            convert_batchnorm(child, mode)
    return model
