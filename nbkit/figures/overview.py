"""The first figure of the README, docs/overview.png: both demo domains and the demo's table.
`python -m nbkit.figures.overview`.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig
from nbkit.data.boxes import tubes_of
from nbkit.data.decode import read_video
from nbkit.data.flow import compute_flow
from nbkit.figures.clips import flow_colours, strip
from nbkit.figures.results import table_dots
from nbkit.figures.style import DOMAIN_COLOURS, page, use_style
from nbkit.tables.results import committed
from nbkit.tables.table import load_table
from nbkit.train.domains import load_table as load_videos

TABLE, ACTION = "demo_table4", "kick"
DPI = 200


def domains_figure(data_root: str = "data", count: int = 8) -> Figure:
    """One video a domain, frames with the actor's box above its flow. Renders the demo domains when
    they are absent.
    """
    cfg = RunConfig.make(profile="demo", data_root=data_root)
    _, videos = load_videos(cfg)
    fig, axes = page(4, 1, 0.84)
    for i, (role, domain) in enumerate((("source", cfg.source), ("target", cfg.target))):
        chosen = videos[
            (videos["domain"] == domain)
            & (videos["class_name"] == ACTION)
            & (videos["split"] == "train")
        ]
        frames = read_video(chosen.iloc[0]["path"])  # (N, H, W, 3)
        boxes = np.full((len(frames), 4), np.nan)
        for tube in tubes_of(chosen.iloc[0]).tubes:
            boxes[tube.start : tube.start + len(tube.boxes)] = tube.boxes
        strip(axes[2 * i], frames, count, boxes, label=f"{domain},\n{role}")
        strip(
            axes[2 * i + 1], flow_colours(compute_flow(frames, cfg.data.flow), 4.0), count, label="flow"
        )
        axes[2 * i].yaxis.label.set_color(DOMAIN_COLOURS[role])
    return fig


def pixels(fig: Figure) -> np.ndarray:
    """The figure as (H, W, 3) uint8."""
    fig.set_dpi(DPI)
    fig.canvas.draw()
    shot = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    plt.close(fig)
    return shot


def overview() -> np.ndarray:
    """The domains above a dot for every committed run of the demo's table: (H, W, 3) uint8."""
    parts = [pixels(domains_figure()), pixels(table_dots(load_table(TABLE), committed(TABLE)))]
    wide = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :wide] for part in parts])


if __name__ == "__main__":
    plt.switch_backend("agg")
    use_style()
    plt.imsave(ROOT / "docs" / "overview.png", overview(), metadata={"Software": None})
