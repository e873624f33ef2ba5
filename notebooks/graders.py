"""Graders of the notebooks' exercises: try the reader's function and say what is right or differs.

A grader returns True, False, or None for "no answer yet" (the function still returns None), and
prints one line.  That line tells the shape, the largest difference and, for an answer that is
wrong in a known way, one sentence that helps; it never tells the expected values.  The known ways
are `MISTAKES`, wrong functions by grader.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nbkit.data.clips import clip_starts
from nbkit.evaluate.average_precision import average_precision

# arguments, expected value, what the case is about
Case = tuple[tuple, Any, str]
# by grader: functions that a reader may write, and the sentence that helps
MISTAKES: dict[str, list[tuple[Callable, str]]] = {}
# by exercise: the right letter, and a sentence for every other one
CHOICES: dict[str, tuple[str, dict[str, str]]] = {}


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach()
    return np.asarray(value, dtype=float)


def _same(answer: Any, expected: Any, tolerance: float) -> bool:
    answer, expected = _as_array(answer), _as_array(expected)
    if answer.shape != expected.shape:
        return False
    return bool(np.allclose(answer, expected, atol=tolerance, equal_nan=True))


def _difference(answer: Any, expected: Any) -> str:
    """How far the answer is off, without the expected values."""
    answer, expected = _as_array(answer), _as_array(expected)
    if answer.shape != expected.shape:
        return f"your answer has shape {answer.shape}, and shape {expected.shape} is asked for"
    if not np.isfinite(answer).all():
        return "your answer is not finite"
    largest = np.abs(answer - expected).max()
    return f"the shape is right, and the largest difference is {largest:.3g}"


def _hint(function: Callable, cases: list[Case], mistakes: list, tolerance: float) -> str:
    """The sentence of the first known mistake that answers every case as `function` does."""
    for mistake, sentence in mistakes:
        try:
            if all(
                _same(function(*deepcopy(case[0])), mistake(*deepcopy(case[0])), tolerance)
                for case in cases
            ):
                return f" {sentence}"
        # an answer that fails on a later case is not this mistake
        except Exception:
            continue
    return ""


def _grade(
    name: str,
    function: Callable,
    cases: list[Case],
    mistakes: list[tuple[Callable, str]],
    tolerance: float = 1e-5,
) -> bool | None:
    """Try `function` on every case; say how the first that differs does so."""
    for arguments, expected, about in cases:
        try:
            answer = function(*deepcopy(arguments))
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
            kind = type(answer).__name__
            print(f"{name}: not yet. On {about} your answer is no number or array, but a {kind}")
            return False
        if not same:
            hint = _hint(function, cases, mistakes, tolerance)
            print(f"{name}: not yet. On {about} {_difference(answer, expected)}.{hint}")
            return False
    print(f"{name}: correct, {len(cases)} of {len(cases)} cases")
    return True


def choice(exercise: str, answer: str | None) -> bool | None:
    """A question with lettered answers: `answer` is the letter, None for no answer yet."""
    right, others = CHOICES[exercise]
    name = f"Exercise {exercise}"
    if answer is None:
        print(f"{name}: no answer yet")
        return None
    letter = str(answer).strip().lower()
    if letter not in {right, *others}:
        print(f"{name}: answer with one of the letters {', '.join(sorted({right, *others}))}")
        return False
    print(f"{name}: correct" if letter == right else f"{name}: not yet. {others[letter]}")
    return letter == right


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- 00: domain adaptation


def shifted_posterior(function: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]):
    """Exercise 0.1: p_S(y|x) (N, C), p_S(y) (C,), p_T(y) (C,) -> p_T(y|x) under label shift."""
    cases = []
    for seed, classes in enumerate((2, 4)):
        rng = np.random.default_rng(seed)
        p, source, target = (rng.dirichlet(np.ones(classes), n).squeeze() for n in (5, 1, 1))
        odds = p * target / source
        expected = odds / odds.sum(1, keepdims=True)
        cases.append(((p, source, target), expected, f"5 videos, {classes} classes"))
    return _grade("Exercise 0.1", function, cases, MISTAKES["shifted_posterior"])


MISTAKES["shifted_posterior"] = [
    (lambda p, s, t: p * t / s, "Do the probabilities of a video still add up to 1?"),
    (
        lambda p, s, t: p * s / t / (p * s / t).sum(1, keepdims=True),
        "Which way round is the ratio? A class that is frequent in the target must gain.",
    ),
    (
        lambda p, s, t: p * t / (p * t).sum(1, keepdims=True),
        "The source's own class shares are still in your answer: divide them out.",
    ),
]
CHOICES["0.2"] = (
    "b",
    {
        "a": "The joint error is that of the best classifier on these features. Is any good?",
        "c": "It is defined: every classifier on a constant feature gives every video one class.",
    },
)


def linear_mmd(function: Callable[[Tensor, Tensor], Any]) -> bool | None:
    """Exercise 0.3: samples (N, D), (M, D) -> squared MMD with the kernel k(a, b) = a . b."""
    cases = []
    for seed, (n, m, d) in enumerate(((6, 6, 3), (5, 9, 2))):
        a, b = _random(n, d, seed=seed), _random(m, d, seed=seed + 5) + 1
        expected = (a.mean(0) - b.mean(0)).square().sum()
        cases.append(((a, b), expected, f"{n} and {m} samples in {d} dimensions"))
    return _grade("Exercise 0.3", function, cases, MISTAKES["linear_mmd"], 1e-4)


MISTAKES["linear_mmd"] = [
    (lambda a, b: (a.mean(0) - b.mean(0)).norm(), "This is the distance; its square is asked for."),
    (
        lambda a, b: (a.mean(0) - b.mean(0)).square().mean(),
        "The squared length of a vector is the sum over its entries, not their mean.",
    ),
    (
        lambda a, b: (a @ a.T).mean() + (b @ b.T).mean() - (a @ b.T).mean(),
        "The cross term counts twice: (x - y)^2 has -2xy.",
    ),
]


# --- 01: data


def centred_starts(function: Callable[[int, int, int], Any]) -> bool | None:
    """Exercise 1.1: (N frames, K clips, T frames per clip) -> first frame of each centred clip."""
    cases = []
    for n, k, t in ((32, 3, 8), (90, 3, 16), (20, 1, 16), (27, 3, 8)):
        cases.append(((n, k, t), clip_starts(n, k, t), f"N={n}, K={k}, T={t}"))
    return _grade("Exercise 1.1", function, cases, MISTAKES["centred_starts"])


def _places(n: int, k: int, t: int) -> list[float]:
    return [i * n / k + (n / k - t) / 2 for i in range(k)]


MISTAKES["centred_starts"] = [
    (
        lambda n, k, t: [round(x) for x in _places(n, k, t)],
        "Python's round() takes a half to the nearest even number; here a half goes up.",
    ),
    (lambda n, k, t: [int(x) for x in _places(n, k, t)], "You cut off; round to the nearest."),
    (lambda n, k, t: _places(n, k, t), "A first frame is a whole number: round it."),
    (
        lambda n, k, t: [int(i * n / k) for i in range(k)],
        "These are the first frames of the segments; the clip lies in the middle of its segment.",
    ),
]


def mirrored_flow(function: Callable[[np.ndarray], np.ndarray]) -> bool | None:
    """Exercise 1.2: flow (2, T, H, W) of a clip -> the flow of the same clip seen in a mirror."""
    cases = []
    for seed in range(2):
        flow = np.random.default_rng(seed).normal(size=(2, 2, 3, 4))
        expected = flow[..., ::-1] * np.array([-1.0, 1.0])[:, None, None, None]
        cases.append(((flow,), expected, f"a random flow {flow.shape}"))
    return _grade("Exercise 1.2", function, cases, MISTAKES["mirrored_flow"])


MISTAKES["mirrored_flow"] = [
    (
        lambda flow: flow[..., ::-1],
        "The picture is mirrored, but what moved to the right still moves to the right.",
    ),
    (lambda flow: flow[..., ::-1] * -1, "Up and down stay as they are in a mirror."),
    (
        lambda flow: flow * np.array([-1.0, 1.0])[:, None, None, None],
        "The vectors are mirrored, but they still stand at their old places.",
    ),
    (
        lambda flow: flow[..., ::-1, :] * np.array([1.0, -1.0])[:, None, None, None],
        "This is a mirror on the floor: up and down change places.",
    ),
]


def cache_bytes(function: Callable[[int, int, int], float]) -> bool | None:
    """Exercise 1.3: (videos, frames per video, side in pixels) -> bytes of RGB and flow."""
    cases = []
    for videos, frames, side in ((1600, 32, 48), (1, 1, 1), (3209, 150, 256)):
        about = f"{videos} videos of {frames} frames at {side}x{side}"
        cases.append(((videos, frames, side), videos * frames * side * side * 5, about))
    return _grade("Exercise 1.3", function, cases, MISTAKES["cache_bytes"])


MISTAKES["cache_bytes"] = [
    (lambda v, n, s: v * n * s * s * 3, "You count RGB only; flow has two numbers per pixel."),
    (lambda v, n, s: v * n * s * s * 20, "A number is one byte here, not a float of four."),
    (lambda v, n, s: v * n * s * 5, "A picture has side times side pixels."),
]
CHOICES["1.4"] = (
    "b",
    {
        "a": "Follow one brick of the wall: in the next frame it stands further to the left.",
        "c": "The wall stands still in the world; flow is measured in the picture.",
    },
)


# --- 02: contrastive learning


def own_slot_probability(function: Callable[[int, int], float]) -> bool | None:
    """Exercise 2.1: (n slots, k draws) -> chance that the draws contain the anchor's own slot."""
    cases = []
    for n, k in ((6834, 1024), (10, 1), (1440, 256)):
        cases.append(((n, k), 1 - (1 - 1 / n) ** k, f"n={n}, k={k}"))
    return _grade("Exercise 2.1", function, cases, MISTAKES["own_slot_probability"])


