"""The graders accept the solutions that the notebooks fold away, and help with known mistakes."""

import re

import graders
import nbformat
import numpy as np
import pytest

from nbkit.config import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
CALL = re.compile(r"^graders\.(\w+)\((\w+)\);?$", re.M)


def exercises():
    """(grader, name of the reader's function, its notebook) for every graded function."""
    found = []
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                found += [(*match, path) for match in CALL.findall(cell.source)]
    return found


def folded(name, path):
    """The function `name` as the notebook's folded solutions define it."""
    for cell in nbformat.read(path, as_version=4).cells:
        for code in re.findall(r"```python\n(.*?)```", cell.source, re.S):
            if re.search(rf"^def {name}\(", code, re.M):
                space = {}
                exec("import math\nimport numpy as np\nimport torch\n" + code, space)
                return space[name]
    raise AssertionError(f"{path.name}: no folded solution defines {name}")


EXERCISES = exercises()


@pytest.mark.parametrize("grader, name, path", EXERCISES, ids=[e[0] for e in EXERCISES])
def test_the_folded_solution_is_accepted_and_an_empty_one_is_no_answer(grader, name, path, capsys):
    grade = getattr(graders, grader)
    assert grade(folded(name, path)) is True, capsys.readouterr().out
    assert grade(lambda *arguments: None) is None
    assert "no answer yet" in capsys.readouterr().out


def test_every_grader_is_asked_by_a_notebook_and_knows_mistakes():
    assert {e[0] for e in EXERCISES} == graders.MISTAKES.keys()
    assert all(len(known) >= 3 for known in graders.MISTAKES.values())


@pytest.mark.parametrize(
    "grader, place", [(g, i) for g, known in graders.MISTAKES.items() for i in range(len(known))]
)
def test_a_known_mistake_is_refused_with_its_sentence(grader, place, capsys):
    mistake, sentence = graders.MISTAKES[grader][place]
    assert getattr(graders, grader)(mistake) is False
    said = capsys.readouterr().out
    assert sentence in said and "not yet" in said
    assert "largest difference" in said or "has shape" in said or "not finite" in said


def test_another_wrong_answer_gets_no_wrong_hint(capsys):
    assert graders.order_negatives(lambda k: 17) is False
    assert capsys.readouterr().out.rstrip().endswith("the largest difference is 12.")


def test_the_expected_values_are_not_printed(capsys):
    graders.spherical_centre(lambda V: 0 * V[0])
    graders.unbiased_relation(lambda kernel, Y: Y.sum(0))
    said = capsys.readouterr().out
    assert "[" not in said and "tensor" not in said


def test_a_half_goes_up_in_exercise_1_1():
    """27 frames in three segments of 9: the clips of 8 frames start at 0.5, 9.5 and 18.5."""
    assert (
        graders.centred_starts(
            lambda n, k, t: [round(i * n / k + (n / k - t) / 2) for i in range(k)]
        )
        is False
    )


@pytest.mark.parametrize("exercise", graders.CHOICES)
def test_choices(exercise, capsys):
    right, others = graders.CHOICES[exercise]
    assert right not in others and set("abc") <= {right, *others}
    assert graders.choice(exercise, right.upper()) is True
    assert graders.choice(exercise, None) is None and graders.choice(exercise, "z") is False
    for letter, sentence in others.items():
        capsys.readouterr()
        assert graders.choice(exercise, letter) is False
        assert sentence in capsys.readouterr().out
    asked = [
        p
        for p in NOTEBOOKS
        for c in nbformat.read(p, as_version=4).cells
        if f'graders.choice("{exercise}"' in c.source
    ]
    assert len(asked) == 1, "one notebook asks it"


def test_there_are_thirty_exercises_marked_by_difficulty_and_of_all_kinds():
    text = "\n".join(
        c.source
        for path in NOTEBOOKS
        for c in nbformat.read(path, as_version=4).cells
        if c.cell_type == "markdown"
    )
    marked = re.findall(
        r"^\*\*(\d\.\d) (★+) \((code|predict[^)]*|explain[^)]*|proof)\)\*\*", text, re.M
    )
    assert len({number for number, *_ in marked}) >= 30
    assert {len(stars) for _, stars, _ in marked} == {1, 2, 3}
    assert {kind.split(",")[0] for *_, kind in marked} == {"code", "predict", "explain", "proof"}


def test_an_exception_in_the_answer_is_reported_not_raised(capsys):
    assert graders.order_negatives(lambda k: 1 / 0) is False
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("answer", [[[1], [1, 2]], "abc", {}])
def test_an_answer_of_another_form_is_reported_not_raised(answer, capsys):
    assert graders.centred_starts(lambda n, k, t: answer) is False
    assert "not yet" in capsys.readouterr().out


def test_an_answer_cannot_change_the_case_it_is_compared_with():
    def spoils(flow):
        flow[:] = 0
        return np.zeros_like(flow)

    assert graders.mirrored_flow(spoils) is False
