"""Pseudo-labels: the loop by hand, collapse of the printed centres, fusion, empty clusters."""

from __future__ import annotations

import pytest
import torch

from nbkit.errors import NbkitError
from nbkit.losses.objective import cross_entropy, total_loss
from nbkit.losses.pseudo_labels import (
    assign,
    kmeans_pseudo_labels,
    source_centres,
    update_centres,
)

UCF = [
    188,
    77,
    100,
    96,
    72,
    332,
    72,
    96,
    115,
    99,
    104,
    87,
]  # training videos a class, UCF side of UCF-HMDB full
HMDB = [70] * 12


def blobs(counts, dim=64, noise=0.3, shift=0.0, seed=0, modalities=("rgb", "flow")):
    """Separable classes around orthogonal directions, the same directions for every seed."""
    g = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    means = torch.eye(dim, dtype=torch.float64)
    return {
        m: 3 * means[y + i]
        + shift
        + noise * torch.randn(len(y), dim, generator=g, dtype=torch.float64)
        for i, m in enumerate(modalities)
    }, y


def accuracy(labels, y):
    return 100 * (labels == y).double().mean().item()


def test_centres_against_a_slow_loop():
    V, y = blobs([3, 5, 4], dim=8)
    for centre in ("unit_sum", "mean", "sum_literal"):
        fast = source_centres(V["rgb"], y, 3, centre)
        for c in range(3):
            total = sum(V["rgb"][n] / V["rgb"][n].norm() for n in range(len(y)) if y[n] == c)
            slow = {
                "unit_sum": total / total.norm(),
                "mean": total / int((y == c).sum()),
                "sum_literal": total,
            }[centre]
            assert (fast[c] - slow).abs().max() < 1e-10


def test_assignment_against_a_slow_loop():
    V, y = blobs([3, 5, 4], dim=8, noise=2.0)
    centres = {m: source_centres(V[m], y, 3) for m in V}
    labels, distances = assign(V, centres)
    for n in range(len(y)):
        slow = [
            sum((V[m][n] / V[m][n].norm() - centres[m][c]).norm().item() for m in V)
            for c in range(3)
        ]
        assert distances[n].tolist() == pytest.approx(slow, abs=1e-10)
        assert labels[n].item() == slow.index(min(slow))


def test_whole_loop_against_a_slow_loop():
    Vs, ys = blobs([4, 6, 5], dim=6, noise=0.8)
    Vt, _ = blobs([5, 4, 6], dim=6, noise=1.2, shift=0.6, seed=1)
    unit = {m: Vt[m] / Vt[m].norm(dim=1, keepdim=True) for m in Vt}
    centres = {m: source_centres(Vs[m], ys, 3) for m in Vs}
    labels = None
    for updates in range(51):  # noqa: B007 (used after the loop)
        new = torch.tensor(
            [
                min(
                    range(3),
                    key=lambda c: sum((unit[m][n] - centres[m][c]).norm().item() for m in Vt),
                )
                for n in range(15)
            ]
        )
        if labels is not None and new.equal(labels):
            break
        labels = new
        for m in Vt:
            for c in range(3):
                total = unit[m][labels == c].sum(0)
                if (labels == c).any():
                    centres[m][c] = total / total.norm()
    result = kmeans_pseudo_labels(Vs, ys, Vt, 3)
    assert result.labels.equal(labels) and result.iterations == updates
    assert all(result.centres[m].allclose(centres[m], atol=1e-12) for m in Vt)
    assert result.history[-1].changed == 0 and result.history[0].changed == 15


@pytest.mark.parametrize(("source", "target", "left"), [(UCF, HMDB, 70 / 840), (HMDB, UCF, None)])
def test_printed_centres_collapse_and_scaled_ones_do_not(source, target, left):
    Vs, ys = blobs(source)
    Vt, yt = blobs(target, seed=1)
    literal = kmeans_pseudo_labels(Vs, ys, Vt, 12, centre="sum_literal")
    assert len(literal.labels.unique()) == 1  # everything in one cluster
    if left is not None:
        assert accuracy(literal.labels, yt) == pytest.approx(
            100 * left
        )  # 8.3 %: one class of twelve
    assert accuracy(literal.labels, yt) <= 100 * max(target) / sum(target)
    for centre in ("unit_sum", "mean"):
        assert accuracy(kmeans_pseudo_labels(Vs, ys, Vt, 12, centre=centre).labels, yt) == 100


