"""frame-mAP: are the boxes of each single frame right?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbkit.evaluate.average_precision import (
    MeanAP,
    average_precision,
    check_labels,
    class_names,
    greedy_match,
    ranks_within,
)
from nbkit.evaluate.boxes import iou
from nbkit.evaluate.detections import Detections, Tube, tube_boxes


def frame_keys(rows: Detections) -> np.ndarray:
    """(N,) one integer per (video, frame)."""
    return rows.video * (1 << 32) + rows.frame


def drop_background(detections: Detections, truth: Detections) -> Detections:
    """Only the detections on frames where somebody performs some action of the list."""
    return detections.select(np.isin(frame_keys(detections), frame_keys(truth)))


def overlaps_by_frame(detections: Detections, truth: Detections, plus_one: bool):
    """IoU of each detection with the ground truths of its own frame: (N, G) padded with -1, and its
    group (N,).

    Both tables hold one class. G is the largest number of ground truths in a frame.
    """
    keys, group = np.unique(np.r_[frame_keys(detections), frame_keys(truth)], return_inverse=True)
    of_detection, of_truth = group[: len(detections)], group[len(detections) :]
    slot = ranks_within(of_truth, np.zeros(len(truth)))
    depth = int(slot.max()) + 1 if len(slot) else 0
    boxes = np.zeros((len(keys), depth, 4))
    there = np.zeros((len(keys), depth), dtype=bool)
    boxes[of_truth, slot], there[of_truth, slot] = truth.box, True
    overlap = iou(detections.box[:, None], boxes[of_detection], plus_one)  # (N, G)
    return np.where(there[of_detection], overlap, -1.0), of_detection


def frame_map(
    detections: Detections,
    truth: Sequence[Tube],
    classes: Sequence[str] | int,
    *,
    eval_background: bool,
    iou_threshold: float = 0.5,
    rule: str = "raw",
    plus_one: bool = True,
) -> MeanAP:
    """Mean over classes of the frame AP, in percent.

    Args:
        detections: all scored boxes of the test set. truth: all its ground-truth tubes.
        classes: class names in the order of the ids, or their number.
        eval_background: frames without any action. True: a detection there is a false positive
            (untrimmed
            videos, as in UCF-Sports -> UCF-101). False: those frames are left out (J-HMDB ->
            UCF-101), which raises the result; the two must never stand in one column, so there is
            no default.
        iou_threshold: a true positive needs IoU >= this. rule: see `average_precision`.
            plus_one: see `boxes`.
    """
    names, boxes = class_names(classes), tube_boxes(truth)
    check_labels(boxes.label, names, "ground truth")
    check_labels(detections.label, names, "detections")
    if not eval_background:
        detections = drop_background(detections, boxes)
    ap, n_truth, n_detections = [], [], []
    for label in range(len(names)):
        mine, theirs = (
            detections.select(detections.label == label),
            boxes.select(boxes.label == label),
        )
        overlap, group = overlaps_by_frame(mine, theirs, plus_one)
        hit = greedy_match(overlap, group, mine.score, iou_threshold)
        ap.append(100 * average_precision(mine.score, hit, len(theirs), rule))
        n_truth.append(len(theirs))
        n_detections.append(len(mine))
    return MeanAP(names, tuple(ap), tuple(n_truth), tuple(n_detections))
