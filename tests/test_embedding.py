"""The t-SNE figures draw what they are given; features are read as in evaluation."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402

from nbkit.errors import NbkitError  # noqa: E402
from nbkit.figures import embedding, style  # noqa: E402
from nbkit.train.both_domains import both_domains, joined  # noqa: E402
from nbkit.train.recognition import run  # noqa: E402


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(12) % 3, np.arange(9) % 3])
    return embedding.Embedding(20 * np.eye(3)[labels][:, :2] + rng.normal(size=(21, 2)), labels, 12)


def test_tsne_keeps_clusters_together_and_repeats():
    rng = np.random.default_rng(1)
    x, y = 30 * np.eye(3)[np.arange(30) % 3] + rng.normal(size=(30, 3)), np.arange(30) % 3
    xy = embedding.tsne(x, 5, 0)
    nearest = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.diag(np.full(30, np.inf))
    assert (y[nearest.argmin(1)] == y).all()
    assert np.array_equal(xy, embedding.tsne(x, 5, 0))
    with pytest.raises(NbkitError, match="perplexity 30"):
        embedding.tsne(x, 30, 0)


def test_a_joint_embedding_has_the_source_first():
    a = np.zeros((8, 2)) + np.arange(8)[:, None] * 0.01
    b = np.full((6, 2), 50.0) + np.arange(6)[:, None] * 0.01
    found = embedding.embed(a, b, np.zeros(8, int), np.ones(6, int), perplexity=3, seed=0)
    assert found.xy.shape == (14, 2) and found.n_source == 8
    assert found.labels.tolist() == [0] * 8 + [1] * 6


def test_panel_draws_each_domain_with_its_marker_and_each_class_with_its_colour(points):
    fig, ax = plt.subplots()
    embedding.embedding_panel(ax, points, ["a", "b", "c_d"])
    source, target = ax.collections
    np.testing.assert_allclose(source.get_offsets(), points.xy[:12])
    np.testing.assert_allclose(target.get_offsets(), points.xy[12:])
    wanted = [style.class_colour(c).lower() for c in points.labels]
    assert [to_hex(c) for c in source.get_edgecolors()] == wanted[:12]
    assert [to_hex(c) for c in target.get_facecolors()] == wanted[12:]
    # a triangle, a circle
    assert len(target.get_paths()[0].vertices) < len(source.get_paths()[0].vertices)
    assert {t.get_text() for t in ax.texts} == {"a", "b", "c d"}
    assert min(t.get_fontsize() for t in ax.texts) >= 9
    plt.close(fig)


def test_labels_do_not_overlap_and_stay_near_and_inside(points):
    crowded = points._replace(xy=points.xy * 0.05)  # all three clusters within one word's width
    with plt.rc_context():
        style.use_style()
        fig = embedding.embedding_figure(
            {"one": points, "two": crowded},
            ["first class", "second class", "third class"],
            {"source": "s", "target": "t"},
        )
        for ax in fig.axes[:2]:
            boxes, panel = [t.get_window_extent() for t in ax.texts], ax.get_window_extent()
            assert len(boxes) == 3
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
            assert all(
                b.x0 > panel.x0 - 2 and b.x1 < panel.x1 + 2 and b.y1 < panel.y1 + 2 for b in boxes
            )
    plt.close(fig)


def test_every_panel_and_name_is_in_the_figure(points):
    panels = dict.fromkeys(("Source only", "with STCL", "with VCA", "both"), points)
    fig = embedding.embedding_figure(
        panels, ["a", "b", "c"], {"source": "studio", "target": "street"}
    )
    assert [ax.get_title() for ax in fig.axes[:4]] == [
        "(a) Source only",
        "(b) with STCL",
        "(c) with VCA",
        "(d) both",
    ]
    key = [t.get_text() for t in fig.legends[0].get_texts()]
    assert key == ["source: studio", "target: street", "a", "b", "c"]
    plt.close(fig)
    fig = embedding.domain_strip(panels, {"source": "studio", "target": "street"})
    source, target = fig.axes[0].collections
    assert to_hex(source.get_edgecolors()[0]) == style.SOURCE.lower()
    assert to_hex(target.get_facecolors()[0]) == style.TARGET.lower()
    plt.close(fig)


def test_numbers_stand_where_the_table_says():
    table = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}, index=["first", "second"])
    fig = embedding.numbers_figure(
        table, table + 5, {"x": (0, 9), "y": (0, 9)}, {"x": "0", "y": "1"}
    )
    for ax, column in zip(fig.axes, table):
        assert ax.get_title() == column
        control, shown = ax.collections
        assert control.get_offsets().tolist() == [[x + 5, i] for i, x in enumerate(table[column])]
        assert shown.get_offsets().tolist() == [[x, i] for i, x in enumerate(table[column])]
    assert [ax.get_xlabel() for ax in fig.axes] == ["best: 0", "best: 1"]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["first", "second"]
    plt.close(fig)


def test_features_are_read_as_in_evaluation(smoke):
    cfg = smoke(method="source_only")
    result, found = run(cfg), both_domains(cfg)
    assert found.target.probs["fused"].argmax(-1).tolist() == result.predictions["fused"].tolist()
    assert found.statistics == {"source": "source", "target": "source"}
    assert (found.source.labels >= 0).all() and len(found.held_out.labels) == 4 * len(found.classes)
    v, V = joined(found.target)
    width = 2 * cfg.model.feature_dim
    assert V.shape == (len(found.target.labels), width)
    assert v.shape == (len(V), cfg.data.clips, width)
    torch.testing.assert_close(joined(found.target, "flow").V, V[:, cfg.model.feature_dim :])
    with pytest.raises(NbkitError, match="FEATURE='depth'"):
        joined(found.target, "depth")


def test_statistics_follow_the_method(smoke):
    first = smoke(method="source_only")
    adabn = both_domains(first.replace(method="adabn"))
    assert adabn.statistics == {"source": "source", "target": "target"}
    top = both_domains(first.replace(method="target_only"))
    # it has never seen the source's
    assert top.statistics == {"source": "target", "target": "target"}
    # withheld from its training, known to the picture
    assert torch.equal(top.source.labels, adabn.source.labels)
