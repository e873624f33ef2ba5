"""video-mAP: are the tubes right, in space and in time?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from nbkit.evaluate.average_precision import (
    MeanAP,
    average_precision,
    check_labels,
    class_names,
    greedy_match,
)
from nbkit.evaluate.detections import Tube
from nbkit.evaluate.tubes import tube_iou_matrix, tube_nms

# 0.5:0.95, ten thresholds whose average the literature prints beside 0.2 and 0.5.
RANGE = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


def video_maps(
    tubes: Sequence[Tube],
    truth: Sequence[Tube],
    classes: Sequence[str] | int,
    *,
    iou_thresholds: Sequence[float] = (0.2, 0.5),
) -> dict[float, MeanAP]:
    """video-mAP in percent at several thresholds (the overlaps are computed once).

    Args:
        tubes: detected tubes of the whole test set, from `linking.link`; they pass through 3D
            non-maximum suppression first.
        truth: ground-truth tubes.
        classes: names in the order of the ids, or their number.
    """
    names = class_names(classes)
    for what, some in (("ground-truth tubes", truth), ("detected tubes", tubes)):
        check_labels(np.array([tube.label for tube in some], dtype=np.int64), names, what)
    detected = {}
    for place, group in _by_video_and_class(tubes).items():
        detected[place] = [group[i] for i in tube_nms(group)]
    real = _by_video_and_class(truth)
    ap = {threshold: [] for threshold in iou_thresholds}
    for label in range(len(names)):
        score, overlap, video = _overlaps_by_video(detected, real, label)
        n_truth = sum(tube.label == label for tube in truth)
        for threshold in iou_thresholds:
            hit = greedy_match(overlap, video, score, threshold)
            ap[threshold].append(100 * average_precision(score, hit, n_truth))
    return {threshold: MeanAP(names, tuple(values)) for threshold, values in ap.items()}


def video_map(
    tubes: Sequence[Tube],
    truth: Sequence[Tube],
    classes: Sequence[str] | int,
    *,
    iou_threshold: float = 0.5,
) -> MeanAP:
    """video-mAP in percent at one threshold, see `video_maps`."""
    return video_maps(tubes, truth, classes, iou_thresholds=(iou_threshold,))[iou_threshold]


def _by_video_and_class(tubes: Sequence[Tube]) -> dict[tuple[int, int], list[Tube]]:
    groups = defaultdict(list)
    for tube in tubes:
        groups[tube.video, tube.label].append(tube)
    return groups


def _overlaps_by_video(
    detected: Mapping, truth: Mapping, label: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the detected tubes of a class: score (N,), 3D IoU (N, G), number of the video (N,).

    The IoU is that with the ground truths of the same video, padded with -1.
    """
    depth = max((len(real) for (_, c), real in truth.items() if c == label), default=0)
    videos = sorted(video for video, c in detected if c == label)
    scores, overlaps, group = [], [np.zeros((0, depth))], []
    for number, video in enumerate(videos):
        found = detected[video, label]
        real = truth.get((video, label), [])
        padded = np.full((len(found), depth), -1.0)
        padded[:, : len(real)] = tube_iou_matrix(found, real)
        scores += [tube.score for tube in found]
        overlaps.append(padded)
        group += [number] * len(found)
    return np.array(scores), np.concatenate(overlaps), np.array(group, dtype=np.int64)
