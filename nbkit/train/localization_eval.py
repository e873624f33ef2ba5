"""A trained localizer over test videos, and every number that tables and notebook show of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from nbkit.config.localization import LocalizationConfig
from nbkit.data.keyframes import KeyframeDataset
from nbkit.evaluate.detections import Detections, Tube, iou_matrix, tube_boxes
from nbkit.evaluate.frame_map import drop_background, frame_map
from nbkit.evaluate.linking import LinkSettings, link
from nbkit.evaluate.video_map import RANGE, video_maps
from nbkit.models.localizer import Localizer
from nbkit.models.norm import estimating_statistics, learning_statistics, use_domain

ADABN_BATCHES = 20

# Boxes (K, 4) by (video, frame).
Proposals = Mapping[tuple[int, int], np.ndarray]


def evaluate_localizer(
    detector: Localizer,
    data: KeyframeDataset,
    classes: Sequence[str],
    cfg: LocalizationConfig,
    domain: str = "target",
) -> tuple[dict[str, float], Detections]:
    """Detect on the frames of `data`, read with the statistics of `domain`, and score."""
    found, proposals = detect_all(detector, data, cfg, domain)
    truth = strided(data.tubes, cfg.evaluation.eval_stride)
    return score_detections(found, proposals, truth, classes, cfg), found


@torch.no_grad()
def detect_all(
    detector: Localizer, data: KeyframeDataset, cfg: LocalizationConfig, domain: str = "target"
) -> tuple[Detections, Proposals]:
    """Detections on every `eval_stride`-th frame (frames renumbered), and all proposals."""
    detector.eval()
    stride, step = cfg.evaluation.eval_stride, cfg.watch.eval_batch
    keys = [i for i, (_, frame) in enumerate(data.keys) if frame % stride == 0]
    parts, proposals = [], {}
    with use_domain(detector, domain):
        for first in range(0, len(keys), step):
            batch = data.batch(keys[first : first + step])
            places = zip(batch["video"], batch["frame"] // stride)
            for (video, frame), found in zip(places, detector.detect(pixels(batch, detector))):
                arrays = {name: value.cpu().numpy() for name, value in found.items()}
                parts.append(_detections(video, frame, arrays))
                proposals[int(video), int(frame)] = arrays["proposals"]
    return Detections.concatenate(parts), proposals


def pixels(batch: dict, detector: Localizer) -> dict[str, torch.Tensor]:
    """The tensors of a batch that need no label, on the detector's device."""
    device = next(detector.parameters()).device
    return {name: batch[name].to(device) for name in ("keyframe", "clip")}


def _detections(video: int, frame: int, found: dict[str, np.ndarray]) -> Detections:
    n = len(found["scores"])
    places = np.full(n, video), np.full(n, frame)
    return Detections(*places, found["labels"], found["scores"], found["boxes"].reshape(n, 4))


def strided(tubes: Sequence[Tube], stride: int) -> list[Tube]:
    """The tubes as if the video had been sampled: every `stride`-th frame, renumbered 0, 1, ..."""
    found = []
    for tube in tubes:
        keep = tube.frames % stride == 0
        if keep.any():
            frames = tube.frames[keep] // stride
            found.append(Tube(tube.video, tube.label, frames, tube.boxes[keep], tube.score))
    return found


def score_detections(
    found: Detections,
    proposals: Proposals,
    truth: Sequence[Tube],
    classes: Sequence[str],
    cfg: LocalizationConfig,
) -> dict[str, float]:
    """All metrics of a run in percent, by the names that tables have for them.

    `truth` has the frame numbers of `found` (see `strided`).  Without `eval_background`, detections
    on frames where nobody acts count neither as boxes nor in tubes (Agarwal et al., Table 2).
    """
    background = cfg.evaluation.eval_background
    if not background:
        found = drop_background(found, tube_boxes(truth))
    frame = frame_map(found, truth, classes, eval_background=background)
    tubes = link(found, link_settings(cfg))
    thresholds = (0.2, *RANGE)
    video = video_maps(tubes, truth, classes, iou_thresholds=thresholds)
    return {
        "frame_map": frame.mean,
        "video_map_0.5": video[0.5].mean,
        "video_map_0.2": video[0.2].mean,
        "video_map_0.5:0.95": float(np.mean([video[threshold].mean for threshold in RANGE])),
        **where_from(found, proposals, truth),
        **{f"ap_{name}": ap for name, ap in zip(frame.classes, frame.ap)},
    }


def link_settings(cfg: LocalizationConfig) -> LinkSettings:
    """How the tubes of a run are built."""
    evaluation = cfg.evaluation
    return LinkSettings(
        max_gap=evaluation.max_gap,
        min_length=evaluation.min_tube_len,
        min_score=evaluation.tube_score_min,
    )


def where_from(found: Detections, proposals: Proposals, truth: Sequence[Tube]) -> dict[str, float]:
    """Where a gain comes from, in percent of the ground-truth boxes; NaN where there are none.

    proposal_recall: those that one of the proposals covers (IoU >= 0.5).  class_given_box: those
    named right by the best-scored detection that covers them, among those that any covers.
    box_iou: mean over these of the best IoU with a detection.
    """
    places: dict[tuple[int, int], list[int]] = {}
    for i, key in enumerate(zip(found.video.tolist(), found.frame.tolist())):
        places.setdefault(key, []).append(i)
    rows = tube_boxes(truth)
    covered, right, overlap = [], [], []
    for i, key in enumerate(zip(rows.video.tolist(), rows.frame.tolist())):
        near = proposals.get(key, np.zeros((0, 4)))
        covered.append((iou_matrix(rows.box[i][None], near) >= 0.5).any())
        here = np.array(places.get(key, []), dtype=np.int64)
        ious = iou_matrix(found.box[here], rows.box[i][None])[:, 0]
        good = here[ious >= 0.5]
        if len(good):
            overlap.append(ious.max())
            right.append(found.label[good][found.score[good].argmax()] == rows.label[i])
    causes = {"proposal_recall": covered, "class_given_box": right, "box_iou": overlap}
    shares = dict.fromkeys(causes, float("nan"))
    for name, values in causes.items():
        if values:
            shares[name] = 100 * float(np.mean(values))
    return shares


# --- whose statistics ----------------------------------------------------------------------------
def target_statistics(row: str) -> str:
    """Whose batch statistics read the target's videos.

    'source' = those of training: the baseline has no others, and the oracle was trained on the
    target.  'target' = re-estimated on its unlabelled frames.
    """
    return "source" if row in ("I3D+RPN", "oracle") else "target"


@torch.no_grad()
def adapt_statistics(
    detector: Localizer, data: KeyframeDataset, cfg: LocalizationConfig, domain: str = "target"
) -> None:
    """AdaBN: re-estimate the statistics of `domain` on its unlabelled frames, RoI head included.

    Where no target RoI went through the head in training, its statistics are still initial.
    """
    with learning_statistics(detector), estimating_statistics(detector, domain):
        for step in range(ADABN_BATCHES):
            # Or the numbers would depend on whether this process has trained before.
            data.set_epoch(step)
            order = np.random.default_rng([cfg.seed, step]).permutation(len(data))
            batch = data.batch(order[: cfg.optim.batch])
            detector.target_step(pixels(batch, detector))
