"""Figures: files are written and repeatable; sources shown in notebooks are the real ones."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from nbkit.errors import NbkitError  # noqa: E402
from nbkit.figures import clips, notebook, style  # noqa: E402


def test_save_figure_writes_the_same_bytes_twice(tmp_path):
    files = []
    for run in ("a", "b"):
        with plt.rc_context():
            style.use_style()
            fig, ax = style.page(height=1.0, width=3.3)
            style.scatter_domain(ax, np.eye(2), "target")
            files.append(style.save_figure(fig, "points", tmp_path / run))
            plt.close(fig)
    (png, pdf), (png2, pdf2) = files
    assert png == tmp_path / "a" / "figures" / "points.png"
    assert png.read_bytes() == png2.read_bytes() and pdf.read_bytes() == pdf2.read_bytes()


def test_class_colours_differ_and_repeat_after_twelve():
    assert len({style.class_colour(c) for c in range(12)}) == 12
    assert style.class_colour(12) == style.class_colour(0) and style.class_colour(-1) == style.GREY


def test_source_is_shown_without_its_docstring():
    from nbkit.losses.alignment import class_mask

    source = notebook.source_without_docstring(class_mask)
    assert source.startswith("def class_mask(") and "return " in source
    assert '"""' not in source
    namespace = {"Tensor": object}
    exec(source, namespace)  # still a function


def test_stepper_draws_one_static_figure_where_nobody_can_click(monkeypatch):
    monkeypatch.setenv("NBKIT_WIDGETS", "0")
    drawn = []
    with plt.rc_context({"backend": "Agg"}):
        notebook.stepper(lambda v: drawn.append(v) or plt.figure(), [1, 2, 3], "step", start=1)
    plt.close("all")
    assert drawn == [2]
    with pytest.raises(NbkitError, match="at least one"):
        notebook.stepper(plt.figure, [], "step")


def test_stepper_redraws_when_the_slider_moves(monkeypatch):
    monkeypatch.setenv("NBKIT_WIDGETS", "1")
    drawn, shown = [], []
    monkeypatch.setattr(notebook, "display", shown.append)
    notebook.stepper(lambda v: drawn.append(v) or plt.figure(), [1, 2, 3], "step")
    slider = shown[-1].children[0]
    slider.value = 3
    plt.close("all")
    assert drawn == [1, 3]


def test_filmstrip_marks_frames():
    fig, ax = plt.subplots()
    rgb, flow = np.random.default_rng(0).random((3, 4, 8, 8)), np.zeros((2, 4, 8, 8))
    assert clips.pictures(rgb).shape == (4, 8, 8, 3)
    assert (clips.pictures(flow) == 1).all()  # no motion is white
    clips.filmstrip(ax, clips.pictures(rgb), "clip", marked=[1, 3])
    assert len(ax.patches) == 2 and ax.get_images()[0].get_array().shape == (8, 4 * 8 + 3 * 3, 3)
    plt.close(fig)
