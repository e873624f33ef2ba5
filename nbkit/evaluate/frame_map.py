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
from nbkit.evaluate.detections import Detections, Tube, iou, tube_boxes


def drop_background(detections: Detections, truth: Detections) -> Detections:
    """Only the detections on frames where somebody performs some action of the list."""
    return detections.select(np.isin(_frame_keys(detections), _frame_keys(truth)))


def frame_map(
    detections: Detections,
    truth: Sequence[Tube],
    classes: Sequence[str] | int,
    *,
    eval_background: bool,
    iou_threshold: float = 0.5,
) -> MeanAP:
    """Mean over classes of the frame AP, in percent.

    Args:
        detections: all scored boxes of the test set.
        truth: all its ground-truth tubes.
        classes: class names in the order of the ids, or their number.
        eval_background: frames without any action. True: a detection there is a false positive
            (untrimmed videos, as in UCF-Sports -> UCF-101). False: those frames are left out
            (J-HMDB -> UCF-101), which raises the result; the two must never stand in one column,
            so there is no default.
        iou_threshold: a true positive needs IoU >= this.
    """
    names, boxes = class_names(classes), tube_boxes(truth)
    check_labels(boxes.label, names, "ground truth")
    check_labels(detections.label, names, "detections")
    if not eval_background:
        detections = drop_background(detections, boxes)
    ap = []
    for label in range(len(names)):
        mine = detections.select(detections.label == label)
        real = boxes.select(boxes.label == label)
        overlap, frame = _overlaps_by_frame(mine, real)
        hit = greedy_match(overlap, frame, mine.score, iou_threshold)
        ap.append(100 * average_precision(mine.score, hit, len(real)))
    return MeanAP(names, tuple(ap))


def _frame_keys(rows: Detections) -> np.ndarray:
    """(N,) one integer per (video, frame)."""
    return rows.video * (1 << 32) + rows.frame


def _overlaps_by_frame(detections: Detections, truth: Detections) -> tuple[np.ndarray, np.ndarray]:
    """IoU (N, G) of each detection with the ground truths of its own frame, and its frame (N,).

    Both tables hold one class.  G is the largest number of ground truths in a frame; the rest is
    padded with -1.
    """
    keys = np.concatenate([_frame_keys(detections), _frame_keys(truth)])
    frames, number = np.unique(keys, return_inverse=True)
    of_detection, of_truth = np.split(number, [len(detections)])
    slot = ranks_within(of_truth, np.zeros(len(truth)))
    shape = len(frames), slot.max(initial=-1) + 1
    boxes = np.zeros((*shape, 4))
    there = np.zeros(shape, dtype=bool)
    boxes[of_truth, slot] = truth.box
    there[of_truth, slot] = True
    overlap = iou(detections.box[:, None], boxes[of_detection])  # (N, G)
    return np.where(there[of_detection], overlap, -1.0), of_detection
