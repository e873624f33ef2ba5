"""The graders of notebook 05 accept the folded solutions, refuse likely mistakes, and wait for
empty answers.
"""

import pytest

from nbkit import checks


def area(hits, n_truth, start=1.0):
    total, recall, precision, right = 0.0, 0.0, start, 0
    for i, hit in enumerate(hits, 1):
        right += hit
        r, q = right / n_truth, right / i
        total += (r - recall) * (q + precision) / 2
        recall, precision = r, q
    return total


CASES = {
    "focal_factor": (lambda p, gamma: (1 - p) ** gamma, lambda p, gamma: p**gamma),
    "ranked_area": (area, lambda hits, n: sum(hits) / n),
    "tube_overlap": (
        lambda a, b, iou: iou * len(a & b) / len(a | b),
        lambda a, b, iou: iou * len(a & b) / len(a),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_grader(name, capsys):
    grade, (solution, mistake) = getattr(checks, name), CASES[name]
    assert grade(solution) is True and "correct" in capsys.readouterr().out
    assert grade(mistake) is False and "not yet" in capsys.readouterr().out
    assert grade(lambda *arguments: None) is None


def test_starting_the_curve_at_zero_precision_is_wrong(capsys):
    assert checks.ranked_area(lambda hits, n: area(hits, n, start=0.0)) is False
