"""Random weights that do not depend on torch, for golden outputs and for parity with the peers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def seeded_state(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Draw a state dict of `model` by numpy, the same on every machine and version of torch.

    Kernels are He-normal, scales of batch normalisation lie in [0.8, 1.2] and variances in
    [0.5, 1.5], everything else is N(0, 0.1^2).
    """
    rng = np.random.default_rng(seed)
    state = {}
    # By name, so the order in which modules were registered does not matter.
    for name, old in sorted(model.state_dict().items()):
        if not old.is_floating_point():
            state[name] = old.clone()
            continue
        if old.dim() > 1:
            values = rng.standard_normal(old.shape) * (2.0 / old[0].numel()) ** 0.5
        elif "bn" in name and name.endswith("weight"):
            values = rng.uniform(0.8, 1.2, old.shape)
        elif "bn" in name and name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, old.shape)
        else:
            values = rng.standard_normal(old.shape) * 0.1
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state
