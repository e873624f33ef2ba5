"""From boxes of single frames to tubes: greedy linking, all videos and classes side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nbkit.errors import NbkitError
from nbkit.evaluate.average_precision import ranks_within
from nbkit.evaluate.boxes import iou
from nbkit.evaluate.detections import Detections, Tube


@dataclass(frozen=True)
class LinkSettings:
    """How tubes are built. The defaults are those of the ACT tubelet linker for tubelets of one
    frame, but for `max_gap` (there 0), because a single-frame detector misses single frames.

    Attributes:
        top_k: detections kept per frame and class.
        iou: a detection continues a tube when its IoU with the tube's last box is >= this.
        max_gap: frames without a match that a tube survives; they are filled by linear
            interpolation.
        min_length: shorter tubes (frames, gaps included) are dropped. J-HMDB's shortest clip
            has 15.
        min_score: tubes whose mean score is lower are dropped.
        trim: cut both ends of a tube where the score is below `trim` x its mean score; 0 = off.
        plus_one: area rule, see `boxes`.
    """

    top_k: int = 10
    iou: float = 0.5
    max_gap: int = 5
    min_length: int = 15
    min_score: float = 0.005
    trim: float = 0.0
    plus_one: bool = True

    def __post_init__(self):
        if self.top_k < 1 or self.max_gap < 0 or self.min_length < 1:
            raise NbkitError("linking: top_k and min_length must be at least 1, max_gap at least 0")


class OpenTubes:
    """The growing ends of the tubes of S sequences (a sequence is one class in one video).

    Slot a of sequence s holds the last box, the last frame, the sum and number of scores, and the
    tube's number (-1 = free slot).
    """

    def __init__(self, n_sequences: int, settings: LinkSettings):
        self.settings, self.n_tubes = settings, 0
        self.box = np.zeros((n_sequences, 0, 4))
        self.last, self.tube = (np.full((n_sequences, 0), -1, dtype=np.int64) for _ in range(2))
        self.total, self.count = (np.zeros((n_sequences, 0)) for _ in range(2))

    def extend(self, frame: int, sequence, slot, score, box) -> np.ndarray:
        """Hand the n detections of one frame number to tubes old and new: (n,) tube numbers.

        Within a sequence tubes choose in order of their mean score, each the best-scored free
        detection that overlaps its last box; what nobody takes starts a tube.
        """
        here, line = np.unique(sequence, return_inverse=True)  # (s,), (n,)
        boxes, scores = (
            np.zeros((len(here), slot.max() + 1, 4)),
            np.full((len(here), slot.max() + 1), -np.inf),
        )
        boxes[line, slot], scores[line, slot] = box, score  # (s, D, 4), (s, D)
        state = self._alive(here, frame)
        taken = self._choose(state, frame, boxes, scores)  # (s, D)
        fresh = (taken < 0) & np.isfinite(scores)
        taken[fresh] = self.n_tubes + np.arange(fresh.sum())
        self.n_tubes += int(fresh.sum())
        born = (
            boxes,
            np.where(fresh, frame, -1),
            np.where(fresh, taken, -1),
            np.where(fresh, scores, 0.0),
            fresh.astype(float),
        )
        self._store(here, [np.concatenate(pair, axis=1) for pair in zip(state, born)])
        return taken[line, slot]

    def _alive(self, here, frame: int) -> list[np.ndarray]:
        """The slots of the sequences `here` that may still grow, best mean score first."""
        state = [x[here] for x in (self.box, self.last, self.tube, self.total, self.count)]
        alive = (state[2] >= 0) & (frame - state[1] <= self.settings.max_gap + 1)
        mean = np.where(alive, state[3] / np.maximum(state[4], 1), -np.inf)
        state[2] = np.where(alive, state[2], -1)
        order = np.argsort(-mean, axis=1, kind="stable")[:, : alive.sum(1).max(initial=0)]
        rows = np.arange(len(here))[:, None]
        return [x[rows, order] for x in state]

    def _choose(self, state, frame: int, boxes, scores) -> np.ndarray:
        """Let each tube pick its detection; updates `state`, returns the tube of each detection or
        -1 (s, D).
        """
        last_box, last, tube, total, count = state
        near = (
            iou(last_box[:, :, None], boxes[:, None], self.settings.plus_one) >= self.settings.iou
        )  # (s, A, D)
        near &= (tube >= 0)[:, :, None]
        taken, rows = np.full(scores.shape, -1, dtype=np.int64), np.arange(len(scores))
        for a in range(tube.shape[1]):
            offer = np.where(near[:, a] & (taken < 0), scores, -np.inf)
            best = offer.argmax(1)
            got = offer[rows, best] > -np.inf
            s, d = rows[got], best[got]
            taken[s, d], last_box[s, a], last[s, a] = tube[s, a], boxes[s, d], frame
            total[s, a] += scores[s, d]
            count[s, a] += 1
        return taken

    def _store(self, here, state) -> None:
        """Write the slots back, those in use first; the arrays grow when a sequence needs more
        slots.
        """
        order = np.argsort(state[2] < 0, axis=1, kind="stable")[:, : (state[2] >= 0).sum(1).max()]
        rows = np.arange(len(here))[:, None]
        missing = order.shape[1] - self.tube.shape[1]
        for name, new in zip(("box", "last", "tube", "total", "count"), state):
            old = getattr(self, name)
            if missing > 0:
                pad = [(0, 0), (0, missing)] + [(0, 0)] * (old.ndim - 2)
                old = np.pad(old, pad, constant_values=-1 if name == "tube" else 0)
                setattr(self, name, old)
            if name == "tube":
                old[here] = -1
            old[here, : order.shape[1]] = new[rows, order]


def link(detections: Detections, settings: LinkSettings = LinkSettings()) -> list[Tube]:
    """Tubes of every video and class.

    Returns:
        list of `Tube` with consecutive frames, `score` the mean score of its detections, and
        `frame_scores` per frame (interpolated in gaps). Empty when there are no detections.
    """
    if len(detections) == 0:
        return []
    _, sequence = np.unique(np.c_[detections.video, detections.label], axis=0, return_inverse=True)
    sequence = sequence.reshape(-1)
    slot = ranks_within(sequence * (1 << 32) + detections.frame, detections.score)
    keep = slot < settings.top_k
    detections, sequence, slot = detections.select(keep), sequence[keep], slot[keep]
    tube = assign_tubes(detections, sequence, slot, settings)
    return build_tubes(detections, tube, settings)


def assign_tubes(detections: Detections, sequence, slot, settings: LinkSettings) -> np.ndarray:
    """(N,) the number of the tube that each detection belongs to."""
    tube = np.empty(len(detections), dtype=np.int64)
    open_tubes = OpenTubes(int(sequence.max()) + 1, settings)
    by_frame = np.argsort(detections.frame, kind="stable")
    frames, start = np.unique(detections.frame[by_frame], return_index=True)
    for frame, rows in zip(frames, np.split(by_frame, start[1:])):
        tube[rows] = open_tubes.extend(
            int(frame), sequence[rows], slot[rows], detections.score[rows], detections.box[rows]
        )
    return tube


def build_tubes(detections: Detections, tube: np.ndarray, settings: LinkSettings) -> list[Tube]:
    """Group detections by tube, drop the short and the weak, fill the gaps."""
    order = np.lexsort((detections.frame, tube))
    start = np.flatnonzero(np.r_[True, np.diff(tube[order]) > 0])
    stop = np.r_[start[1:], len(order)]
    frame = detections.frame[order]
    mean = np.add.reduceat(detections.score[order], start) / (stop - start)
    good = (frame[stop - 1] - frame[start] + 1 >= settings.min_length) & (
        mean >= settings.min_score
    )
    made = (
        _fill(detections, order[a:b], m, settings)
        for a, b, m in zip(start[good], stop[good], mean[good])
    )
    return [t for t in made if len(t) >= settings.min_length]


def _fill(detections: Detections, rows: np.ndarray, mean: float, settings: LinkSettings) -> Tube:
    """One tube from its detections (in order of frames), gaps interpolated, ends trimmed if asked
    for.
    """
    known = detections.frame[rows]
    frames = np.arange(known[0], known[-1] + 1)
    boxes, scores = detections.box[rows], detections.score[rows]
    if len(frames) > len(known):
        boxes = np.stack([np.interp(frames, known, boxes[:, k]) for k in range(4)], axis=1)
        scores = np.interp(frames, known, scores)
    if settings.trim > 0:
        strong = np.flatnonzero(scores >= settings.trim * mean)
        if len(strong):
            span = slice(strong[0], strong[-1] + 1)
            frames, boxes, scores = frames[span], boxes[span], scores[span]
    return Tube(
        int(detections.video[rows[0]]),
        int(detections.label[rows[0]]),
        frames,
        boxes,
        float(mean),
        scores,
    )