MISTAKES["own_slot_probability"] = [
    (
        lambda n, k: k / n,
        "k / n is the expected number of hits. Two hits count twice in it; what is asked for is "
        "the chance of at least one.",
    ),
    (lambda n, k: (1 - 1 / n) ** k, "This is the chance that the own slot is never drawn."),
    (lambda n, k: 1 / n, "This is the chance of one draw; there are k."),
]


def mean_of_logs(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 2.2: logits of positives (P,), negatives (N,) -> mean of -log(Theta_p / sum)."""
    cases = []
    for seed, (p, n) in enumerate(((2, 5), (1, 3), (3, 1))):
        positives, negatives = 3 * _random(p, seed=seed), 3 * _random(n, seed=seed + 9)
        expected = torch.logsumexp(torch.cat([positives, negatives]), 0) - positives.mean()
        cases.append(((positives, negatives), expected, f"{p} positives and {n} negatives"))
    big = torch.tensor([900.0, 800.0]), torch.tensor([850.0])
    cases.append((big, torch.tensor(50.0), "logits near 900, where exp overflows"))
    return _grade("Exercise 2.2", function, cases, MISTAKES["mean_of_logs"], tolerance=1e-4)


def _every(p: Tensor, n: Tensor) -> Tensor:
    return torch.logsumexp(torch.cat([p, n]), 0)


MISTAKES["mean_of_logs"] = [
    (
        lambda p, n: -(p.exp() / (p.exp().sum() + n.exp().sum())).log().mean(),
        "The formula is right, but exp overflows: stay with logits and use torch.logsumexp.",
    ),
    (
        lambda p, n: _every(p, n) - torch.logsumexp(p, 0),
        "This is the printed form, the positives summed inside the logarithm.",
    ),
    (lambda p, n: torch.logsumexp(n, 0) - p.mean(), "The positives are candidates, too."),
    (lambda p, n: (_every(p, n) - p).sum(), "The mean over the positives is asked for."),
]


def order_negatives(function: Callable[[int], int]) -> bool | None:
    """Exercise 2.3: K clips -> number of their wrong orders."""
    cases = [((k,), math.factorial(k) - 1, f"K={k}") for k in (3, 2, 5)]
    return _grade("Exercise 2.3", function, cases, MISTAKES["order_negatives"])


MISTAKES["order_negatives"] = [
    (lambda k: math.factorial(k), "One of these orders is the right one."),
    (lambda k: k - 1, "These are the swaps of neighbours; any order of the clips may come up."),
    (
        lambda k: sum((-1) ** i * math.factorial(k) // math.factorial(i) for i in range(k + 1)),
        "You count orders that move every clip; a wrong order may leave some in place.",
    ),
]


def loss_gradient(function: Callable[[Tensor, int], Tensor]) -> bool | None:
    """Exercise 2.5: logits (N,), the positives are the first P -> d loss / d logits (N,)."""
    cases = []
    for seed, (n, p) in enumerate(((5, 1), (7, 2))):
        logits = 2 * _random(n, seed=seed)
        expected = logits.softmax(0)
        expected[:p] -= 1 / p
        cases.append(((logits, p), expected, f"{n} candidates, {p} of them positive"))
    return _grade("Exercise 2.5", function, cases, MISTAKES["loss_gradient"])


def _less(logits: Tensor, p: int, target: float) -> Tensor:
    found = logits.softmax(0)
    found[:p] -= target
    return found


MISTAKES["loss_gradient"] = [
    (lambda z, p: z.softmax(0), "This is the softmax alone; the target distribution is missing."),
    (lambda z, p: _less(z, p, 1.0), "The target shares are 1 / P each: they add up to 1."),
    (lambda z, p: -_less(z, p, 1 / p), "The sign: the loss falls when a positive's logit grows."),
]
CHOICES["2.4"] = (
    "c",
    {
        "a": "That is what a large temperature does: all candidates get nearly equal shares.",
        "b": "A far negative has a tiny share, and a smaller temperature makes it tinier.",
    },
)
CHOICES["2.6"] = (
    "a",
    {
        "b": "The difference of neighbouring frames removes just what stands still: the wallpaper.",
        "c": "Flow measures motion; a wall at rest has none.",
    },
)


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
    return _grade("Exercise 3.1", function, cases, MISTAKES["unbiased_relation"])


def _sums(kernel: Tensor, Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (Y.T @ kernel @ Y).diagonal(), Y.T @ kernel.diagonal(), Y.sum(0)


MISTAKES["unbiased_relation"] = [
    (
        lambda k, Y: _sums(k, Y)[0] / _sums(k, Y)[2] ** 2,
        "The pairs of a video with itself are still in the mean.",
    ),
    (
        lambda k, Y: (_sums(k, Y)[0] - _sums(k, Y)[1]) / _sums(k, Y)[2] ** 2,
        "You took the pairs i = i out of the sum but not out of their number.",
    ),
    (
        lambda k, Y: Y.T @ k @ Y / (Y.sum(0)[:, None] * Y.sum(0)),
        "This has all pairs of classes; the diagonal, one number per class, is asked for.",
    ),
]


def spherical_centre(function: Callable[[Tensor], Tensor]) -> bool | None:
    """Exercise 3.2: V (N, D) of one class -> the unit vector nearest to all V / |V|."""
    cases = []
    for n, d in ((5, 3), (40, 8)):
        V = _random(n, d, seed=n) + 2
        expected = normalize(normalize(V, dim=1).sum(0), dim=0)
        cases.append(((V,), expected, f"{n} features of size {d}"))
    return _grade("Exercise 3.2", function, cases, MISTAKES["spherical_centre"])


MISTAKES["spherical_centre"] = [
    (lambda V: V.mean(0), "Scale the features to unit length first, and the centre at the end."),
    (lambda V: normalize(V, dim=1).mean(0), "The centre itself has to have unit length, too."),
    (lambda V: normalize(V, dim=1).sum(0), "This is the printed sum: its length is about N."),
    (
        lambda V: normalize(V.sum(0), dim=0),
        "A long feature counts for more here: scale each to unit length before the sum.",
    ),
]


def fused_label(function: Callable[[dict, dict], int]) -> bool | None:
    """Exercise 3.3: a video's unit features {m: (D,)}, centres {m: (C, D)} -> its label."""
    cases = []
    for seed in range(8):
        V, centres, distances = {}, {}, torch.zeros(5)
        for i, m in enumerate(("rgb", "flow")):
            V[m] = normalize(_random(3, seed=seed + i), dim=0)
            centres[m] = normalize(_random(5, 3, seed=seed + 20 + i), dim=1)
            distances += (centres[m] - V[m]).norm(dim=1)
        cases.append(((V, centres), distances.argmin(), f"case {seed + 1}"))
    return _grade("Exercise 3.3", function, cases, MISTAKES["fused_label"])


def _distances(V: dict, centres: dict) -> dict:
    return {m: (centres[m] - V[m]).norm(dim=1) for m in V}


MISTAKES["fused_label"] = [
    (
        lambda V, C: sum(_distances(V, C).values()).argmax(),
        "This is the farthest centre; the nearest is asked for.",
    ),
    (lambda V, C: _distances(V, C)["rgb"].argmin(), "Only RGB decides here."),
    (lambda V, C: _distances(V, C)["flow"].argmin(), "Only flow decides here."),
    (
        lambda V, C: torch.stack(list(_distances(V, C).values())).min(0).values.argmin(),
        "One stream alone decides here, the surer one. Add the distances of both.",
    ),
]
CHOICES["3.4"] = (
    "b",
    {
        "a": "Half of the terms compare a class with another one. Are those zero as well?",
        "c": "The intra term is exactly 0 here, and the inter term counts against the loss.",
    },
)


# --- 04: the network and the step


def conv_parameters(function: Callable[[int, int, tuple], int]) -> bool | None:
    """Exercise 4.1: (channels in, channels out, kernel (t, h, w)) -> parameters of a block."""
    cases = []
    for c_in, c_out, kernel in ((3, 16, (1, 3, 3)), (16, 32, (3, 3, 3)), (2, 5, (3, 1, 1))):
        about = f"{c_in} -> {c_out} channels, kernel {kernel}"
        expected = c_in * c_out * math.prod(kernel) + 2 * c_out
        cases.append(((c_in, c_out, kernel), expected, about))
    return _grade("Exercise 4.1", function, cases, MISTAKES["conv_parameters"])


MISTAKES["conv_parameters"] = [
    (
        lambda i, o, k: i * o * math.prod(k),
        "The normalisation after it learns a scale and a shift for each channel.",
    ),
    (
        lambda i, o, k: i * o * math.prod(k) + o,
        "The convolution has no bias, and the normalisation has two numbers per channel.",
    ),
    (
        lambda i, o, k: i * o * math.prod(k) + 3 * o,
        "The convolution has no bias: the normalisation's shift does its work.",
    ),
    (
        lambda i, o, k: i * o * math.prod(k) + 4 * o,
        "Running means and variances are measured, not learned: they are no parameters.",
    ),
]


def epoch_beta(function: Callable[[float, int, int, int], float]) -> bool | None:
    """Exercise 4.2: (beta, epoch from 1, epochs, steps per epoch) -> mean weight of that epoch."""
    cases = []
    for beta, epoch, epochs, steps in ((0.1, 1, 8, 20), (0.1, 8, 8, 20), (0.5, 2, 4, 1)):
        weights = [beta * (epoch - 1 + i / steps) / epochs for i in range(steps)]
        about = f"beta={beta}, epoch {epoch} of {epochs}, {steps} steps"
        cases.append(((beta, epoch, epochs, steps), np.mean(weights), about))
    return _grade("Exercise 4.2", function, cases, MISTAKES["epoch_beta"], 1e-7)


MISTAKES["epoch_beta"] = [
    (lambda b, e, n, s: b * e / n, "This is the weight at the end of the epoch; take the mean."),
    (
        lambda b, e, n, s: b * (e - 1) / n,
        "This is the weight at the first step of the epoch; it grows within the epoch.",
    ),
    (
        lambda b, e, n, s: b * (e - 0.5) / n,
        "Nearly: the last step is still short of the end of the epoch, so the mean is less.",
    ),
    (lambda b, e, n, s: b, "The weight grows over the stage, from 0 to beta."),
]


def late_fusion(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 4.3: logits (B, C) of RGB and of flow -> fused probabilities (B, C)."""
    cases = []
    for seed in range(2):
        a, b = 3 * _random(4, 3, seed=seed), 3 * _random(4, 3, seed=seed + 3)
        cases.append(((a, b), (a.softmax(1) + b.softmax(1)) / 2, "4 videos of 3 classes"))
    return _grade("Exercise 4.3", function, cases, MISTAKES["late_fusion"])


MISTAKES["late_fusion"] = [
    (
        lambda a, b: ((a + b) / 2).softmax(1),
        "You average before the softmax; late fusion averages the probabilities.",
    ),
    (lambda a, b: a.softmax(1) + b.softmax(1), "The probabilities of a video must add up to 1."),
    (
        lambda a, b: (a.softmax(0) + b.softmax(0)) / 2,
        "The softmax runs over the classes, the last axis, not over the videos.",
    ),
    (
        lambda a, b: (lambda p: p / p.sum(1, keepdim=True))(a.softmax(1) * b.softmax(1)),
        "This is a product of the two opinions; their mean is asked for.",
    ),
]
CHOICES["4.4"] = (
    "a",
    {
        "b": "alpha weighs a term of stage 2: other weights come out of it.",
        "c": "beta weighs a term of stage 3 only. What does stage 2 read of it?",
    },
)


# --- 05: localization


def focal_factor(function: Callable[[float, float], float]) -> bool | None:
    """Exercise 5.1: (P of a target frame, gamma) -> the focal factor in front of -log P."""
    cases = []
    for p, gamma in ((0.5, 5.0), (0.9, 3.0), (0.2, 0.0)):
        cases.append(((p, gamma), (1 - p) ** gamma, f"P={p}, gamma={gamma}"))
    return _grade("Exercise 5.1", function, cases, MISTAKES["focal_factor"])


MISTAKES["focal_factor"] = [
    (lambda p, g: p**g, "This makes easy frames count most; P near 1 must give a small factor."),
    (
        lambda p, g: -((1 - p) ** g) * math.log(p),
        "This is the whole loss; its factor is asked for.",
    ),
    (lambda p, g: g * (1 - p), "gamma is an exponent."),
]


def ranked_area(function: Callable[[list, int], float]) -> bool | None:
    """Exercise 5.2: (hits best first, number of ground truths) -> AP in [0, 1] by trapezoids."""
    cases = []
    for hits, n in (([1, 0, 1], 3), ([0, 1], 1), ([1, 1, 0, 1, 0], 5)):
        right = [bool(hit) for hit in hits]
        expected = average_precision(-np.arange(len(hits)), np.array(right), n)
        cases.append(((right, n), expected, f"hits {hits} of {n} ground truths"))
    return _grade("Exercise 5.2", function, cases, MISTAKES["ranked_area"])


def _area(hits: list, n_truth: int, start: float = 1.0, steps: bool = False) -> float:
    total, recall, precision, right = 0.0, 0.0, start, 0
    for i, hit in enumerate(hits, 1):
        right += hit
        r, q = right / n_truth, right / i
        total += (r - recall) * (q if steps else (q + precision) / 2)
        recall, precision = r, q
    return total


MISTAKES["ranked_area"] = [
    (lambda hits, n: sum(hits) / n, "This is the recall at the end; the area needs the precision."),
    (lambda hits, n: _area(hits, n, 0.0), "At recall 0 the curve starts with precision 1."),
    (lambda hits, n: _area(hits, n, steps=True), "You add rectangles; trapezoids are asked for."),
    (
        lambda hits, n: _area(hits, max(1, sum(hits))),
        "Recall counts all ground truths, also those that no detection has found.",
    ),
]


def tube_overlap(function: Callable[[set, set, float], float]) -> bool | None:
    """Exercise 5.3: (frames of a, frames of b, IoU of boxes on common frames) -> 3-D IoU."""
    tubes = (
        (set(range(10)), set(range(9)), 1.0, "a perfect tube that misses one frame of ten"),
        (set(range(8)), set(range(4, 12)), 0.5, "tubes that share a third of their time"),
        ({1, 2}, {5, 6}, 0.9, "tubes that never meet"),
    )
    cases = [((a, b, iou), iou * len(a & b) / len(a | b), about) for a, b, iou, about in tubes]
    return _grade("Exercise 5.3", function, cases, MISTAKES["tube_overlap"])


MISTAKES["tube_overlap"] = [
    (lambda a, b, iou: len(a & b) / len(a | b), "This is the overlap in time; boxes overlap, too."),
    (lambda a, b, iou: iou * len(a & b) / len(a), "Frames that only the second tube has count."),
    (lambda a, b, iou: iou * len(a & b) / len(b), "Frames that only the first tube has count."),
    (lambda a, b, iou: iou, "Frames without a partner count as boxes that do not overlap."),
]


# --- 06: numbers beside a picture


def perplexity(function: Callable[[np.ndarray], float]) -> bool | None:
    """Exercise 6.1: probabilities p (N,), some of them 0 -> 2 ** (entropy of p in bits)."""
    p = np.array([0.7, 0.2, 0.1])
    two = np.array([0.5, 0.0, 0.5, 0.0])
    cases = [((np.full(n, 1 / n),), float(n), f"{n} equally likely neighbours") for n in (8, 5)]
    cases.append(((two,), 2.0, "two likely neighbours and two impossible ones"))
    cases.append(((p,), 2.0 ** -(p * np.log2(p)).sum(), "p = 0.7, 0.2, 0.1"))
    return _grade("Exercise 6.1", function, cases, MISTAKES["perplexity"])


def _bits(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def _blind_perplexity(p: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(2.0 ** -(p * np.log2(p)).sum())


MISTAKES["perplexity"] = [
    (_blind_perplexity, "0 log 0 is 0 here, and NumPy makes it nan: leave zeros out of the sum."),
    (_bits, "This is the entropy; the perplexity is 2 to this power."),
    (
        lambda p: 2 ** (_bits(p) * math.log(2)),
        "Your entropy is in nats. With base 2 it has to be in bits.",
    ),
    (lambda p: float((p > 0).sum()), "This counts the possible neighbours, likely or not."),
]


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
        a, b = _near_and_far(distances, classes, own)
        cases.append(((distances, classes, own), (b - a) / max(a, b), about))
    return _grade("Exercise 6.2", function, cases, MISTAKES["silhouette"])


def _near_and_far(distances: np.ndarray, classes: np.ndarray, own: int) -> tuple[float, float]:
    means = {c: distances[classes == c].mean() for c in set(classes.tolist())}
    return means.pop(own), min(means.values())


def _to_the_rest(distances: np.ndarray, classes: np.ndarray, own: int) -> float:
    a, b = distances[classes == own].mean(), distances[classes != own].mean()
    return (b - a) / max(a, b)


MISTAKES["silhouette"] = [
    (_to_the_rest, "b is the mean distance to the nearest other class, not to all others."),
    (
        lambda d, y, own: (
            -np.subtract(*_near_and_far(d, y, own)[::-1]) / max(_near_and_far(d, y, own))
        ),
        "The sign: a video near to its own class has a positive silhouette.",
    ),
    (
        lambda d, y, own: float(np.subtract(*_near_and_far(d, y, own)[::-1])),
        "Divide by the larger of a and b, so that the scale of the features drops out.",
    ),
]


def nearest_mean(function: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]) -> bool | None:
    """Exercise 6.3: source (N, D), its classes (N,), target (M, D) -> nearest class mean (M,)."""
    cases = []
    for seed, (n, m, classes) in enumerate(((9, 4, 3), (20, 6, 4))):
        rng = np.random.default_rng(seed)
        y = np.arange(n) % classes
        source = rng.normal(size=(n, 2)) + 2 * np.eye(classes)[y][:, :2]
        target = 2 * rng.normal(size=(m, 2))
        means = np.stack([source[y == c].mean(0) for c in range(classes)])
        expected = np.linalg.norm(target[:, None] - means, axis=2).argmin(1)
        cases.append(((source, y, target), expected, f"{classes} classes, {m} target videos"))
    return _grade("Exercise 6.3", function, cases, MISTAKES["nearest_mean"])


def _to_means(source: np.ndarray, y: np.ndarray, target: np.ndarray) -> np.ndarray:
    means = np.stack([source[y == c].mean(0) for c in np.unique(y)])
    return np.linalg.norm(target[:, None] - means, axis=2)


MISTAKES["nearest_mean"] = [
    (
        lambda s, y, t: y[np.linalg.norm(t[:, None] - s, axis=2).argmin(1)],
        "This is the class of the nearest video; average each class first.",
    ),
    (lambda s, y, t: _to_means(s, y, t), "These are the distances; which class is nearest?"),
    (lambda s, y, t: _to_means(s, y, t).argmax(1), "This is the farthest class mean."),
]


# --- 07: Grad-CAM


def cam_map(function: Callable[[Tensor, Tensor], Tensor]) -> bool | None:
    """Exercise 7.1: activations A and the score's gradient, (C, h, w) each -> the map (h, w)."""
    cases = []
    for seed, shape in enumerate(((3, 2, 2), (5, 4, 3))):
        A, dA = _random(*shape, seed=seed), _random(*shape, seed=seed + 7)
        expected = torch.einsum("c,chw->hw", dA.mean((1, 2)), A).clamp_min(0)
        cases.append(((A, dA), expected, f"{shape[0]} channels of {shape[1]} x {shape[2]} cells"))
    return _grade("Exercise 7.1", function, cases, MISTAKES["cam_map"])


MISTAKES["cam_map"] = [
    (
        lambda A, dA: (dA.mean((1, 2))[:, None, None] * A).sum(0),
        "What speaks against the class is still in the map: the ReLU is missing.",
    ),
    (
        lambda A, dA: (dA * A).sum(0).relu(),
        "You weigh every place by its own gradient; Grad-CAM takes the mean over places first.",
    ),
    (
        lambda A, dA: (dA.sum((1, 2))[:, None, None] * A).sum(0).relu(),
        "The weight of a channel is the mean of its gradient over the places, not the sum.",
    ),
    (
        lambda A, dA: (dA.mean((1, 2))[:, None, None] * A).mean(0).relu(),
        "The channels are added up, not averaged.",
    ),
    (
        lambda A, dA: (dA.mean((1, 2))[:, None, None] * A).relu().sum(0),
        "The ReLU comes after the sum: a channel against the class cancels one for it.",
    ),
]


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
    return _grade("Exercise 7.2", function, cases, MISTAKES["cell_centre"])


def _start(layers: list[tuple[int, int, int]], late: bool) -> float:
    start, step = 0.0, 1
    for k, s, p in layers:
        step *= s if late else 1
        start += ((k - 1) / 2 - p) * step
        step *= 1 if late else s
    return start


MISTAKES["cell_centre"] = [
    (
        lambda j, layers: (j + 0.5) * math.prod(s for _, s, _ in layers) - 0.5,
        "This spreads the cells evenly over the picture; padding moves the first one.",
    ),
    (
        lambda j, layers: float(j * math.prod(s for _, s, _ in layers)),
        "This starts at the first pixel; a layer without padding starts further in.",
    ),
    (
        lambda j, layers: _start(layers, True) + j * math.prod(s for _, s, _ in layers),
        "A layer's kernel is measured in the step of its input, before its own stride.",
    ),
]


def heat_share(function: Callable[[Tensor, Tensor], float]) -> bool | None:
    """Exercise 7.3: heat (T, H, W) >= 0 and mask (T, H, W) of 0 and 1 -> share inside, [0, 1]."""
    cases = []
    for seed in range(2):
        heat = _random(3, 4, 5, seed=seed).relu()
        mask = (_random(3, 4, 5, seed=seed + 4) > 0.3).float()
        cases.append(((heat, mask), (heat * mask).sum() / heat.sum(), "3 frames of 4 x 5 pixels"))
    return _grade("Exercise 7.3", function, cases, MISTAKES["heat_share"])


MISTAKES["heat_share"] = [
    (
        lambda h, m: ((h * m).sum((1, 2)) / h.sum((1, 2))).mean(),
        "You average the shares of the frames: a cold frame then counts as much as a hot one.",
    ),
    (lambda h, m: (h * m).sum() / m.sum(), "This is the mean heat inside; divide by all heat."),
    (lambda h, m: m.mean(), "This is the area of the mask; the heat is not in it."),
    (lambda h, m: ((h > 0) * m).sum() / (h > 0).sum(), "You count warm pixels; sum their heat."),
]


# --- 05, suppression, and 08: tables


def survivors(function: Callable[[np.ndarray, float], list[int]]) -> bool | None:
    """Exercise 5.4: iou (n, n) of boxes, best score first, threshold -> numbers that stay."""
    chain = np.array([[1.0, 0.6, 0.0, 0.0], [0.6, 1.0, 0.6, 0.0], [0.0, 0.6, 1.0, 0.5]])
    chain = np.vstack([chain, [0.0, 0.0, 0.5, 1.0]])
    about = "four boxes in a row, of which only neighbours overlap"
    cases = [((chain, 0.5), _kept(chain, 0.5), about)]
    for seed, threshold in enumerate((0.5, 0.3)):
        iou = np.random.default_rng(seed).uniform(size=(6, 6))
        iou = np.maximum(iou, iou.T) ** 2
        np.fill_diagonal(iou, 1.0)
        cases.append(((iou, threshold), _kept(iou, threshold), f"six boxes, threshold {threshold}"))
    return _grade("Exercise 5.4", function, cases, MISTAKES["survivors"])


def _kept(iou: np.ndarray, threshold: float) -> list[int]:
    kept = []
    for i in range(len(iou)):
        if (iou[i, kept] <= threshold).all():
            kept.append(i)
    return kept


MISTAKES["survivors"] = [
    (
        lambda iou, t: [i for i in range(len(iou)) if (iou[i, :i] <= t).all()],
        "A box that was dropped drops no other box.",
    ),
    (
        lambda iou, t: [i for i in range(len(iou)) if ((iou[i] > t).sum() == 1)],
        "The best of several that overlap stays.",
    ),
    (lambda iou, t: _kept(iou, t - 1e-9), "A box whose IoU equals the threshold stays."),
]


def videos_apart(function: Callable[[float, int], int]) -> bool | None:
    """Exercise 8.1: (difference in points, test videos) -> the difference in videos."""
    cases = []
    for points, n in ((1.7, 360), (0.2, 571), (0.0, 54)):
        cases.append(((points, n), round(points * n / 100), f"{points} points of {n} videos"))
    return _grade("Exercise 8.1", function, cases, MISTAKES["videos_apart"])


MISTAKES["videos_apart"] = [
    (lambda points, n: points * n / 100, "Videos are whole: round."),
    (lambda points, n: round(points * n), "Points are percent: 100 of them are all videos."),
    (lambda points, n: round(100 * points / n), "That is points per video; videos are asked for."),
]


def scorable(function: Callable[[float, int], bool]) -> bool | None:
    """Exercise 8.2: (printed percent, test videos) -> whether some k of n rounds to it."""
    cases = []
    for percent, n in ((99.3, 189), (99.5, 189), (91.6, 54), (100.0, 54), (0.0, 3), (33.3, 3)):
        about = f"{percent} % of {n} videos"
        cases.append(((percent, n), _distance(percent, n) <= 0.05, about))
    return _grade("Exercise 8.2", function, cases, MISTAKES["scorable"])


def _distance(percent: float, n: int, least: int = 0, most: int = 0) -> float:
    """How far `percent` is from the nearest accuracy of least to n - most right videos."""
    return min(abs(100 * k / n - percent) for k in range(least, n + 1 - most))


MISTAKES["scorable"] = [
    (lambda p, n: _distance(p, n) < 1e-9, "A printed number is rounded: allow for 0.05 points."),
    (lambda p, n: _distance(p, n, most=1) <= 0.05, "All videos may be right, too."),
    (lambda p, n: _distance(p, n, least=1) <= 0.05, "No video may be right, too."),
    (lambda p, n: _distance(p, n) <= 0.5, "One decimal was printed, not whole percents."),
]


def one_draw(function: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> bool | None:
    """Exercise 8.3: gaps (R, N), drawn runs (R,), drawn videos (N,) -> the difference in points."""
    cases = []
    for seed, (runs, videos) in enumerate(((3, 8), (5, 20))):
        rng = np.random.default_rng(seed)
        gaps = rng.integers(-1, 2, (runs, videos)).astype(float)
        drawn = rng.integers(0, runs, runs), rng.integers(0, videos, videos)
        expected = 100 * np.mean([gaps[r, n] for r in drawn[0] for n in drawn[1]])
        cases.append(((gaps, *drawn), expected, f"{runs} runs of {videos} videos"))
    return _grade("Exercise 8.3", function, cases, MISTAKES["one_draw"])


MISTAKES["one_draw"] = [
    (lambda g, r, v: 100 * g.mean(), "Take the runs and videos that were drawn."),
    (lambda g, r, v: g[r][:, v].mean(), "Points are percent."),
    (lambda g, r, v: 100 * g[r].mean(), "The videos are drawn, too."),
    (lambda g, r, v: 100 * g[:, v].mean(), "The runs are drawn, too."),
    (
        lambda g, r, v: 100 * g[np.unique(r)][:, np.unique(v)].mean(),
        "What is drawn twice counts twice.",
    ),
]


def sign_test(function: Callable[[int, int], float]) -> bool | None:
    """Exercise 8.4: videos that only one row has right, of either kind -> two-sided p-value."""
    cases = []
    for k, m in ((6, 0), (0, 5), (9, 3), (4, 4)):
        cases.append(((k, m), min(1.0, 2 * _tail(k, m)), f"{k} and {m} videos"))
    return _grade("Exercise 8.4", function, cases, MISTAKES["sign_test"])


def _tail(k: int, m: int, beyond: int = 0) -> float:
    """Chance that a fair coin falls max(k, m) + beyond times or more on one side."""
    n = k + m
    return sum(math.comb(n, i) for i in range(max(k, m) + beyond, n + 1)) / 2**n


MISTAKES["sign_test"] = [
    (lambda k, m: _tail(k, m), "Two-sided: either row might have been the better one."),
    (lambda k, m: 2 * _tail(k, m), "A p-value is at most 1."),
    (lambda k, m: 2 * _tail(k, m, 1), "What was observed belongs to the tail."),
]
