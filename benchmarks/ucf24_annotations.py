"""Ground-truth tubes of the UCF101-24 annotation pickle, for the evaluator benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nbkit.benchmarks.split_lists import UCF_LINE, read_list
from nbkit.data.boxes import ucf101_24_tubes
from nbkit.evaluate.detections import Detections, Tube, tube_boxes

#: the four classes shared with UCF-Sports: name in the video ids
CLASSES = ("Diving", "GolfSwing", "HorseRiding", "SkateBoarding")


def load_test_set(folder: Path, classes=CLASSES) -> tuple[list[str], list[int], list[Tube]]:
    """The videos of `classes` in the test list, their frame counts, and their tubes.

    Frames are 0-based, boxes xyxy.
    """
    table = ucf101_24_tubes(folder / "pyannot.pkl")
    test_list = read_list(folder / "testlist01.txt", UCF_LINE)
    listed = {f"{e.own}/{Path(e.file).stem}" for e in test_list if e.own in classes}
    videos = sorted(listed & set(table))
    tubes, frames = [], []
    for i, video in enumerate(videos):
        label = classes.index(video.split("/")[0])
        frames.append(table[video].n_frames)
        for tube in table[video].tubes:
            numbers = np.arange(tube.start, tube.start + len(tube.boxes))
            tubes.append(Tube(i, label, numbers, tube.boxes))
    return videos, frames, tubes


def frames_with_boxes(tubes) -> int:
    """How many (video, frame) pairs have any box."""
    rows = tube_boxes(tubes)
    return len(np.unique(np.c_[rows.video, rows.frame], axis=0))


def perturbed(tubes, n_classes: int, seed: int, *, keep=0.9, jitter=0.1, wrong=0.15) -> Detections:
    """Detections made from ground truth.

    Boxes are moved and resized by `jitter` of their size, some dropped, some given another class.
    Each box has two decoys; scores of the true ones are higher, but not always.
    """
    rng = np.random.default_rng(seed)
    rows = tube_boxes(tubes)
    rows = rows.select(rng.uniform(size=len(rows)) < keep)
    size = np.tile(rows.box[:, 2:] - rows.box[:, :2], 2)
    near = rows.box + rng.normal(0, jitter, rows.box.shape) * size
    far = rows.box + np.tile(rng.normal(0, 1.2, (len(rows), 2)), 2) * size
    far2 = rows.box + np.tile(rng.normal(0, 1.2, (len(rows), 2)), 2) * size
    other = (rows.label + rng.integers(1, max(n_classes, 2), len(rows))) % n_classes
    label = np.where(rng.uniform(size=len(rows)) < wrong, other, rows.label)
    return Detections(
        np.tile(rows.video, 3),
        np.tile(rows.frame, 3),
        np.r_[label, rows.label, other],
        np.r_[rng.beta(4, 2, len(rows)), rng.beta(2, 3, 2 * len(rows))],
        np.concatenate([near, far, far2]),
    )
