"""Heads of the comparison methods over clip and video features."""

from __future__ import annotations

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DomainClassifier(nn.Sequential):
    """Features (..., D) -> (...), the logit of "target".  100 hidden units are MM-SADA's."""

    def __init__(self, dim: int, hidden: int = 100):
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(-2))


class ClipAttention(nn.Module):
    """Clip features (B, K, D) -> weights (B, K), >= 0, that sum to 1 over the clips."""

    def __init__(self, dim: int):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))

    def forward(self, v: Tensor) -> Tensor:
        return self.score(v).squeeze(-1).softmax(dim=1)


def attend(v: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over clips: v (B, K, D), weights (B, K) -> (B, D)."""
    return (weights.unsqueeze(-1) * v).sum(1)


def co_attention(source: Tensor, target: Tensor, a_source: Tensor, a_target: Tensor) -> Tensor:
    r"""Which target clip goes with which source clip, after TCoN (AAAI 2020); our reconstruction.

    $$A_{ij} = \frac{\exp(a_i^s a_j^t \cos(v_i^s, v_j^t))}{\sum_{j'} \exp(a_i^s a_{j'}^t \cos(v_i^s,
    v_{j'}^t))}$$

    Shapes: source (B, Ks, D), target (B, Kt, D) clips of paired videos, a_source (B, Ks), a_target
    (B, Kt) their self-attention, >= 0 -> (B, Ks, Kt), rows that sum to 1.  `A @ target` is the
    target in the source's time.
    """
    transposed = F.normalize(target, dim=-1).transpose(1, 2)  # (B, D, Kt)
    cosine = F.normalize(source, dim=-1) @ transposed  # (B, Ks, Kt)
    return (a_source.unsqueeze(2) * a_target.unsqueeze(1) * cosine).softmax(-1)


class ClipOrder(nn.Module):
    """Predicts in which order n = min(K, 3) clips of a video were handed over: n! classes.

    Three clips, evenly spread, and their six orders are SAVA's.
    """

    def __init__(self, dim: int, clips: int):
        super().__init__()
        chosen = torch.linspace(0, clips - 1, min(clips, 3), dtype=torch.float64).round().long()
        # on the device: a copy from the host would make every step wait
        self.register_buffer("chosen", chosen, persistent=False)
        orders = torch.tensor(list(permutations(range(len(self.chosen)))))  # (n!, n)
        self.register_buffer("orders", orders, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(len(self.chosen) * dim, dim), nn.ReLU(), nn.Linear(dim, len(self.orders))
        )

    def shuffle(self, v: Tensor, order: Tensor) -> Tensor:
        """v (B, K, D), order (B,) numbers of permutations -> the chosen clips (B, n, D) so."""
        places = self.orders[order]  # (B, n)
        return v[:, self.chosen].gather(1, places[..., None].expand(-1, -1, v.shape[-1]))

    def forward(self, v: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Shuffle each video's clips by itself: v (B, K, D) -> logits (B, n!), true order (B,)."""
        order = torch.randint(len(self.orders), (len(v),), generator=generator)
        order = order.to(v.device, non_blocking=True)
        return self.layers(self.shuffle(v, order).flatten(1)), order
