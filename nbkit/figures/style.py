"""One look for all figures: page sizes, readable type, colours for colour-blind readers."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

PAGE = 6.9  # inches, both columns of a two-column page
# Okabe-Ito blue and vermillion
SOURCE, TARGET = "#0072B2", "#D55E00"
DOMAIN_COLOURS = {"source": SOURCE, "target": TARGET}
MARKERS = {"source": "o", "target": "^"}
STREAM_COLOURS = {"rgb": "#009E73", "flow": "#CC79A7", "fused": "#333333"}
GREY = "#8C8C8C"
# wine red: what was made wrong on purpose
NEGATIVE = "#882255"
# Okabe-Ito first, then the four that stay farthest from them under colour-vision deficiencies
CLASS_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"),
    *("#F0E442", "#333333", "#7900F2", "#592D00", "#00D870", "#0029A6"),
)

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=CLASS_COLOURS),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
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
    """Make a figure `width` inches wide, `height` inches per row; the rest as in plt.subplots."""
    return plt.subplots(rows, cols, figsize=(width, height * rows), **subplots)


def bare(ax: Axes) -> None:
    """Take away ticks and frame: for pictures and abstract planes."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def row_label(ax: Axes, text: str) -> None:
    """Write a name to the left of a row of pictures."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", linespacing=1.3)


def outline(ax: Axes, box, colour: str, width: float = 1.0, **more) -> None:
    """Draw the border of a box (x0, y0, x1, y1) in pixels; whole numbers are centres of pixels."""
    x0, y0, x1, y1 = box
    corner = (x0 - 0.5, y0 - 0.5)
    ax.add_patch(Rectangle(corner, x1 - x0, y1 - y0, fill=False, ec=colour, lw=width, **more))


def scatter_domain(
    ax: Axes, points, domain: str, colour: str | list[str] | None = None, size: float = 32, **more
) -> None:
    """Draw points (N, 2) with the marker of a domain, and its colour where no other is given."""
    more = {"edgecolors": "white", "linewidths": 0.6, **more}
    colour = colour or DOMAIN_COLOURS[domain]
    ax.scatter(points[:, 0], points[:, 1], s=size, marker=MARKERS[domain], c=colour, **more)


def save_figure(fig: Figure, name: str, run_dir: str | Path | None = None) -> tuple[Path, Path]:
    """Write `<run_dir>/figures/<name>.png` and `.pdf` (run_dir: `runs`); return the two paths.

    The files carry no date, so the same figure gives the same bytes.
    """
    folder = Path(run_dir or "runs") / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    fig.savefig(png, metadata={"Software": None})
    fig.savefig(pdf, metadata={"CreationDate": None})
    return png, pdf
