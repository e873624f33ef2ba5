"""t-SNE pictures of two domains, and the numbers that stand beside them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import NamedTuple

import matplotlib.patheffects as effects
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from nbkit.errors import NbkitError
from nbkit.figures.style import (
    DOMAIN_COLOURS,
    GREY,
    MARKERS,
    bare,
    class_colour,
    page,
    scatter_domain,
)


class Embedding(NamedTuple):
    """Source and target videos of one network in the plane, embedded together."""

    xy: np.ndarray  # (N, 2), source first
    labels: np.ndarray  # (N,)
    n_source: int  # how many of the N are source videos


def tsne(x: np.ndarray, perplexity: float, seed: int, init: str = "pca") -> np.ndarray:
    """Features (N, D) -> (N, 2). init: 'pca' (two principal components: nearly free of the seed) or
    'random'.

    Raises NbkitError unless 1 <= perplexity < N. Source: van der Maaten and Hinton, Visualizing
    Data using t-SNE, JMLR 2008.
    """
    if not 1 <= perplexity < len(x):
        raise NbkitError(
            f"perplexity {perplexity} must be at least 1 and below the number of points, {len(x)}"
        )
    return TSNE(
        perplexity=perplexity, random_state=seed, init=init, learning_rate="auto"
    ).fit_transform(np.asarray(x, np.float32))


def embed(
    source: np.ndarray,
    target: np.ndarray,
    y_source: np.ndarray,
    y_target: np.ndarray,
    perplexity: float,
    seed: int,
    init: str = "pca",
) -> Embedding:
    """One joint t-SNE of both domains' features (N1, D) and (N2, D): embedded apart, they could not
    be compared.
    """
    xy = tsne(np.concatenate([source, target]), perplexity, seed, init)  # (N1 + N2, 2)
    return Embedding(xy, np.concatenate([y_source, y_target]), len(source))


def embedding_panel(
    ax: Axes, points: Embedding, classes: Sequence[str] = (), by: str = "class", size: float = 11
) -> None:
    """Source circles, open and wide, and over them target triangles, filled and small, so that
    neither hides the other.

    by: colour by 'class' or by 'domain'. `classes` names the source's clusters, at their medians
    until `place_labels`.
    """
    own, other = points.xy[: points.n_source], points.xy[points.n_source :]
    y_own, y_other = points.labels[: points.n_source], points.labels[points.n_source :]
    ring = [class_colour(c) for c in y_own] if by == "class" else DOMAIN_COLOURS["source"]
    fill = [class_colour(c) for c in y_other] if by == "class" else DOMAIN_COLOURS["target"]
    scatter_domain(ax, own, "source", "none", 1.8 * size, edgecolors=ring, linewidths=0.7)
    edge = (
        0.3 if size >= 10 else 0.0
    )  # an outline makes light colours visible, but darkens small dots
    scatter_domain(ax, other, "target", fill, size, edgecolors="#444444", linewidths=edge)
    for c, name in enumerate(classes):
        if (y_own == c).any():
            x, y = np.median(own[y_own == c], 0)
            ax.text(
                x,
                y,
                name.replace("_", " "),
                ha="center",
                va="center",
                fontsize=9,
                zorder=5,
                path_effects=[effects.withStroke(linewidth=2, foreground="white")],
            )
    bare(ax)
    ax.margins(0.09)
    ax.set_aspect("equal", adjustable="datalim")


def place_labels(ax: Axes) -> None:
    """Move each label of a drawn panel to the nearest place where it covers few points and no other
    label.
    """
    renderer, panel = ax.figure.canvas.get_renderer(), ax.get_window_extent()
    dots = ax.transData.transform(
        np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
    )  # pixels
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([1.6 * np.cos(angles), np.sin(angles)], -1)  # wider than high, as words are
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    for text in sorted(
        ax.texts, key=lambda t: -len(t.get_text())
    ):  # long words have the fewest places
        box = text.get_window_extent(renderer)
        half, home = (
            np.array([box.width, box.height]) / 2,
            np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2,
        )
        low, high = (
            np.array([panel.x0, panel.y0]) + half,
            np.array([panel.x1, panel.y1]) - half - [0, half[1] / 2],
        )
        places = np.concatenate(
            [home[None], *(home + r * box.height * ring for r in np.arange(0.5, 5.1, 0.5))]
        )
        places = np.clip(places, low, high)
        best = places[_cost(places, home, half, dots, taken).argmin()]
        taken.append((best, half))
        text.set_position(ax.transData.inverted().transform(best))


def _cost(
    places: np.ndarray, home: np.ndarray, half: np.ndarray, dots: np.ndarray, taken: list
) -> np.ndarray:
    """Points covered, 1000 for each label hit, and 2 for each line height moved: (P, 2) places ->
    (P,).
    """
    covered = (np.abs(dots - places[:, None]) < half).all(-1).sum(1)  # (P, points) -> (P,)
    clash = sum(
        (np.abs(places - p) < half + h + [4, 0]).all(-1) for p, h in taken
    )  # a gap between two names
    return covered + 1000 * clash + np.linalg.norm((places - home) / [1.6, 1], axis=1) / half[1]


def _key(names: dict[str, str], colour: dict[str, str]) -> list[Line2D]:
    shapes = {"source": {"mfc": "none", "mew": 1.2}, "target": {"mew": 0}}
    return [
        Line2D(
            [],
            [],
            ls="",
            marker=MARKERS[d],
            color=colour[d],
            ms=6,
            label=f"{d}: {names[d]}",
            **shapes[d],
        )
        for d in MARKERS
    ]


def embedding_figure(
    panels: dict[str, Embedding], classes: Sequence[str], names: dict[str, str]
) -> Figure:
    """Figure 4 of STCDA: a panel a stage, three in a row, classes named. names: {'source': ...,
    'target': ...}.
    """
    rows = -(-len(panels) // 3)
    fig, axes = page(rows, min(3, len(panels)), 2.5, squeeze=False)
    cells = axes.ravel()
    for ax, letter, (title, points) in zip(cells, ascii_lowercase, panels.items()):
        embedding_panel(ax, points, classes)
        ax.set_title(f"({letter}) {title}")
    for ax in cells[len(panels) :]:
        ax.set_axis_off()
    colours = [
        Line2D([], [], ls="", marker="s", color=class_colour(c), ms=6, label=name.replace("_", " "))
        for c, name in enumerate(classes)
    ]
    fig.legend(
        handles=_key(names, dict.fromkeys(MARKERS, "#444444")) + colours,
        loc="outside lower center",
        ncols=5,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    # the layout decides where things are on paper; only then can labels be kept apart
    fig.canvas.draw()
    for ax in cells[: len(panels)]:
        place_labels(ax)
    return fig


def domain_strip(panels: dict[str, Embedding], names: dict[str, str]) -> Figure:
    """The same points coloured by domain, one small panel a stage: where do the domains mix?"""
    fig, axes = page(-(-len(panels) // 3), min(3, len(panels)), 1.6, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, letter, (title, points) in zip(axes.flat, ascii_lowercase, panels.items()):
        embedding_panel(ax, points, by="domain", size=6)
        ax.set_title(f"({letter}) {title}")
    fig.legend(handles=_key(names, DOMAIN_COLOURS), loc="outside lower center", ncols=2)
    return fig


def embedding_grid(grid: list[list[tuple[str, Embedding]]], height: float = 2.0) -> Figure:
    """Rows of small panels (title, embedding), coloured by class, unnamed: many embeddings of the
    same data.
    """
    fig, axes = page(len(grid), len(grid[0]), height, squeeze=False)
    for line, row in zip(axes, grid):
        for ax, (title, points) in zip(line, row):
            embedding_panel(ax, points, size=7)
            ax.set_title(title, fontsize=9)
    return fig


def numbers_figure(
    table: pd.DataFrame,
    control: pd.DataFrame,
    limits: dict[str, tuple[float, float]],
    best: dict[str, str] | None = None,
) -> Figure:
    """One panel a column of `table` (rows = stages): a dot for source against target, a grey bar
    for the control.

    control has the same rows and columns, measured within one domain; limits gives the axis of each
    column, best the value to wish for, written below it.
    """
    fig, axes = page(1, len(table.columns), 0.27 * len(table) + 1.3, sharey=True, squeeze=False)
    for ax, column in zip(axes[0], table.columns):
        for i, row in enumerate(table.index):
            ax.plot(
                [control.loc[row, column]] * 2,
                [i - 0.32, i + 0.32],
                color=GREY,
                lw=2.5,
                solid_capstyle="butt",
            )
            ax.scatter(
                table.loc[row, column],
                i,
                s=34,
                color=DOMAIN_COLOURS["target"],
                marker=MARKERS["target"],
                zorder=3,
            )
        ax.set(xlim=limits[column], ylim=(len(table) - 0.5, -0.5))
        ax.set(title=column, xlabel=f"best: {best[column]}" if best else "")
        ax.grid(axis="x")
    axes[0][0].set_yticks(range(len(table)), table.index)
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker=MARKERS["target"],
            color=DOMAIN_COLOURS["target"],
            label="source and target",
        ),
        Line2D(
            [],
            [],
            ls="",
            marker="|",
            ms=10,
            mew=2.5,
            color=GREY,
            label="the same within one domain",
        ),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig
