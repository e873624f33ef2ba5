"""Two domains of bright squares that move up or down: eight short videos to localize in."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning_fabric import Fabric

from nbkit.config.localization import LocalizationConfig
from nbkit.data.frame_cache import build_frame_cache
from nbkit.data.keyframes import KeyframeDataset
from nbkit.train.localization import train_localizer

CLASSES, SIDE = ["up", "down"], 48
CPU = Fabric(accelerator="cpu", devices=1)


def write_video(path, frames):
    from nbkit.demo.write import encode

    path.parent.mkdir(parents=True, exist_ok=True)
    encode(str(path), frames)


@pytest.fixture(scope="module")
def squares_table(tmp_path_factory):
    """The resolved table.  Video 3 of each domain is untrimmed: no action on frames 0-3."""
    root, rows = tmp_path_factory.mktemp("squares"), []
    for d, domain in enumerate(("a", "b")):
        for i in range(4):
            label, n = i % 2, 10
            rng = np.random.default_rng([d, i])
            frames = rng.integers(0, 60, (n, 64, 64, 3), dtype=np.uint8) + 60 * d
            y = 8 + 2 * (np.arange(n) if label else n - np.arange(n))
            boxes = np.stack([np.full(n, 12.0), y, np.full(n, 36.0), y + 30], axis=1)
            for frame, (x1, y1, x2, y2) in zip(frames, boxes.astype(int)):
                frame[y1:y2, x1:x2] = 240
            action = np.arange(n) >= (4 if i == 3 else 0)
            write_video(root / f"{domain}{i}.avi", frames.astype(np.uint8))
            np.savez(root / f"{domain}{i}.npz", boxes=boxes.astype(np.float32), action=action)
            rows.append(
                {
                    "video": f"{domain}/{i}",
                    "path": str(root / f"{domain}{i}.avi"),
                    "class_name": CLASSES[label],
                    "label": label,
                    "domain": domain,
                    "boxes": str(root / f"{domain}{i}.npz"),
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def squares_cache(squares_table, tmp_path_factory):
    return build_frame_cache(
        squares_table, tmp_path_factory.mktemp("cache"), size=(SIDE, SIDE), progress=False
    )


@pytest.fixture(scope="module")
def squares(squares_table, squares_cache):
    def make(domain, **how):
        part = squares_table[squares_table["domain"] == domain].reset_index(drop=True)
        return KeyframeDataset(squares_cache, part, **{"clip_len": 4, "key_stride": 2, **how})

    return make


def config(**fields):
    small = {
        "source": "a",
        "target": "b",
        "row": "I3D+RPN",
        "height": SIDE,
        "width": SIDE,
        "clip_len": 4,
        "steps": 3,
        "batch": 2,
        "log_every": 1,
        "warmup": 0,
        "min_tube_len": 2,
        "beta_ramp": False,
        "norm": "group",
        "beta": 0.2,
        "device": "cpu",
    }
    return LocalizationConfig.make(profile="demo", **{**small, **fields})


def train(squares, path=None, target=None, **fields):
    """A trained model and the state of its checkpoint; `target` in place of the usual data set."""
    source = squares("a", augment=True)
    if target is None:
        target = squares("b", augment=True, withhold_labels=True)
    path = path or Path(tempfile.mkdtemp()) / "stage.pt"
    return train_localizer(CPU, config(**fields), CLASSES, source, target, path)
