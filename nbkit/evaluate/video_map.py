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

#: 0.5:0.95, the ten thresholds whose average the action-detection literature prints beside 0.2 and
#: 0.5
RANGE = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


def by_video_and_class(tubes: Sequence[Tube]) -> dict[tuple[int, int], list[Tube]]:
    """`{(video, label): tubes}` in the order given."""
    groups = defaultdict(list)
    for tube in tubes:
        groups[tube.video, tube.label].append(tube)
    return dict(groups)


def suppress(tubes: Sequence[Tube], threshold: float = 0.3, plus_one: bool = True) -> list[Tube]:
    """3D non-maximum suppression within each video and class."""
    return [
        group[i]
        for group in by_video_and_class(tubes).values()
        for i in tube_nms(group, threshold, plus_one)
    ]


def overlaps_by_video(detected: Mapping, truth: Mapping, label: int, plus_one: bool):
    """Per class: scores (N,), 3D IoU with the ground truths of the same video (N, G, -1 padded),
    video group (N,).
    """
    depth = max((len(g) for (_, c), g in truth.items() if c == label), default=0)
    scores, overlaps, group = [], [np.zeros((0, depth))], []
    for i, (video, _) in enumerate(sorted(k for k in detected if k[1] == label)):
        mine, theirs = detected[video, label], truth.get((video, label), [])
        padded = np.full((len(mine), depth), -1.0)
        padded[:, : len(theirs)] = tube_iou_matrix(mine, theirs, plus_one)
        scores += [t.score for t in mine]
        overlaps.append(padded)
        group += [i] * len(mine)
    return np.array(scores), np.concatenate(overlaps), np.array(group, dtype=np.int64)


def video_maps(
    tubes: Sequence[Tube],
    truth: Sequence[Tube],
    classes: Sequence[str] | int,
    *,
    iou_thresholds: Sequence[float] = (0.2, 0.5),
    nms_iou: float | None = 0.3,
    rule: str = "raw",
    plus_one: bool = True,
) -> dict[float, MeanAP]:
    """video-mAP in percent at several thresholds (the overlaps are computed once).

    Args:
        tubes: detected tubes of the whole test set, from `linking.link`. truth: ground-truth tubes.
        classes: names in the order of the ids, or their number.
        nms_iou: 3D NMS before scoring; None = the tubes are taken as they are.
        rule, plus_one: see `average_precision` and `boxes`.
    """
    names = class_names(classes)
    for what, some in (("ground-truth tubes", truth), ("detected tubes", tubes)):
        check_labels(np.array([t.label for t in some], dtype=np.int64), names, what)
    if nms_iou is not None:
        tubes = suppress(tubes, nms_iou, plus_one)
    detected, real = by_video_and_class(tubes), by_video_and_class(truth)
    table = [overlaps_by_video(detected, real, label, plus_one) for label in range(len(names))]
    n_truth = tuple(sum(t.label == label for t in truth) for label in range(len(names)))
    n_detected = tuple(len(score) for score, _, _ in table)
    result = {}
    for threshold in iou_thresholds:
        ap = tuple(
            100 * average_precision(score, greedy_match(overlap, group, score, threshold), n, rule)
            for (score, overlap, group), n in zip(table, n_truth)
        )
        result[threshold] = MeanAP(names, ap, n_truth, n_detected)
    return result


def video_map(
    tubes: Sequence[Tube],
    truth: Sequence[Tube],
    classes: Sequence[str] | int,
    *,
    iou_threshold: float = 0.5,
    **options,
) -> MeanAP:
    """video-mAP at one threshold; options as in `video_maps`."""
    return video_maps(tubes, truth, classes, iou_thresholds=(iou_threshold,), **options)[
        iou_threshold
    ]


def video_map_range(
    tubes: Sequence[Tube], truth: Sequence[Tube], classes: Sequence[str] | int, **options
) -> float:
    """Average of video-mAP over IoU 0.5, 0.55, ..., 0.95, in percent."""
    results = video_maps(tubes, truth, classes, iou_thresholds=RANGE, **options)
    return float(np.mean([r.mean for r in results.values()]))
