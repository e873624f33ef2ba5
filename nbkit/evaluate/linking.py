"""From boxes of single frames to tubes: greedy linking, all videos and classes side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbkit.errors import NbkitError
from nbkit.evaluate.average_precision import ranks_within
from nbkit.evaluate.detections import Detections, Tube, iou

# The end of a tube that may still grow; `tube` is its number from 1 on, 0 marks a free slot.
END = np.dtype(
    [
        ("box", np.float64, 4),
        ("frame", np.int64),
        ("tube", np.int64),
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
    """(N,) the number of the tube that each detection belongs to."""
    tube = np.empty(len(detections), dtype=np.int64)
    open_tubes = OpenTubes(int(sequence.max()) + 1, settings)
    by_frame = np.argsort(detections.frame, kind="stable")
    frames, start = np.unique(detections.frame[by_frame], return_index=True)
    for frame, rows in zip(frames, np.split(by_frame, start[1:])):
        place = sequence[rows], slot[rows]
        scores, boxes = detections.score[rows], detections.box[rows]
        tube[rows] = open_tubes.extend(int(frame), place, scores, boxes)
    return tube


class OpenTubes:
    """The growing ends of the tubes of S sequences (a sequence is one class in one video)."""

    def __init__(self, n_sequences: int, settings: LinkSettings):
        self.settings, self.n_tubes = settings, 0
        self.ends = np.zeros((n_sequences, 0), END)  # (S, A)

    def extend(self, frame: int, place, score: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Hand the n detections of one frame number to tubes old and new: (n,) tube numbers.

        Within a sequence tubes choose in order of their mean score, each the best-scored free
        detection that overlaps its last box; what nobody takes starts a tube.  `place` holds the
        sequence (n,) and the rank (n,) within it.
        """
        sequence, slot = place
        here, line = np.unique(sequence, return_inverse=True)  # (s,), (n,)
        shape = len(here), slot.max() + 1
        boxes = np.zeros((*shape, 4))  # (s, D, 4)
        scores = np.full(shape, -np.inf)
        boxes[line, slot], scores[line, slot] = box, score
        ends = self._alive(here, frame)  # (s, A)
        taken = self._choose(ends, frame, boxes, scores)  # (s, D)
        fresh = (taken == 0) & np.isfinite(scores)
        taken[fresh] = self.n_tubes + 1 + np.arange(fresh.sum())
        self.n_tubes += int(fresh.sum())
        born = np.zeros(shape, END)
        born["box"], born["frame"] = boxes, frame
        born["tube"] = np.where(fresh, taken, 0)
        born["total"], born["count"] = scores, 1
        self._store(here, np.concatenate([ends, born], axis=1))
        return taken[line, slot]

    def _alive(self, here: np.ndarray, frame: int) -> np.ndarray:
        """The ends of the sequences `here` that may still grow, best mean score first."""
        ends = self.ends[here]
        alive = (ends["tube"] > 0) & (frame - ends["frame"] <= self.settings.max_gap + 1)
        ends["tube"][~alive] = 0
        mean = np.where(alive, ends["total"] / np.maximum(ends["count"], 1), -np.inf)
        most = alive.sum(1).max(initial=0)
        order = np.argsort(-mean, axis=1, kind="stable")[:, :most]
        return np.take_along_axis(ends, order, axis=1)

    def _choose(self, ends: np.ndarray, frame: int, boxes, scores) -> np.ndarray:
        """Let each end pick its detection; update `ends`, return each detection's tube (s, D)."""
        near = iou(ends["box"][:, :, None], boxes[:, None]) >= self.settings.iou  # (s, A, D)
        near &= (ends["tube"] > 0)[:, :, None]
        taken = np.zeros(scores.shape, dtype=np.int64)
        for a in range(ends.shape[1]):
            offer = np.where(near[:, a] & (taken == 0), scores, -np.inf)
            s = np.flatnonzero(offer.max(1) > -np.inf)
            d = offer[s].argmax(1)
            taken[s, d] = ends["tube"][s, a]
            ends["box"][s, a] = boxes[s, d]
            ends["frame"][s, a] = frame
            ends["total"][s, a] += scores[s, d]
            ends["count"][s, a] += 1
        return taken

    def _store(self, here: np.ndarray, ends: np.ndarray) -> None:
        """Write the ends back, those in use first, with more slots where they are needed."""
        used = ends["tube"] > 0
        most = used.sum(1).max()
        missing = most - self.ends.shape[1]
        if missing > 0:
            room = np.zeros((len(self.ends), missing), END)
            self.ends = np.concatenate([self.ends, room], axis=1)
        order = np.argsort(~used, axis=1, kind="stable")[:, :most]
        self.ends["tube"][here] = 0
        self.ends[here, :most] = np.take_along_axis(ends, order, axis=1)


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
