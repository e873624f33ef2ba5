"""From boxes of single frames to tubes: greedy linking, all videos and classes side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbkit.errors import NbkitError
from nbkit.evaluate.average_precision import greedy_choice, ranks_within
from nbkit.evaluate.detections import Detections, Tube, iou

# The end of a tube that may still grow; a sequence is one class in one video.
END = np.dtype(
    [
        ("sequence", np.int64),
        ("tube", np.int64),
        ("frame", np.int64),
        ("box", np.float64, 4),
        ("total", np.float64),
        ("count", np.int64),
    ]
)


@dataclass(frozen=True)
class LinkSettings:
    """How tubes are built.

    The defaults are those of the ACT tubelet linker for tubelets of one frame, but for `max_gap`
    (there 0), because a single-frame detector misses single frames.

    Attributes:
        top_k: detections kept per frame and class.
        iou: a detection continues a tube when its IoU with the tube's last box is >= this.
        max_gap: frames without a match that a tube survives; they are filled by linear
            interpolation.
        min_length: shorter tubes (frames, gaps included) are dropped. J-HMDB's shortest clip
            has 15.
        min_score: tubes whose mean score is lower are dropped.
    """

    top_k: int = 10
    iou: float = 0.5
    max_gap: int = 5
    min_length: int = 15
    min_score: float = 0.005

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.max_gap < 0 or self.min_length < 1:
            raise NbkitError("linking: top_k and min_length must be at least 1, max_gap at least 0")


def link(detections: Detections, settings: LinkSettings = LinkSettings()) -> list[Tube]:
    """Tubes of every video and class, over consecutive frames.

    `score` is the mean score of a tube's detections.  Empty when there are no detections.
    """
    if len(detections) == 0:
        return []
    pairs = np.stack([detections.video, detections.label], axis=1)
    _, sequence = np.unique(pairs, axis=0, return_inverse=True)
    slot = ranks_within(sequence * (1 << 32) + detections.frame, detections.score)
    keep = slot < settings.top_k
    detections, sequence, slot = detections.select(keep), sequence[keep], slot[keep]
    tube = _assign(detections, sequence, slot, settings)
    return _build(detections, tube, settings)


def _assign(detections: Detections, sequence, slot, settings: LinkSettings) -> np.ndarray:
    """(N,) the number of the tube that each detection belongs to.

    Frame by frame, and within a sequence in order of their mean score, tubes take the best-scored
    free detection that overlaps their last box; what nobody takes starts a tube.
    """
    tube = np.empty(len(detections), dtype=np.int64)
    ends, n_tubes = np.zeros(0, END), 0
    by_frame = np.lexsort((slot, sequence, detections.frame))
    frames, start = np.unique(detections.frame[by_frame], return_index=True)
    for frame, rows in zip(frames, np.split(by_frame, start[1:])):
        new = np.zeros(len(rows), END)  # (n,)
        new["sequence"], new["frame"], new["box"] = sequence[rows], frame, detections.box[rows]
        new["total"], new["count"] = detections.score[rows], 1
        ends = ends[frame - ends["frame"] <= settings.max_gap + 1]
        # this order decides between equal means from now on
        ends = ends[np.argsort(-ends["total"] / ends["count"], kind="stable")]  # (A,)
        place = np.full((sequence.max() + 1, settings.top_k), -1)  # positions in `new`
        place[sequence[rows], slot[rows]] = np.arange(len(rows))
        taken = _choose(ends, new, place[ends["sequence"]], settings.iou)  # (A,)
        grow = taken >= 0
        new["tube"] = -1
        new["tube"][taken[grow]] = ends["tube"][grow]
        for name in ("frame", "box"):
            ends[name][grow] = new[name][taken[grow]]
        for name in ("total", "count"):
            ends[name][grow] += new[name][taken[grow]]
        fresh = new["tube"] < 0
        new["tube"][fresh] = n_tubes + np.arange(fresh.sum())
        n_tubes += int(fresh.sum())
        tube[rows] = new["tube"]
        ends = np.concatenate([ends, new[fresh]])
    return tube


def _choose(ends: np.ndarray, new: np.ndarray, offered: np.ndarray, least: float) -> np.ndarray:
    """Which of the detections `new` (n,) of a frame each end (A,) takes; -1 for none.

    offered: (A, D) positions in `new`, padded with -1.
    """
    near = iou(ends["box"][:, None], new["box"][offered]) >= least
    score = np.where(near & (offered >= 0), new["total"][offered], -np.inf)
    mean = ends["total"] / ends["count"]
    chosen = greedy_choice(score, ends["sequence"], mean, np.finfo(float).min)
    taken = np.take_along_axis(offered, chosen[:, None], axis=1)[:, 0]
    return np.where(chosen >= 0, taken, -1)


def _build(detections: Detections, tube: np.ndarray, settings: LinkSettings) -> list[Tube]:
    order = np.lexsort((detections.frame, tube))
    _, start = np.unique(tube[order], return_index=True)
    stop = np.append(start[1:], len(order))
    frame = detections.frame[order]
    length = frame[stop - 1] - frame[start] + 1
    mean = np.add.reduceat(detections.score[order], start) / (stop - start)
    good = (length >= settings.min_length) & (mean >= settings.min_score)
    tubes = []
    for first, last, score in zip(start[good], stop[good], mean[good]):
        rows = order[first:last]
        frames, boxes = _filled(detections.frame[rows], detections.box[rows])
        video, label = int(detections.video[rows[0]]), int(detections.label[rows[0]])
        tubes.append(Tube(video, label, frames, boxes, float(score)))
    return tubes


def _filled(known: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = np.arange(known[0], known[-1] + 1)
    if len(frames) == len(known):
        return frames, boxes
    columns = [np.interp(frames, known, boxes[:, k]) for k in range(4)]
    return frames, np.stack(columns, axis=1)
