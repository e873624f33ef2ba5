"""t-SNE pictures of two domains, and the numbers that stand beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase
from typing import NamedTuple

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from nbkit.errors import NbkitError
from nbkit.figures.style import GREY, SOURCE, TARGET, bare, class_colour, page, scatter_domain

# where a label may go, in heights of its line: rings that are wider than high, as words are
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_RING = np.stack([1.6 * np.cos(_ANGLES), np.sin(_ANGLES)], -1)
_MOVES = np.concatenate([np.zeros((1, 2)), *(r * _RING for r in np.arange(0.5, 5.1, 0.5))])


class Embedding(NamedTuple):
    """Source and target videos of one network in the plane, embedded together."""

    xy: np.ndarray  # (N, 2), source first
    labels: np.ndarray  # (N,)
    n_source: int  # how many of the N are source videos


def tsne(x: np.ndarray, perplexity: float, seed: int, init: str = "pca") -> np.ndarray:
    """Embed features (N, D) in the plane: (N, 2).

    init: 'pca' (two principal components: nearly free of the seed) or 'random'. Raises NbkitError
    unless 1 <= perplexity < N. Source: van der Maaten and Hinton, Visualizing Data using t-SNE,
    JMLR 2008.
    """
    if not 1 <= perplexity < len(x):
        raise NbkitError(
            f"perplexity {perplexity} must be at least 1 and below the number of points, {len(x)}"
        )
    model = TSNE(perplexity=perplexity, random_state=seed, init=init, learning_rate="auto")
    return model.fit_transform(np.asarray(x, np.float32))


def embed(
    source: np.ndarray,
    target: np.ndarray,
    y_source: np.ndarray,
    y_target: np.ndarray,
    perplexity: float,
    seed: int,
) -> Embedding:
    """Embed both domains' features (N1, D), (N2, D) together: apart, they could not be compared."""
    xy = tsne(np.concatenate([source, target]), perplexity, seed)  # (N1 + N2, 2)
    return Embedding(xy, np.concatenate([y_source, y_target]), len(source))


def embedding_panel(
    ax: Axes, points: Embedding, classes: Sequence[str] = (), by: str = "class", size: float = 11
) -> None:
    """Source as wide open circles, and over them the target as small filled triangles.

    by: colour by 'class' or by 'domain'. `classes` names the source's clusters, at their medians
    until `place_labels`.
    """
    own, other = points.xy[: points.n_source], points.xy[points.n_source :]
    y_own, y_other = points.labels[: points.n_source], points.labels[points.n_source :]
    ring, fill = SOURCE, TARGET
    if by == "class":
        ring = [class_colour(c) for c in y_own]
        fill = [class_colour(c) for c in y_other]
    # an outline makes light colours visible, but darkens small dots
    edge = 0.3 * (size >= 10)
    scatter_domain(ax, own, "source", "none", 1.8 * size, edgecolors=ring, linewidths=0.7)
    scatter_domain(ax, other, "target", fill, size, edgecolors="#444444", linewidths=edge)
    halo = [effects.withStroke(linewidth=2, foreground="white")]
    words = {"ha": "center", "va": "center", "zorder": 5, "path_effects": halo}
    for c, name in enumerate(classes):
        if (y_own == c).any():
            ax.text(*np.median(own[y_own == c], 0), name.replace("_", " "), fontsize=9, **words)
    bare(ax)
    ax.margins(0.09)
    ax.set_aspect("equal", adjustable="datalim")


def place_labels(ax: Axes) -> None:
    """Move each label of a drawn panel to a near place with few points and no other label."""
    panel = ax.get_window_extent()
    offsets = [np.asarray(dots.get_offsets()) for dots in ax.collections]
    dots = ax.transData.transform(np.concatenate(offsets))  # (points, 2) in pixels
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    # long words have the fewest places
    for text in sorted(ax.texts, key=lambda t: -len(t.get_text())):
        box = text.get_window_extent()
        half = (box.max - box.min) / 2
        home = box.min + half
        places = home + box.height * _MOVES  # (P, 2)
        places = np.clip(places, panel.min + half, panel.max - half * [1, 1.5])
        covered = (np.abs(dots - places[:, None]) < half).all(-1).sum(1)  # (P,)
        moved = np.linalg.norm((places - home) / [1.6, 1], axis=1)
        cost = covered + moved / half[1]
        for other, other_half in taken:
            # four pixels keep two names apart
            clash = (np.abs(places - other) < half + other_half + [4, 0]).all(-1)
            cost += 1000 * clash
        best = places[cost.argmin()]
        taken.append((best, half))
        text.set_position(ax.transData.inverted().transform(best))


