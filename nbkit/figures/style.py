"""One look for all figures: sizes of a page column, readable type, colours that a colour-blind
reader can tell apart.

Source is a blue circle and target a vermillion triangle in every figure; classes have their own
palette.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.3  # inches: one column of a two-column page
PAGE = 6.9  # inches: both columns
SOURCE, TARGET = "#0072B2", "#D55E00"  # Okabe-Ito blue and vermillion
MARKERS = {"source": "o", "target": "^"}
DOMAIN_COLOURS = {"source": SOURCE, "target": TARGET}
STREAM_COLOURS = {"rgb": "#009E73", "flow": "#CC79A7", "fused": "#333333"}
GREY = "#8C8C8C"
NEGATIVE = "#882255"  # wine red: what was made wrong on purpose
# Okabe-Ito first, then the four that stay farthest from them under the three colour-vision
# deficiencies
CLASS_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#333333",
    "#7900F2",
    "#592D00",
    "#00D870",
    "#0029A6",
)

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "figure.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.borderaxespad": 0.3,
    "image.interpolation": "nearest",
    "image.cmap": "viridis",
    "figure.figsize": (PAGE, 2.6),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "nbkit",
    "axes.prop_cycle": mpl.cycler(color=CLASS_COLOURS),
}


def use_style() -> None:
    """Set the style for every figure that follows (a notebook's first cell calls it)."""
    mpl.rcParams.update(_RC)


def class_colour(label: int) -> str:
    """Colour of a class id; withheld labels (-1) are grey. Twelve differ, then they repeat."""
    return GREY if label < 0 else CLASS_COLOURS[label % len(CLASS_COLOURS)]


def page(
    rows: int = 1, cols: int = 1, height: float = 2.6, width: float = PAGE, **subplots
) -> tuple[Figure, Axes]:
    """Figure and axes `width` inches wide (`PAGE` or `COLUMN`), `height` inches a row; the rest:
    see plt.subplots.
    """
    return plt.subplots(rows, cols, figsize=(width, height * rows), **subplots)


def bare(ax: Axes) -> None:
    """No ticks and no frame: for pictures and abstract planes."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def scatter_domain(
    ax: Axes, points, domain: str, colour: str | list[str] | None = None, size: float = 32, **more
) -> None:
    """Points (N, 2) of 'source' (circles) or 'target' (triangles), in the domain's colour unless
    `colour` is given.
    """
    ax.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        marker=MARKERS[domain],
        c=colour or DOMAIN_COLOURS[domain],
        **{"edgecolors": "white", "linewidths": 0.6, **more},
    )


def save_figure(fig: Figure, name: str, run_dir: str | Path | None = None) -> tuple[Path, Path]:
    """Write `<run_dir>/figures/<name>.png` and `.pdf` (default run_dir: `runs`) and return the two
    paths.

    The files carry no date, so the same figure gives the same bytes.
    """
    folder = Path(run_dir or "runs") / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    fig.savefig(png, metadata={"Software": None})
    fig.savefig(pdf, metadata={"CreationDate": None})
    return png, pdf