def test_order_on_the_sphere_is_the_order_of_cosines():
    V, y = blobs([6, 6, 6], dim=10, noise=2.0)
    centre = source_centres(V["rgb"], y, 3)
    labels, _ = assign({"rgb": V["rgb"]}, {"rgb": centre})
    assert labels.equal((V["rgb"] @ centre.T).argmax(1))


def test_lengths_of_features_do_not_matter():
    Vs, ys = blobs([8, 8, 8], dim=8, noise=1.0)
    Vt, _ = blobs([8, 8, 8], dim=8, noise=1.0, seed=1)
    scale = torch.rand(24, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    base = kmeans_pseudo_labels(Vs, ys, Vt, 3)
    assert kmeans_pseudo_labels(Vs, ys, {m: V * scale for m, V in Vt.items()}, 3).labels.equal(
        base.labels
    )


def test_fixed_keeps_the_first_assignment():
    Vs, ys = blobs([8, 8, 8], dim=8, noise=1.0)
    Vt, _ = blobs([8, 8, 8], dim=8, noise=1.0, shift=1.0, seed=1)
    fixed = kmeans_pseudo_labels(Vs, ys, Vt, 3, fixed=True)
    assert fixed.iterations == 0 and len(fixed.history) == 1
    assert fixed.labels.equal(assign(Vt, {m: source_centres(Vs[m], ys, 3) for m in Vs})[0])


def test_fusion_lets_the_clear_modality_decide():
    Vs, ys = blobs([20] * 4, dim=8)
    Vt, yt = blobs([20] * 4, dim=8, seed=1)
    Vt["rgb"] = torch.randn(
        80, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )  # no information
    fused = kmeans_pseudo_labels(Vs, ys, Vt, 4)
    alone = kmeans_pseudo_labels(Vs, ys, Vt, 4, fusion="per_modality")
    assert accuracy(fused.labels, yt) > 85
    assert accuracy(alone.labels["flow"], yt) == 100 and accuracy(alone.labels["rgb"], yt) < 50
    assert set(alone.history) == {"rgb", "flow"}


def test_empty_cluster_keeps_its_centre():
    V, _ = blobs([5, 5], dim=6)
    previous = torch.eye(6, dtype=torch.float64)[:3]
    labels = torch.tensor([0] * 5 + [1] * 5)
    new = update_centres(V["rgb"], labels, previous)
    assert new[2].equal(previous[2]) and not new[0].equal(previous[0])


def test_features_keep_no_graph():
    Vs, ys = blobs([4, 4], dim=6)
    Vt = {m: V.clone().requires_grad_() for m, V in Vs.items()}
    result = kmeans_pseudo_labels(Vs, ys, Vt, 2)
    assert not result.distances.requires_grad and not result.centres["rgb"].requires_grad


def test_mistakes_are_named():
    Vs, ys = blobs([4, 4], dim=6)
    with pytest.raises(NbkitError, match=r"classes \[2\]"):
        kmeans_pseudo_labels(Vs, ys, Vs, 3)
    with pytest.raises(NbkitError, match="fusion"):
        kmeans_pseudo_labels(Vs, ys, Vs, 2, fusion="none")
    with pytest.raises(NbkitError, match="centre"):
        kmeans_pseudo_labels(Vs, ys, Vs, 2, centre="sum")
    with pytest.raises(NbkitError, match="modalities"):
        kmeans_pseudo_labels(Vs, ys, {"rgb": Vs["rgb"]}, 2)


def test_eq9_and_eq10():
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 4, 2, 2])
    slow = 0.0
    for b in range(4):
        for i in range(3):
            slow -= (logits[b, i, y[b]] - logits[b, i].exp().sum().log()).item() / 12
    assert abs(cross_entropy(logits, y).item() - slow) < 1e-10
    assert cross_entropy(logits[:, 0], y).allclose(
        -logits[:, 0].log_softmax(1)[torch.arange(4), y].mean()
    )
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, y), logits.clone().requires_grad_())
    with pytest.raises(NbkitError, match="logits"):
        cross_entropy(logits, y[:2])
    assert (
        total_loss(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(-0.5), 2, 0.5).item() == 6.75
    )