def _lettered(panels: dict[str, Embedding], height: float, **how) -> tuple[Figure, list[Axes]]:
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig, axes = page(rows, columns, height, squeeze=False)
    used = list(axes.flat)[: len(panels)]
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, letter, (title, points) in zip(used, ascii_lowercase, panels.items()):
        embedding_panel(ax, points, **how)
        ax.set_title(f"({letter}) {title}")
    return fig, used


def _legend(fig: Figure, names: dict[str, str], colours: Sequence[str], classes=()) -> None:
    def handle(marker: str, label: str, **look) -> Line2D:
        return Line2D([], [], ls="", marker=marker, ms=6, label=label.replace("_", " "), **look)

    ring, fill = colours
    handles = [
        handle("o", f"source: {names['source']}", color=ring, mfc="none", mew=1.2),
        handle("^", f"target: {names['target']}", color=fill, mew=0),
    ]
    handles += [handle("s", name, color=class_colour(c)) for c, name in enumerate(classes)]
    spaces = {"handletextpad": 0.2, "columnspacing": 1.2}
    fig.legend(handles=handles, loc="outside lower center", ncols=5, **spaces)


def embedding_figure(
    panels: dict[str, Embedding], classes: Sequence[str], names: dict[str, str]
) -> Figure:
    """Figure 4 of STCDA: a panel per network, classes named; names: of 'source' and 'target'."""
    fig, axes = _lettered(panels, 2.5, classes=classes)
    _legend(fig, names, ("#444444", "#444444"), classes)
    # the layout decides where things are on paper; only then can labels be kept apart
    fig.canvas.draw()
    for ax in axes:
        place_labels(ax)
    return fig


def domain_strip(panels: dict[str, Embedding], names: dict[str, str]) -> Figure:
    """The same points coloured by domain, one small panel per network: where do they mix?"""
    fig, _ = _lettered(panels, 1.6, by="domain", size=6)
    _legend(fig, names, (SOURCE, TARGET))
    return fig


def embedding_grid(grid: list[list[tuple[str, Embedding]]]) -> Figure:
    """Rows of small panels (title, embedding), coloured by class, unnamed."""
    fig, axes = page(len(grid), len(grid[0]), 2.0, squeeze=False)
    for line, row in zip(axes, grid):
        for ax, (title, points) in zip(line, row):
            embedding_panel(ax, points, size=7)
            ax.set_title(title, fontsize=9)
    return fig


def numbers_figure(
    table: pd.DataFrame,
    control: pd.DataFrame,
    limits: dict[str, tuple[float, float]],
    best: dict[str, str],
) -> Figure:
    """One panel per column of `table`: triangles, and a grey bar for the control.

    table: rows = networks, source against target; control: the same within one domain; limits: the
    axis of each column; best: the value to wish for, written below it.
    """
    fig, axes = page(1, len(table.columns), 0.27 * len(table) + 1.3, sharey=True, squeeze=False)
    names = table.index
    triangle = {"marker": "^", "color": TARGET, "s": 45, "label": "source and target"}
    bar = {"marker": "|", "color": GREY, "s": 150, "lw": 2.5, "label": "the same within one domain"}
    for ax, column in zip(axes[0], table.columns):
        sns.scatterplot(x=control[column], y=names, ax=ax, legend=False, **bar)
        sns.scatterplot(x=table[column], y=names, ax=ax, legend=False, **triangle)
        ax.grid(axis="x")
        ax.set(title=column, xlabel=f"best: {best[column]}", ylabel="", xlim=limits[column])
    axes[0][0].set_ylim(len(table) - 0.5, -0.5)
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return fig
