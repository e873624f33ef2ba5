"""Every sentence of notebooks 05 and 08 about the committed runs is checked against them.

`CLAIMS` holds, by the words of the notebook, what must be true of the committed results.  A
sentence marked **In the committed run** that is not in it fails, and so does one that is no longer
true.  All other readings there are computed where they stand.
"""

import nbformat
import pytest

from nbkit.config import ROOT
from nbkit.tables.gains import difference, in_words
from nbkit.tables.results import committed
from nbkit.tables.right_wrong import committed_right_wrong
from nbkit.tables.table import load_table

MARK = "**In the committed run**"
MODULES = ["T_img", "T_ins", "S_img", "T_img + T_ins", "T_img + S_img", "T_ins + S_img"]


def gap(name, a, b, column, measure=""):
    lines = committed_right_wrong(name)
    return difference(load_table(name), committed(name), lines, a, b, column, measure)


def adabn_is_above_and_no_module_is_above_adabn():
    for column in load_table("demo_localization").column_names:
        for measure in ("frame_map", "video_map_0.5"):
            base = gap("demo_localization", "AdaBN", "I3D+RPN", column, measure)
            assert base.low > 0, (column, measure)
            for row in [*MODULES, "all three"]:
                own = gap("demo_localization", row, "AdaBN", column, measure)
                assert in_words(own) != "clearly higher", (row, column, measure)


def what_the_modules_of_a_frozen_detector_do():
    there, back = load_table("demo_localization").column_names

    def said(a, b, column, measure="frame_map"):
        return in_words(gap("demo_localization", f"{a}, frozen", f"{b}, frozen", column, measure))

    assert said("all three", "I3D+RPN", there) == "clearly higher"
    assert said("all three", "I3D+RPN", back) == "not clear"
    assert said("S_img", "I3D+RPN", there, "proposal_recall") == "clearly higher"
    assert said("S_img", "I3D+RPN", there) == "not clear"
    for row in ("T_img", "T_ins"):
        assert said(row, "I3D+RPN", there) == "clearly higher"
        recall = gap(
            "demo_localization", f"{row}, frozen", "I3D+RPN, frozen", there, "proposal_recall"
        )
        assert recall.low == recall.high == 0
    assert said("AdaBN", "all three", there) == "not clear"


def the_bound_is_near_in_one_direction():
    far = gap("demo_table4", "Target only", "AdaBN", "studio→street")
    near = gap("demo_table4", "Target only", "AdaBN", "street→studio")
    assert near.mean < 5 and far.mean > 30


def the_clip_term_brings_what_contrast_brings():
    def said(a, b):
        return in_words(gap("demo_table5", a, b, "studio→street"))

    whole, clip = "Clip+Video+VCA, on S and T", "Clip+VCA, on S and T"
    assert said(clip, "VCA") == "clearly higher"
    assert said("Video+VCA, on S and T", "VCA") == said(whole, clip) == "not clear"
    for one in ("Clip+Video+VCA, on S", "Clip+Video+VCA, on T"):
        assert said(whole, one) == "clearly higher"


CLAIMS = {
    "is clearly above its baseline from studio": what_the_modules_of_a_frozen_detector_do,
    "no row with modules is clearly above *AdaBN*": adabn_is_above_and_no_module_is_above_adabn,
    "the bound is near from street to studio, and far": the_bound_is_near_in_one_direction,
    "the clip term alone brings what contrast brings": the_clip_term_brings_what_contrast_brings,
}


def claims():
    """The texts behind the mark, up to the end of their paragraph."""
    for name in ("05_localization", "08_tables"):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            for part in cell.source.split(MARK)[1:]:
                if cell.cell_type == "markdown" and not part.startswith(" describe"):
                    yield part.split("\n\n")[0]


def test_every_sentence_about_the_committed_runs_is_checked():
    found = list(claims())
    assert len(found) == len(CLAIMS)
    for text in found:
        assert any(words in text for words in CLAIMS), text


@pytest.mark.parametrize("words", CLAIMS)
def test_a_sentence_about_the_committed_runs_is_true(words):
    CLAIMS[words]()


def test_the_stress_tests_sentence_is_true():
    """Not even the target's own labels teach the target of the stress test."""
    found = committed("hmdb_arid")
    own = found[(found["row"] == "Target only") & (found["column"] == "hmdb→arid")]
    assert own["fused"].mean() < 20  # five classes


def test_concat_and_mean_stand_in_the_paper_as_notebook_08_says():
    rows = load_table("table6")
    concat, mean = rows.row("(a) Concat + FC"), rows.row("(a) Mean")
    text = (ROOT / "notebooks" / "08_tables.ipynb").read_text()
    assert concat.printed["U→H"] < mean.printed["U→H"]
    assert concat.printed["H→U"] > mean.printed["H→U"]
    for printed in (*concat.printed.values(), *mean.printed.values()):
        assert f"{printed:.1f}" in text
