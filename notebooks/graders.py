"""Graders of the notebooks' exercises: try the reader's function and say what is right or differs.

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
from torch.nn.functional import normalize

from nbkit.data.clips import clip_starts
from nbkit.evaluate.average_precision import average_precision

# arguments, expected value, what the case is about
Case = tuple[tuple, Any, str]


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach()
    return np.asarray(value, dtype=float)


def _same(answer: Any, expected: Any, tolerance: float) -> bool:
    answer, expected = _as_array(answer), _as_array(expected)
    if answer.shape != expected.shape:
        return False
    return bool(np.allclose(answer, expected, atol=tolerance))


def _grade(
    name: str, function: Callable, cases: list[Case], tolerance: float = 1e-5
) -> bool | None:
    """Try `function` on every case; the first that differs is shown."""
    for arguments, expected, about in cases:
        try:
            answer = function(*arguments)
        # a reader's function may fail in any way; say how, do not stop the notebook
        except Exception as error:
            print(f"{name}: your function raised {type(error).__name__} on {about}: {error}")
            return False
        if answer is None:
            print(f"{name}: no answer yet (the function returns None)")
            return None
        try:
            same = _same(answer, expected, tolerance)
        except (TypeError, ValueError, RuntimeError):
            print(f"{name}: not yet. On {about} your answer is no number or array: {answer!r}")
            return False
        if not same:
            if isinstance(expected, Tensor):
                expected = expected.tolist()
            print(f"{name}: not yet. On {about} the answer is {expected}, yours was {answer}")
            return False
    print(f"{name}: correct, {len(cases)} of {len(cases)} cases")
    return True


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- 01: data


def centred_starts(function: Callable[[int, int, int], Any]) -> bool | None:
    """Exercise 1.1: (N frames, K clips, T frames per clip) -> first frame of each centred clip."""
    cases = []
    for n, k, t in ((32, 3, 8), (90, 3, 16), (20, 1, 16)):
        cases.append(((n, k, t), clip_starts(n, k, t), f"N={n}, K={k}, T={t}"))
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
    """Exercise 1.3: (videos, frames per video, side in pixels) -> bytes of RGB and flow."""
    cases = []
    for videos, frames, side in ((1600, 32, 48), (1, 1, 1), (3209, 150, 256)):
        about = f"{videos} videos of {frames} frames at {side}x{side}"
        cases.append(((videos, frames, side), videos * frames * side * side * 5, about))
    return _grade("Exercise 1.3", function, cases)


# --- 02: contrastive learning


def own_slot_probability(function: Callable[[int, int], float]) -> bool | None:
    """Exercise 2.1: (n slots, k draws) -> chance that the draws contain the anchor's own slot."""
    cases = []
    for n, k in ((6834, 1024), (10, 1), (1440, 256)):
        cases.append(((n, k), 1 - (1 - 1 / n) ** k, f"n={n}, k={k}"))
    return _grade("Exercise 2.1", function, cases)


