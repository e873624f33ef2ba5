"""The notebooks as a course: two labels for what a reader sees, derivations where they belong."""

import re

import nbformat
import pytest

from nbkit.config import ROOT

COURSE = [
    path
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if path.name[:2] in ("00", "01", "02", "03", "04", "06", "07")
]
FOLDED = {
    "00": ("Why the bound holds", "three kernel means", "saddle point"),
    "02": ("InfoNCE, and its gradient",),
    "03": ("squared distance of two mean embeddings",),
    "07": ("first-order argument",),
}


def prose(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.stem)
def test_what_a_reader_sees_has_one_of_two_labels(path):
    text = prose(path)
    assert not re.search(r"[Yy]ou should see|[Aa]s published", text)
    assert "**Expect**" in text
    assert "Sentences marked **In the committed run** describe the stored outputs" in text


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.stem)
def test_per_and_not_a(path):
    things = "clips|frames|rows?|maps?|videos|bytes?|embedding"
    wrong = rf"\b({things}) an? (video|clip|frame|panel|class|domain)\b"
    assert not re.search(wrong, prose(path))


@pytest.mark.parametrize("path", COURSE, ids=lambda p: p.stem)
def test_derivations_are_folded_where_they_belong(path):
    folded = re.findall(r"<details><summary>(.*?)</summary>", prose(path))
    for words in FOLDED.get(path.name[:2], ()):
        assert any(words in title for title in folded), words


def test_what_was_misleading_stays_mended():
    """Right pseudo-labels are counted after training; the parts of alignment stand apart."""
    (path,) = (p for p in COURSE if p.name.startswith("04"))
    code = "\n".join(
        c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"
    )
    assert 'last["vca"], last["intra"] - last["inter"]' in code  # no weight is in the curve
    assert code.index("or run(cfg)") < code.index("truth = table.loc")
    (path,) = (p for p in COURSE if p.name.startswith("07"))
    assert "*beside* the persons" not in prose(path) and "*besides* the persons" in prose(path)
