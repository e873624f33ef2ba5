"""The first figure of the README, docs/overview.png: both demo domains and the demo's table.

Run `python tools/overview.py`.
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
from nbkit.train.domains import resolved_videos

TABLE, ACTION = "demo_table4", "kick"


def domains_figure(data_root: str = "data") -> Figure:
    """One video per domain, frames with the actor's box above its flow.

    Renders the demo domains when they are absent.
    """
    cfg = RunConfig.make(profile="demo", data_root=data_root)
    _, videos = resolved_videos(cfg)
    fig, axes = page(4, 1, 0.84)
    for (above, below), role in zip(axes.reshape(2, 2), DOMAIN_COLOURS):
        domain = getattr(cfg, role)
        row = videos.query("domain == @domain and class_name == @ACTION and split == 'train'").iloc[
            0
        ]
        frames = read_video(row["path"])  # (N, H, W, 3)
        boxes = np.full((len(frames), 4), np.nan)
        for tube in tubes_of(row).tubes:
            boxes[tube.start : tube.start + len(tube.boxes)] = tube.boxes
        strip(above, frames, 8, boxes, label=f"{domain},\n{role}")
        above.yaxis.label.set_color(DOMAIN_COLOURS[role])
        flow = compute_flow(frames, cfg.data.flow)
        strip(below, flow_colours(flow, 4.0), 8, label="flow")
    return fig


def pixels(fig: Figure) -> np.ndarray:
    """The figure at 200 dpi as (H, W, 3) uint8."""
    fig.set_dpi(200)
    fig.canvas.draw()
    shot = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    plt.close(fig)
    return shot


def overview() -> np.ndarray:
    """The domains above a dot for every committed run of the demo's table: (H, W, 3) uint8."""
    dots = table_dots(load_table(TABLE), committed(TABLE))
    parts = [pixels(domains_figure()), pixels(dots)]
    width = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :width] for part in parts])


if __name__ == "__main__":
    plt.switch_backend("agg")
    use_style()
    plt.imsave(ROOT / "docs" / "overview.png", overview(), metadata={"Software": None})
