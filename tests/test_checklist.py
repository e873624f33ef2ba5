"""docs/CHECKLIST.md: 36 items, scores of 0 to 2 that add up, and every item with its evidence."""

import re

from nbkit.config import ROOT

TEXT = (ROOT / "docs" / "CHECKLIST.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \| ([012]) \| ([^|]+) \|$", TEXT, re.M)


def test_the_scores_add_up():
    assert [int(number) for number, *_ in ROWS] == list(range(1, 37))
    total = sum(int(score) for _, _, score, _ in ROWS)
    assert f"**Sum: {total} of 72.**" in TEXT


def test_full_marks_need_evidence():
    for number, item, score, evidence in ROWS:
        if score == "2":
            words = "](" in evidence or "`" in evidence or re.search(r"notebook|\(0\d\)", evidence)
            assert words or number in {"18", "32", "33"}, (number, item)