def mean_of_logs(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 2.2: logits of positives (P,), negatives (N,) -> mean of -log(Theta_p / sum)."""
    cases = []
    for seed, (p, n) in enumerate(((2, 5), (1, 3), (3, 1))):
        positives, negatives = 3 * _random(p, seed=seed), 3 * _random(n, seed=seed + 9)
        expected = torch.logsumexp(torch.cat([positives, negatives]), 0) - positives.mean()
        cases.append(((positives, negatives), expected, f"{p} positives and {n} negatives"))
    big = torch.tensor([900.0, 800.0]), torch.tensor([850.0])
    cases.append((big, torch.tensor(50.0), "logits near 900, where exp overflows"))
    return _grade("Exercise 2.2", function, cases, tolerance=1e-4)


def order_negatives(function: Callable[[int], int]) -> bool | None:
    """Exercise 2.3: K clips -> number of their wrong orders."""
    cases = [((k,), math.factorial(k) - 1, f"K={k}") for k in (3, 2, 5)]
    return _grade("Exercise 2.3", function, cases)


# --- 03: alignment


def unbiased_relation(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 3.1: kernel (N, N), one-hot Y (N, C) -> Eq. (5) of each class without i = j."""
    cases = []
    for seed, classes in enumerate((3, 4)):
        y = torch.arange(11) % classes
        kernel = _random(11, 11, seed=seed).exp()
        kernel = kernel + kernel.T
        expected = torch.zeros(classes)
        for c in range(classes):
            own = kernel[y == c][:, y == c]
            others = ~torch.eye(len(own), dtype=torch.bool)
            expected[c] = own[others].mean()
        cases.append(((kernel, torch.eye(classes)[y]), expected, f"{classes} classes"))
    return _grade("Exercise 3.1", function, cases)


def spherical_centre(function: Callable[[Tensor], Tensor]) -> bool | None:
    """Exercise 3.2: V (N, D) of one class -> the unit vector nearest to all V / |V|."""
    cases = []
    for n, d in ((5, 3), (40, 8)):
        V = _random(n, d, seed=n) + 2
        expected = normalize(normalize(V, dim=1).sum(0), dim=0)
        cases.append(((V,), expected, f"{n} features of size {d}"))
    return _grade("Exercise 3.2", function, cases)


def fused_label(function: Callable[[dict, dict], int]) -> bool | None:
    """Exercise 3.3: a video's unit features {m: (D,)}, centres {m: (C, D)} -> its label."""
    cases = []
    for seed in range(4):
        V, centres, distances = {}, {}, torch.zeros(5)
        for i, m in enumerate(("rgb", "flow")):
            V[m] = normalize(_random(3, seed=seed + i), dim=0)
            centres[m] = normalize(_random(5, 3, seed=seed + 20 + i), dim=1)
            distances += (centres[m] - V[m]).norm(dim=1)
        cases.append(((V, centres), distances.argmin(), f"case {seed + 1}"))
    return _grade("Exercise 3.3", function, cases)


# --- 05: localization


def focal_factor(function: Callable[[float, float], float]) -> bool | None:
    """Exercise 5.1: (P of a target frame, gamma) -> the focal factor in front of -log P."""
    cases = []
    for p, gamma in ((0.5, 5.0), (0.9, 3.0), (0.2, 0.0)):
        cases.append(((p, gamma), (1 - p) ** gamma, f"P={p}, gamma={gamma}"))
    return _grade("Exercise 5.1", function, cases)


def ranked_area(function: Callable[[list, int], float]) -> bool | None:
    """Exercise 5.2: (hits best first, number of ground truths) -> AP in [0, 1] by trapezoids."""
    cases = []
    for hits, n in (([1, 0, 1], 3), ([0, 1], 1), ([1, 1, 0, 1, 0], 5)):
        right = [bool(hit) for hit in hits]
        expected = average_precision(-np.arange(len(hits)), np.array(right), n)
        cases.append(((right, n), expected, f"hits {hits} of {n} ground truths"))
    return _grade("Exercise 5.2", function, cases)


def tube_overlap(function: Callable[[set, set, float], float]) -> bool | None:
    """Exercise 5.3: (frames of a, frames of b, IoU of boxes on common frames) -> 3-D IoU."""
    tubes = (
        (set(range(10)), set(range(9)), 1.0, "a perfect tube that misses one frame of ten"),
        (set(range(8)), set(range(4, 12)), 0.5, "tubes that share a third of their time"),
        ({1, 2}, {5, 6}, 0.9, "tubes that never meet"),
    )
    cases = [((a, b, iou), iou * len(a & b) / len(a | b), about) for a, b, iou, about in tubes]
    return _grade("Exercise 5.3", function, cases)


# --- 06: numbers beside a picture


def perplexity(function: Callable[[np.ndarray], float]) -> bool | None:
    """Exercise 6.1: probabilities p (N,), some of them 0 -> 2 ** (entropy of p in bits)."""
    p = np.array([0.7, 0.2, 0.1])
    two = np.array([0.5, 0.0, 0.5, 0.0])
    cases = [((np.full(n, 1 / n),), float(n), f"{n} equally likely neighbours") for n in (8, 5)]
    cases.append(((two,), 2.0, "two likely neighbours and two impossible ones"))
    cases.append(((p,), 2.0 ** -(p * np.log2(p)).sum(), "p = 0.7, 0.2, 0.1"))
    return _grade("Exercise 6.1", function, cases)


def silhouette(function: Callable[[np.ndarray, np.ndarray, int], float]) -> bool | None:
    """Exercise 6.2: distances (N,) to all others, their classes (N,), own class -> silhouette."""
    nearer = "a video nearer to another class than to its own"
    three = "three classes: the nearest other one counts"
    cases = []
    for d, y, own, about in (
        ([1, 3, 4, 4], [0, 0, 1, 1], 0, "a = 2 and b = 4"),
        ([6, 3, 9, 1, 1], [2, 0, 0, 1, 1], 2, nearer),
        ([1, 9, 2, 2, 3], [1, 0, 1, 2, 1], 1, three),
    ):
        distances, classes = np.array(d, float), np.array(y)
        a = distances[classes == own].mean()
        b = min(distances[classes == c].mean() for c in set(y) - {own})
        cases.append(((distances, classes, own), (b - a) / max(a, b), about))
    return _grade("Exercise 6.2", function, cases)


# --- 07: Grad-CAM


def cam_map(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 7.1: activations A and the score's gradient, (C, h, w) each -> the map (h, w)."""
    cases = []
    for seed, shape in enumerate(((3, 2, 2), (5, 4, 3))):
        A, dA = _random(*shape, seed=seed), _random(*shape, seed=seed + 7)
        expected = torch.einsum("c,chw->hw", dA.mean((1, 2)), A).clamp_min(0)
        cases.append(((A, dA), expected, f"{shape[0]} channels of {shape[1]} x {shape[2]} cells"))
    return _grade("Exercise 7.1", function, cases)


def _centres(layers: list[tuple[int, int, int]]) -> np.ndarray:
    """Pixel on which each cell is centred: layer by layer, the mean of what its window covers."""
    centres = np.arange(512.0)
    for kernel, stride, padding in layers:
        step = centres[1] - centres[0]
        padded = centres[0] + step * (np.arange(len(centres) + 2 * padding) - padding)
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel)[::stride]
        centres = windows.mean(1)
    return centres


def cell_centre(function: Callable[[int, list[tuple[int, int, int]]], float]) -> bool | None:
    """Exercise 7.2: cell j, the layers' (kernel, stride, padding) -> pixel of the cell's centre."""
    cases = []
    for j, layers in (
        (1, [(3, 2, 1)] * 4),
        (2, [(7, 2, 3), (3, 2, 0), (3, 1, 1)]),
        (0, [(2, 2, 0), (2, 2, 0)]),
    ):
        cases.append(((j, layers), _centres(layers)[j], f"cell {j} after {layers}"))
    return _grade("Exercise 7.2", function, cases)


# --- 05, suppression, and 08: tables


def survivors(function: Callable[[np.ndarray, float], list[int]]) -> bool | None:
    """Exercise 5.4: iou (n, n) of boxes, best score first, threshold -> numbers that stay."""
    cases = []
    for seed, threshold in enumerate((0.5, 0.7, 0.3)):
        iou = np.random.default_rng(seed).uniform(size=(6, 6))
        iou = np.maximum(iou, iou.T) ** 2
        np.fill_diagonal(iou, 1.0)
        kept = []
        for i in range(6):
            if (iou[i, kept] <= threshold).all():
                kept.append(i)
        cases.append(((iou, threshold), kept, f"six boxes, threshold {threshold}"))
    chain = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.6], [0.0, 0.6, 1.0]])
    about = "a box that only a suppressed box overlaps: it stays"
    return _grade("Exercise 5.4", function, [((chain, 0.5), [0, 2], about), *cases])


