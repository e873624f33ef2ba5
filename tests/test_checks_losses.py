"""The graders of notebooks 02 and 03 accept the folded solutions, refuse wrong answers, and wait
for empty ones.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from nbkit import checks

CASES = {
    "own_slot_probability": (lambda n, k: 1 - (1 - 1 / n) ** k, lambda n, k: k / n),
    "mean_of_logs": (
        lambda p, n: torch.logsumexp(torch.cat([p, n]), dim=0) - p.mean(),
        lambda p, n: -(p.exp() / (p.exp().sum() + n.exp().sum())).log().mean(),
    ),  # overflows
    "order_negatives": (lambda k: math.factorial(k) - 1, math.factorial),
    "relation_matrix": (
        lambda kernel, a, b: (a.T @ kernel @ b) / (a.sum(0)[:, None] * b.sum(0)),
        lambda kernel, a, b: a.T @ kernel @ b,
    ),
    "spherical_centre": (
        lambda V: F.normalize(F.normalize(V, dim=1).sum(0), dim=0),
        lambda V: V.mean(0),
    ),
    "fused_label": (
        lambda V, centres: sum((centres[m] - V[m]).norm(dim=1) for m in V).argmin(),
        lambda V, centres: sum((centres[m] - V[m]).norm(dim=1) for m in V).argmax(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_grader(name, capsys):
    grade, (solution, mistake) = getattr(checks, name), CASES[name]
    assert grade(solution) is True
    assert "correct" in capsys.readouterr().out
    assert grade(mistake) is False
    assert "not yet" in capsys.readouterr().out
    assert grade(lambda *arguments: None) is None
    assert "no answer yet" in capsys.readouterr().out


def test_an_exception_in_the_answer_is_reported_not_raised(capsys):
    assert checks.order_negatives(lambda k: 1 / 0) is False
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [[[1], [1, 2]], "abc", {}])
def test_an_answer_of_another_form_is_reported_not_raised(answer, capsys):
    assert checks.centred_starts(lambda n, k, t: answer) is False
    assert "not yet" in capsys.readouterr().out
