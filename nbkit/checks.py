"""Graders of the notebooks' exercises: each takes the reader's function, tries it, and says what is
right or differs.

A grader returns True, False, or None for "no answer yet" (the function still returns None), and
prints one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nbkit.data.clips import clip_starts
from nbkit.evaluate.average_precision import average_precision
from nbkit.losses import alignment, pseudo_labels
from nbkit.losses.kernels import gaussian_mixture_kernel, squared_distances


def _same(answer: Any, expected: Any, tolerance: float) -> bool:
    answer, expected = (
        np.asarray(x.detach() if isinstance(x, Tensor) else x, dtype=float)
        for x in (answer, expected)
    )
    return answer.shape == expected.shape and bool(np.allclose(answer, expected, atol=tolerance))


def _grade(
    name: str, function: Callable, cases: list[tuple[tuple, Any, str]], tolerance: float = 1e-5
) -> bool | None:
    """Try `function` on every case (arguments, expected value, what the case is about)."""
    for arguments, expected, about in cases:
        try:
            answer = function(*arguments)
        except (
            Exception
        ) as error:  # a reader's function may fail in any way; say how, do not stop the notebook
            print(f"{name}: your function raised {type(error).__name__} on {about}: {error}")
            return False
        if answer is None:
            print(f"{name}: no answer yet (the function returns None)")
            return None
        try:
            same = _same(answer, expected, tolerance)
        except (TypeError, ValueError, RuntimeError):
            print(
                f"{name}: not yet. On {about} your answer is no number or array of numbers: {answer!r}"
            )
            return False
        if not same:
            shown = expected.tolist() if isinstance(expected, Tensor) else expected
            print(f"{name}: not yet. On {about} the answer is {shown}, yours was {answer}")
            return False
    print(f"{name}: correct, {len(cases)} of {len(cases)} cases")
    return True


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- 01: data
# -----------------------------------------------------------------------------------------------------


def centred_starts(function: Callable[[int, int, int], Any]) -> bool | None:
    """Exercise 1.1: (N frames, K clips, T frames a clip), N / K >= T -> first frame of each clip,
    centred, rounded.
    """
    sizes = ((32, 3, 8), (90, 3, 16), (20, 1, 16))
    cases = [((n, k, t), clip_starts(n, k, t), f"N={n}, K={k}, T={t}") for n, k, t in sizes]
    return _grade("Exercise 1.1", function, cases)


def mirrored_flow(function: Callable[[np.ndarray], np.ndarray]) -> bool | None:
    """Exercise 1.2: flow (2, T, H, W) of a clip -> the flow of the same clip seen in a mirror."""
    cases = []
    for seed in range(2):
        flow = np.random.default_rng(seed).normal(size=(2, 2, 3, 4))
        expected = flow[..., ::-1] * np.array([-1.0, 1.0])[:, None, None, None]
        cases.append(((flow.copy(),), expected, f"a random flow {flow.shape}"))
    return _grade("Exercise 1.2", function, cases)


def cache_bytes(function: Callable[[int, int, int], float]) -> bool | None:
    """Exercise 1.3: (videos, frames a video, side in pixels) -> bytes of RGB and flow at one byte a
    number.
    """
    cases = [
        ((v, n, s), v * n * s * s * 5, f"{v} videos of {n} frames at {s}x{s}")
        for v, n, s in ((1600, 32, 48), (1, 1, 1), (3209, 150, 256))
    ]
    return _grade("Exercise 1.3", function, cases)


# --- 02: contrastive learning
# -------------------------------------------------------------------------------------


def own_slot_probability(function: Callable[[int, int], float]) -> bool | None:
    """Exercise 2.1: chance that k uniform draws with replacement from n slots contain the anchor's
    own slot.
    """
    cases = [
        ((n, k), 1 - (1 - 1 / n) ** k, f"n={n}, k={k}")
        for n, k in ((6834, 1024), (10, 1), (1440, 256))
    ]
    return _grade("Exercise 2.1", function, cases)


def mean_of_logs(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 2.2: log Theta of positives (P,), negatives (N,) -> mean over positives of
    -log(Theta_p / sum of all)
    """
    cases = []
    for seed, (p, n) in enumerate(((2, 5), (1, 3), (3, 1))):
        positives, negatives = 3 * _random(p, seed=seed), 3 * _random(n, seed=seed + 9)
        expected = torch.logsumexp(torch.cat([positives, negatives]), 0) - positives.mean()
        cases.append(((positives, negatives), expected, f"{p} positives and {n} negatives"))
    big = torch.tensor([900.0, 800.0]), torch.tensor([850.0])
    cases.append((big, torch.tensor(50.0), "logits near 900, where exp overflows"))
    return _grade("Exercise 2.2", function, cases, tolerance=1e-4)


