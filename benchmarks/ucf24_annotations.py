"""Ground-truth tubes of the UCF101-24 annotation pickle, for the evaluator benchmarks."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np

from nbkit.evaluate.detections import Detections, Tube, tube_boxes

#: the four classes shared with UCF-Sports: name in the video ids
CLASSES = ("Diving", "GolfSwing", "HorseRiding", "SkateBoarding")
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}


class _Arrays(pickle.Unpickler):
    """Unpickles containers, numbers and numpy arrays, and nothing that could run code."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the annotation file asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_test_set(folder: Path, classes=CLASSES) -> tuple[list[str], list[int], list[Tube]]:
    """Videos of the split-1 test list in `classes`, their frame counts, and their tubes (0-based
    frames, xyxy).
    """
    table = _Arrays(io.BytesIO((folder / "pyannot.pkl").read_bytes()), encoding="latin1").load()
    listed = {
        Path(line.split()[0].replace("\\", "/")).with_suffix("").as_posix()
        for line in (folder / "testlist01.txt").read_text().split("\n")
        if line.strip()
    }
    videos = sorted(v for v in table if v in listed and v.split("/")[0] in classes)
    tubes, frames = [], []
    for i, video in enumerate(videos):
        frames.append(int(table[video]["numf"]))
        for note in table[video]["annotations"]:
            box = np.asarray(note["boxes"]).astype(np.float64)  # stored as uint8/uint16, x y w h
            box[:, 2:] += box[:, :2]
            tubes.append(
                Tube(
                    i,
                    classes.index(video.split("/")[0]),
                    np.arange(int(note["sf"]), int(note["ef"])),
                    box,
                )
            )
    return videos, frames, tubes


def frames_with_boxes(tubes) -> int:
    """How many (video, frame) pairs have any box."""
    rows = tube_boxes(tubes)
    return len(np.unique(np.c_[rows.video, rows.frame], axis=0))


def perturbed(tubes, n_classes: int, seed: int, *, keep=0.9, jitter=0.1, wrong=0.15) -> Detections:
    """Detections made from ground truth: boxes moved and resized by `jitter` of their size, some
    dropped, some with another class, two decoys per box, and scores that are higher, but not
    always, for the true ones.
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
