"""From K clip features to one video feature: mean, concatenation with a linear layer, GRU (Table
6a), or relations.
"""

from __future__ import annotations

import torch
from torch import nn

from nbkit.models.relations import Relations


class Mean(nn.Module):
    """Average of the clips.  Blind to their order, so the paper leaves order negatives out with it."""

    def forward(self, v: torch.Tensor) -> torch.Tensor:  # (B, K, D) -> (B, D)
        return v.mean(dim=1)


class ConcatFC(nn.Module):
    """Concatenation of the K clips and one linear layer K*D -> D."""

    def __init__(self, dim: int, clips: int):
        super().__init__()
        self.fc = nn.Linear(clips * dim, dim)

    def forward(self, v: torch.Tensor) -> torch.Tensor:  # (B, K, D) -> (B, D)
        return self.fc(v.flatten(1))


class LastGRU(nn.Module):
    """One-layer GRU with D hidden units over the clips; the last state."""

    def __init__(self, dim: int):
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, v: torch.Tensor) -> torch.Tensor:  # (B, K, D) -> (B, D)
        return self.gru(v)[1][0]


def make_aggregation(kind: str, dim: int, clips: int) -> nn.Module:
    """`kind` in mean | concat_fc | gru | trn, for K=`clips` features of size `dim`."""
    return {
        "mean": Mean,
        "concat_fc": lambda: ConcatFC(dim, clips),
        "gru": lambda: LastGRU(dim),
        "trn": lambda: Relations(dim, clips),
    }[kind]()
