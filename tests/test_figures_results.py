"""Figures of runs and tables show the numbers that they are given."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import table_drawings

from nbkit.figures import localization, results
from nbkit.figures.style import GREY, STREAM_COLOURS
from nbkit.tables.right_wrong import VIDEO_COLUMNS
from nbkit.tables.table import Table


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def table():
    return Table(
        name="t",
        title="t",
        set={"PROFILE": "demo"},
        rows=[{"name": "base"}, {"name": "absent"}, {"name": "flow alone", "measure": "flow"}],
        columns=[{"name": "s→t", "set": {"SOURCE": "studio", "TARGET": "street"}}],
        seeds=[0, 1],
        against="base",
    )


def test_every_run_is_a_dot_in_the_colour_of_its_stream():
    lines = [
        {"row": "base", "fused": 40.0, "flow": 30.0, "seed": 0},
        {"row": "base", "fused": 44.0, "flow": 34.0, "seed": 1},
        {"row": "flow alone", "fused": 90.0, "flow": 60.0, "seed": 0},
    ]
    found = pd.DataFrame(lines).assign(column="s→t", split=0)
    fig = results.table_dots(table(), found)
    fig.canvas.draw()
    (ax,) = fig.axes
    assert ax.get_title() == "s→t" and "fused" in ax.get_xlabel()
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["base", "flow alone"]
    dots = [c.get_offsets()[:, 0].tolist() for c in ax.collections if len(c.get_offsets())]
    assert sorted(dots[0]) == [40, 44] and dots[1] == [60]
    colours = [matplotlib.colors.to_hex(c.get_facecolors()[0]) for c in ax.collections[:2]]
    assert colours == [STREAM_COLOURS["fused"], STREAM_COLOURS["flow"].lower()]
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [42]


def some_runs():
    """base against 'flow alone', which is 20 above it in flow in five seeds, and -1 or +1 fused."""
    lines = []
    for seed in range(5):
        noise = (-1) ** seed
        lines.append({"row": "base", "seed": seed, "flow": 30.0 + seed, "fused": 50.0})
        more = {"flow": 50.0 + seed, "fused": 50.0 + noise}
        lines.append({"row": "flow alone", "seed": seed, **more})
    return pd.DataFrame(lines).assign(column="s→t", split=0)


def heads(ax):
    """Faces of the large dots."""
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    return [matplotlib.colors.to_hex(dot.get_markerfacecolor()) for dot in dots]


def test_a_difference_is_green_where_it_is_clear_and_hollow_where_it_is_not():
    both = table()
    both.rows.append(both.row("flow alone").model_copy(update={"name": "same", "measure": ""}))
    found, lines = some_runs(), pd.DataFrame(columns=VIDEO_COLUMNS)
    found = pd.concat([found, found[found["row"] == "flow alone"].assign(row="same")])
    chosen = [("flow alone", "base"), ("same", "base"), ("absent", "base")]
    (ax,) = results.difference_figure(both, found, lines, chosen).axes
    # an interval of fused - fused around zero; flow alone reads flow, its base is read fused
    assert [t.get_text() for t in ax.get_yticklabels()] == ["flow alone", "same", "absent"]
    assert heads(ax)[1] == "#ffffff" and len(heads(ax)) == 2
    (ax,) = table_drawings.comparison_figure(both, found, lines).axes
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["from base, its flow", "flow alone", "from base", "same"]
    assert heads(ax) == [results.GAIN.lower(), "#ffffff"]
    few = found[found["seed"] < 3]
    assert heads(table_drawings.comparison_figure(both, few, lines).axes[0])[0] == GREY.lower()


def test_dots_are_coloured_by_split_where_there_are_several():
    split = table().model_copy(update={"splits": [0, 1]})
    found = pd.concat([some_runs().assign(split=k) for k in (0, 1)])
    fig = results.table_dots(split, found)
    fig.canvas.draw()
    faces = {
        matplotlib.colors.to_hex(f) for c in fig.axes[0].collections for f in c.get_facecolors()
    }
    assert {"#0072b2", "#e69f00"} <= faces
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["split 0", "split 1"]


def test_curves_of_terms_and_borders_of_stages():
    history = pd.DataFrame({"stage": [2, 2, 3], "ce": [3.0, 2.0, 1.0], "vca": [0.0, 0.0, -1.0]})
    left, right = results.training_curves(history).axes
    assert left.lines[0].get_ydata().tolist() == [3, 2, 1]
    assert right.lines[0].get_ydata().tolist() == [0, 0, -1]
    (border,) = [line for line in left.lines if line.get_color() == GREY]
    assert border.get_xdata()[0] == 2.5


def test_accuracies_are_written_behind_their_bars():
    (ax,) = results.accuracy_bars({"fused": 70.25, "rgb": 50.0}, 12.5).axes
    assert sorted(bar.get_width() for bar in ax.patches) == [50, 70.25]
    assert {"50.0", "70.2", "chance"} <= {t.get_text() for t in ax.texts}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["rgb", "fused"]


def test_confusion_is_in_percent_of_the_true_class():
    ax = results.confusion_figure(np.array([[3, 1], [0, 0]]), ["a_b", "c"]).axes[0]
    assert [t.get_text() for t in ax.texts] == ["75", "25", "", ""]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a b", "c"]


def test_losses_keep_the_colour_of_their_run():
    history = pd.DataFrame({"step": [0, 1], "rpn_cls": [1.0, 0.5], "t_img": [1.4, 1.4]})
    fig = localization.loss_figure({"a": history, "b": None, "c": history}, {"t_img": 1.386})
    first, second = fig.axes[:2]
    assert [line.get_color() for line in first.lines] == ["#0072B2", "#009E73"]
    assert second.lines[-1].get_ydata()[0] == 1.386
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["a", "c"]


def test_units_of_losses_and_bars_of_the_parts_of_a_gain():
    history = pd.DataFrame({"step": [0, 1], "rpn_cls": [1.0, 0.5], "rpn_reg": [1.4, 1.4]})
    first, second = localization.loss_figure({"a": history}, {}).axes[:2]
    assert "(nats)" in first.get_title() and "(smooth L1)" in second.get_title()
    measures = {m: 10.0 * i for i, m in enumerate(localization.GAIN_LABELS)}
    found = pd.DataFrame([{"row": "one", **measures}, {"row": "two", **measures}, {"row": "no"}])
    (ax,) = localization.sources_of_gain(found, ["one", "two"]).axes
    assert [bar.get_height() for bar in ax.containers[0]] == [0, 10, 20, 30, 40]
    assert [t.get_text() for t in ax.texts[:2]] == ["0", "10"]