def videos_apart(function: Callable[[float, int], int]) -> bool | None:
    """Exercise 8.1: (difference in points, test videos) -> the difference in videos."""
    cases = []
    for points, n in ((1.7, 360), (0.2, 571), (0.0, 54)):
        about = f"{points} points of {n} videos"
        cases.append(((points, n), round(points * n / 100), about))
    return _grade("Exercise 8.1", function, cases)


def scorable(function: Callable[[float, int], bool]) -> bool | None:
    """Exercise 8.2: (printed percent, test videos) -> whether some k of n rounds to it."""
    cases = []
    for percent, n in ((99.3, 189), (99.5, 189), (91.6, 54), (100.0, 54), (0.0, 3), (33.3, 3)):
        there = {math.floor(1000 * k / n + 0.5) for k in range(n + 1)}
        cases.append(((percent, n), round(10 * percent) in there, f"{percent} of {n} videos"))
    return _grade("Exercise 8.2", function, cases)


def one_draw(function: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> bool | None:
    """Exercise 8.3: gaps (R, N), drawn runs (R,), drawn videos (N,) -> the difference in points."""
    cases = []
    for seed, (runs, videos) in enumerate(((3, 8), (5, 20))):
        rng = np.random.default_rng(seed)
        gaps = rng.integers(-1, 2, (runs, videos)).astype(float)
        drawn = rng.integers(0, runs, runs), rng.integers(0, videos, videos)
        expected = 100 * np.mean([gaps[r, n] for r in drawn[0] for n in drawn[1]])
        cases.append(((gaps, *drawn), expected, f"{runs} runs of {videos} videos"))
    return _grade("Exercise 8.3", function, cases)


def sign_test(function: Callable[[int, int], float]) -> bool | None:
    """Exercise 8.4: videos that only one row has right, of either kind -> two-sided p-value."""
    cases = []
    for k, m in ((6, 0), (0, 5), (9, 3), (4, 4)):
        tail = sum(math.comb(k + m, i) for i in range(max(k, m), k + m + 1)) / 2 ** (k + m)
        cases.append(((k, m), min(1.0, 2 * tail), f"{k} and {m} videos"))
    return _grade("Exercise 8.4", function, cases)
