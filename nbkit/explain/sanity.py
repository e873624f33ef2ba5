"""Does a heat map depend on what the network has learned?

Cascading randomisation (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018): weights are
drawn anew from the top downwards.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from nbkit.explain.gradcam import map_layer
from nbkit.explain.heat import Dataset, Explained, explain, explainable, seen_clips
from nbkit.methods.base import Method
from nbkit.models.norm import DomainNorm, estimating_statistics
from nbkit.models.two_stream import TwoStream

DEPTHS = (
    "trained",
    "all above the encoder anew",
    "and the last convolution",
    "and every other layer",
)


def cascading_randomisation(model: TwoStream, depth: int, seed: int = 0) -> TwoStream:
    """A copy with fresh weights down to `depth`, see DEPTHS."""
    model = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for stream in model.streams.values():
            above = nn.ModuleList([stream.project, stream.aggregate, stream.classifier])
            parts = [above, map_layer(stream.encoder), stream.encoder]
            for part in parts[:depth]:
                _draw_anew(part)
    return model


def _draw_anew(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, DomainNorm) and m.weight is not None:
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
        elif hasattr(m, "reset_parameters"):
            m.reset_parameters()


def explain_randomised(
    method: Method,
    dataset: Dataset,
    indices: np.ndarray,
    classes: np.ndarray,
    depth: int,
    layer: int = -1,
    seed: int = 0,
) -> Explained:
    """`explain` with weights drawn anew, for given classes (N,); the method stays as it is.

    New weights need new normalisation statistics: they are estimated from the clips that are
    explained, without labels.
    """
    model = cascading_randomisation(explainable(method), depth, seed)
    if depth:
        device = next(model.parameters()).device
        with torch.no_grad(), estimating_statistics(model, method.statistics):
            model(seen_clips(dataset, indices, device))
    return explain(method, dataset, indices, classes, layer, model=model)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps per video: (N, ...) and (N, ...) -> (N,).

    NaN where a map is constant.
    """
    found = np.full(len(a), np.nan)
    for i, (x, y) in enumerate(zip(a.reshape(len(a), -1), b.reshape(len(b), -1))):
        x, y = rankdata(x), rankdata(y)
        if x.std() > 0 and y.std() > 0:
            found[i] = np.corrcoef(x, y)[0, 1]
    return found
