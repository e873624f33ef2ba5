"""TRN-M (Zhou et al., ECCV 2018), the aggregation of TA3N: relations of 2, 3, ..., K clips, added
up.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import nn

from nbkit.errors import NbkitError

SUBSAMPLE = 3  # tuples of clips a scale, TA3N's and TRN's value


def clip_tuples(clips: int, scale: int, most: int = SUBSAMPLE) -> list[tuple[int, ...]]:
    """At most `most` of the ordered `scale`-tuples of `clips` clips, evenly spread over their list."""
    every = list(combinations(range(clips), scale))
    count = min(most, len(every))
    return [every[-(-i * len(every) // count)] for i in range(count)]


class Relations(nn.Module):
    """v (B, K, D) -> V (B, D): the sum of the K - 1 relation features, from K clips at once down to
    pairs.

    A relation of n clips is ReLU(linear(ReLU(their concatenation))), summed over its tuples. Its
    size is D (256 in the paper), so that the same classifier reads it.  `attention`, where a method
    sets it, maps the relations (B, K-1, D) to weights w (B, K-1), and each relation counts 1 + w
    times. Raises NbkitError for a single clip, which has no relations.
    """

    def __init__(self, dim: int, clips: int):
        super().__init__()
        if clips < 2:
            raise NbkitError(
                f"CLIPS={clips}: relations between clips (AGGREGATION='trn', METHOD='ta3n') need at least 2"
            )
        self.scales = list(range(clips, 1, -1))
        self.tuples = [clip_tuples(clips, n) for n in self.scales]
        self.fuse = nn.ModuleList(nn.Linear(n * dim, dim) for n in self.scales)
        self.attention: Callable[[torch.Tensor], torch.Tensor] | None = None

    def relations(self, v: torch.Tensor) -> torch.Tensor:
        """(B, K, D) -> (B, K-1, D), the largest scale first."""
        found = []
        for fuse, tuples in zip(self.fuse, self.tuples):
            chosen = v[:, torch.tensor(tuples, device=v.device)].relu()  # (B, tuples, n, D)
            found.append(torch.relu(fuse(chosen.flatten(2))).sum(1))  # (B, D)
        return torch.stack(found, dim=1)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        R = self.relations(v)  # (B, K-1, D)
        return (
            R.sum(1)
            if self.attention is None
            else ((1 + self.attention(R)).unsqueeze(-1) * R).sum(1)
        )
