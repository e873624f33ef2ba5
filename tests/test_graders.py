"""The graders of notebooks 01, 02, 03 and 05 accept the solutions and refuse likely mistakes."""

import math

import graders
import numpy as np
import pytest
import torch
import torch.nn.functional as F


def area(hits, n_truth, start=1.0):
    total, recall, precision, right = 0.0, 0.0, start, 0
    for i, hit in enumerate(hits, 1):
        right += hit
        r, q = right / n_truth, right / i
        total += (r - recall) * (q + precision) / 2
        recall, precision = r, q
    return total


def starts(n_frames, clips, frames):
    segment = n_frames / clips
    return [int(k * segment + (segment - frames) / 2 + 0.5) for k in range(clips)]


def fused(V, centres):
    return sum((centres[m] - V[m]).norm(dim=1) for m in V)


def relation(kernel, Y):
    n = Y.sum(0)
    others = Y.T @ kernel @ Y
    return (others.diagonal() - Y.T @ kernel.diagonal()) / (n * (n - 1))


# by grader: the solution that the notebook folds away, and a likely mistake
CASES = {
    "centred_starts": (starts, lambda n, k, t: [int(i * n / k) for i in range(k)]),
    "mirrored_flow": (
        lambda flow: flow[..., ::-1] * np.array([-1.0, 1.0]).reshape(2, 1, 1, 1),
        lambda flow: flow[..., ::-1],
    ),
    "cache_bytes": (lambda v, n, s: v * n * s * s * 5, lambda v, n, s: v * n * s * s * 3),
    "own_slot_probability": (lambda n, k: 1 - (1 - 1 / n) ** k, lambda n, k: k / n),
    # the mistake overflows
    "mean_of_logs": (
        lambda p, n: torch.logsumexp(torch.cat([p, n]), dim=0) - p.mean(),
        lambda p, n: -(p.exp() / (p.exp().sum() + n.exp().sum())).log().mean(),
    ),
    "order_negatives": (lambda k: math.factorial(k) - 1, math.factorial),
    "unbiased_relation": (
        relation,
        lambda kernel, Y: (Y.T @ kernel @ Y).diagonal() / Y.sum(0) ** 2,
    ),
    "spherical_centre": (
        lambda V: F.normalize(F.normalize(V, dim=1).sum(0), dim=0),
        lambda V: V.mean(0),
    ),
    "fused_label": (
        lambda V, centres: fused(V, centres).argmin(),
        lambda V, centres: fused(V, centres).argmax(),
    ),
    "focal_factor": (lambda p, gamma: (1 - p) ** gamma, lambda p, gamma: p**gamma),
    "ranked_area": (area, lambda hits, n: sum(hits) / n),
    "tube_overlap": (
        lambda a, b, iou: iou * len(a & b) / len(a | b),
        lambda a, b, iou: iou * len(a & b) / len(a),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_grader(name, capsys):
    grade, (solution, mistake) = getattr(graders, name), CASES[name]
    assert grade(solution) is True
    assert "correct" in capsys.readouterr().out
    assert grade(mistake) is False
    assert "not yet" in capsys.readouterr().out
    assert grade(lambda *arguments: None) is None
    assert "no answer yet" in capsys.readouterr().out


def test_starting_the_curve_at_zero_precision_is_wrong():
    assert graders.ranked_area(lambda hits, n: area(hits, n, start=0.0)) is False


def test_an_exception_in_the_answer_is_reported_not_raised(capsys):
    assert graders.order_negatives(lambda k: 1 / 0) is False
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [[[1], [1, 2]], "abc", {}])
def test_an_answer_of_another_form_is_reported_not_raised(answer, capsys):
    assert graders.centred_starts(lambda n, k, t: answer) is False
    assert "not yet" in capsys.readouterr().out