def order_negatives(function: Callable[[int], int]) -> bool | None:
    """Exercise 2.3: number of wrong orders of K clips."""
    return _grade(
        "Exercise 2.3", function, [((k,), math.factorial(k) - 1, f"K={k}") for k in (3, 2, 5)]
    )


# --- 03: alignment
# ------------------------------------------------------------------------------------------------


def relation_matrix(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 3.1: Eq. (5) for all class pairs from kernel (N1, N2) and one-hot Y1 (N1, C), Y2
    (N2, C), no loop.
    """
    cases = []
    for seed, classes in enumerate((3, 4)):
        y1, y2 = torch.arange(9) % classes, torch.arange(7) % classes
        kernel = gaussian_mixture_kernel(
            squared_distances(_random(9, 2, seed=seed), _random(7, 2, seed=seed + 5)), 2.0
        )
        expected = torch.tensor(
            [
                [alignment.relation(kernel, y1, y2, a, b) for b in range(classes)]
                for a in range(classes)
            ]
        )
        eye = torch.eye(classes)
        cases.append(((kernel, eye[y1], eye[y2]), expected, f"{classes} classes"))
    return _grade("Exercise 3.1", function, cases)


def spherical_centre(function: Callable[[Tensor], Tensor]) -> bool | None:
    """Exercise 3.2: V (N, D) of one class -> the unit vector with the smallest mean squared
    distance to V / |V|.
    """
    cases = [
        (
            (_random(n, d, seed=n) + 2,),
            pseudo_labels.source_centres(
                _random(n, d, seed=n) + 2, torch.zeros(n, dtype=torch.long), 1
            )[0],
            f"{n} features of size {d}",
        )
        for n, d in ((5, 3), (40, 8))
    ]
    return _grade("Exercise 3.2", function, cases)


def fused_label(function: Callable[[dict, dict], int]) -> bool | None:
    """Exercise 3.3: one video's unit features {m: (D,)} and centres {m: (C, D)} -> its label,
    modalities fused.
    """
    cases = []
    for seed in range(4):
        V = {
            m: torch.nn.functional.normalize(_random(3, seed=seed + i), dim=0)
            for i, m in enumerate(("rgb", "flow"))
        }
        centres = {
            m: torch.nn.functional.normalize(_random(5, 3, seed=seed + 20 + i), dim=1)
            for i, m in enumerate(V)
        }
        label, _ = pseudo_labels.assign({m: V[m].unsqueeze(0) for m in V}, centres)
        cases.append(((V, centres), label[0], f"case {seed + 1}"))
    return _grade("Exercise 3.3", function, cases)


# --- 07: Grad-CAM
# -------------------------------------------------------------------------------------------------


def cam_map(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 7.1: activations A (C, h, w) and the class score's gradient (C, h, w) -> Grad-CAM's
    map (h, w).
    """
    cases = []
    for seed, shape in enumerate(((3, 2, 2), (5, 4, 3))):
        A, dA = _random(*shape, seed=seed), _random(*shape, seed=seed + 7)
        expected = torch.einsum("c,chw->hw", dA.mean((1, 2)), A).clamp_min(0)
        cases.append(((A, dA), expected, f"{shape[0]} channels of {shape[1]} x {shape[2]} cells"))
    return _grade("Exercise 7.1", function, cases)


def cell_centre(function: Callable[[int, list[tuple[int, int, int]]], float]) -> bool | None:
    """Exercise 7.2: cell j of the last map and the layers' (kernel, stride, padding) -> pixel on
    which it is centred.
    """
    pixels = np.arange(512.0)
    cases = []
    for j, layers in (
        (1, [(3, 2, 1)] * 4),
        (2, [(7, 2, 3), (3, 2, 0), (3, 1, 1)]),
        (0, [(2, 2, 0), (2, 2, 0)]),
    ):
        # centre of every cell, layer by layer: the mean of the cells that its window covers
        centres = pixels
        for k, s, p in layers:
            step = centres[1] - centres[0]
            padded = centres[0] + step * (np.arange(len(centres) + 2 * p) - p)
            centres = np.array([padded[i : i + k].mean() for i in range(0, len(padded) - k + 1, s)])
        cases.append(((j, layers), centres[j], f"cell {j} after {layers}"))
    return _grade("Exercise 7.2", function, cases)


# --- 05: localization
# ---------------------------------------------------------------------------------------------


def focal_factor(function: Callable[[float, float], float]) -> bool | None:
    """Exercise 5.1: (P of a target frame, gamma) -> the factor of the focal loss in front of -log
    P.
    """
    return _grade(
        "Exercise 5.1",
        function,
        [
            ((p, g), (1 - p) ** g, f"P={p}, gamma={g}")
            for p, g in ((0.5, 5.0), (0.9, 3.0), (0.2, 0.0))
        ],
    )


def ranked_area(function: Callable[[list, int], float]) -> bool | None:
    """Exercise 5.2: (hits best first, number of ground truths) -> AP in [0, 1] by trapezoids."""
    cases = []
    for hits, n in (
        ([True, False, True], 3),
        ([False, True], 1),
        ([True, True, False, True, False], 5),
    ):
        expected = average_precision(-np.arange(len(hits)), np.array(hits), n)
        cases.append(
            ((list(hits), n), expected, f"hits {[int(h) for h in hits]} of {n} ground truths")
        )
    return _grade("Exercise 5.2", function, cases)


def tube_overlap(function: Callable[[set, set, float], float]) -> bool | None:
    """Exercise 5.3: (frames of a, frames of b, IoU of their boxes on every common frame) -> 3-D
    IoU.
    """
    cases = [
        ((a, b, iou), iou * len(a & b) / len(a | b), about)
        for a, b, iou, about in (
            (set(range(10)), set(range(9)), 1.0, "a perfect tube that misses one frame of ten"),
            (set(range(0, 8)), set(range(4, 12)), 0.5, "tubes that share a third of their time"),
            ({1, 2}, {5, 6}, 0.9, "tubes that never meet"),
        )
    ]
    return _grade("Exercise 5.3", function, cases)


# --- 06: numbers beside a picture
# ---------------------------------------------------------------------------------


def perplexity(function: Callable[[np.ndarray], float]) -> bool | None:
    """Exercise 6.1: probabilities p (N,) that sum to 1, some may be 0 -> 2 to the power of the
    entropy of p in bits.
    """
    cases = [((np.full(n, 1 / n),), float(n), f"{n} equally likely neighbours") for n in (8, 5)]
    cases.append(
        ((np.array([0.5, 0.0, 0.5, 0.0]),), 2.0, "two likely neighbours and two impossible ones")
    )
    p = np.array([0.7, 0.2, 0.1])
    cases.append(((p,), 2.0 ** -(p * np.log2(p)).sum(), "p = 0.7, 0.2, 0.1"))
    return _grade("Exercise 6.1", function, cases)


def silhouette(function: Callable[[np.ndarray, np.ndarray, int], float]) -> bool | None:
    """Exercise 6.2: distances (N,) of a video to all others, their classes (N,), its own class ->
    (b - a) / max(a, b).
    """
    cases = []
    for d, y, own, about in (
        ([1.0, 3.0, 4.0, 4.0], [0, 0, 1, 1], 0, "a = 2 and b = 4"),
        (
            [6.0, 3.0, 9.0, 1.0, 1.0],
            [2, 0, 0, 1, 1],
            2,
            "a video nearer to another class than to its own",
        ),
        (
            [1.0, 9.0, 2.0, 2.0, 3.0],
            [1, 0, 1, 2, 1],
            1,
            "three classes: the nearest other one counts",
        ),
    ):
        distances, classes = np.array(d), np.array(y)
        a = distances[classes == own].mean()
        b = min(distances[classes == c].mean() for c in set(y) - {own})
        cases.append(((distances, classes, own), (b - a) / max(a, b), about))
    return _grade("Exercise 6.2", function, cases)
