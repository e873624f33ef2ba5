"""Running a trained localizer over test videos, and every number the tables and the notebook show
of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nbkit.config.localization import LocalizationConfig
from nbkit.data.keyframes import KeyframeDataset
from nbkit.evaluate.average_precision import MeanAP
from nbkit.evaluate.boxes import iou_matrix
from nbkit.evaluate.detections import Detections, Tube, tube_boxes
from nbkit.evaluate.frame_map import drop_background, frame_map
from nbkit.evaluate.linking import LinkSettings, link
from nbkit.evaluate.video_map import RANGE, video_maps
from nbkit.models.localizer import Localizer
from nbkit.models.norm import estimating_statistics, use_domain

PLUS_ONE = (
    False  # boxes end just outside the last pixel (nbkit/data/boxes.py): their width is x2 - x1
)


@dataclass
class Scores:
    """Percent throughout. `frame`, `video[threshold]`: per class and mean. `video_range`: mean over
    0.5:0.95.

    Where a gain comes from: `recall` = ground truths that one of the proposals covers (IoU >= 0.5).
    `class_given_box` = ground truths named right by the best-scored of the detections that cover
    them, among those that any covers. `box_iou` = mean over those of their best IoU with a
    detection.
    """

    frame: MeanAP
    video: dict[float, MeanAP]
    video_range: float
    recall: float
    class_given_box: float
    box_iou: float

    def summary(self) -> dict[str, float]:
        """The numbers of one table row."""
        row = {
            "frame_map": self.frame.mean,
            "video_map_0.5": self.video[0.5].mean,
            "video_map_0.2": self.video[0.2].mean,
            "video_map_0.5:0.95": self.video_range,
            "proposal_recall": self.recall,
            "class_given_box": self.class_given_box,
            "box_iou": self.box_iou,
        }
        return {**row, **{f"ap_{c}": a for c, a in zip(self.frame.classes, self.frame.ap)}}


def evaluation_keys(data: KeyframeDataset, stride: int) -> list[int]:
    """Indices of the frames to evaluate; `data` must list every frame (key_stride=1,
    background=True).
    """
    return [i for i, (_, frame) in enumerate(data.keys) if frame % stride == 0]


def strided(tubes: Sequence[Tube], stride: int) -> list[Tube]:
    """The tubes on every `stride`-th frame, frames renumbered 0, 1, ...; as if the video had been
    sampled.
    """
    out = []
    for t in tubes:
        keep = t.frames % stride == 0
        if keep.any():
            out.append(Tube(t.video, t.label, t.frames[keep] // stride, t.boxes[keep], t.score))
    return out


@torch.no_grad()
def detect_all(
    detector: Localizer,
    data: KeyframeDataset,
    *,
    batch: int = 16,
    stride: int = 1,
    domain: str = "target",
    device: torch.device | str = "cpu",
) -> tuple[Detections, dict[tuple[int, int], np.ndarray]]:
    """Detections on every `stride`-th frame (frames renumbered), and the proposals by (video,
    frame).
    """
    detector.eval()
    parts, proposals = [], {}
    keys = evaluation_keys(data, stride)
    with use_domain(detector, domain):
        for at in range(0, len(keys), batch):
            items = data.batch(keys[at : at + batch])
            moved = {k: items[k].to(device) for k in ("keyframe", "clip")}
            for video, frame, found in zip(
                items["video"], items["frame"] // stride, detector.detect(moved)
            ):
                n = len(found["scores"])
                parts.append(
                    Detections(
                        np.full(n, video),
                        np.full(n, frame),
                        found["labels"].cpu().numpy(),
                        found["scores"].cpu().numpy(),
                        found["boxes"].cpu().numpy().reshape(n, 4),
                    )
                )
                proposals[int(video), int(frame)] = found["proposals"].cpu().numpy()
    return Detections.concatenate(parts), proposals


def score(
    found: Detections,
    proposals: dict,
    truth: Sequence[Tube],
    classes: Sequence[str],
    cfg: LocalizationConfig,
) -> Scores:
    """All metrics of one run; `truth` on the same frame numbers as `found` (see `strided`).

    Without `eval_background`, detections on frames where nobody acts count neither as boxes nor in
    tubes (Agarwal et al., Table 2).
    """
    if not cfg.evaluation.eval_background:
        found = drop_background(found, tube_boxes(truth))
    frame = frame_map(found, truth, classes, eval_background=cfg.evaluation.eval_background, plus_one=PLUS_ONE)
    video = video_maps(
        link(found, link_settings(cfg)),
        truth,
        classes,
        iou_thresholds=(0.2, *RANGE),
        plus_one=PLUS_ONE,
    )
    over_range = float(np.mean([video[t].mean for t in RANGE]))
    return Scores(frame, video, over_range, *where_from(found, proposals, truth))


def link_settings(cfg: LocalizationConfig) -> LinkSettings:
    """How the tubes of a run are built."""
    return LinkSettings(
        max_gap=cfg.evaluation.max_gap,
        min_length=cfg.evaluation.min_tube_len,
        min_score=cfg.evaluation.tube_score_min,
        plus_one=PLUS_ONE,
    )


def where_from(
    found: Detections, proposals: dict, truth: Sequence[Tube]
) -> tuple[float, float, float]:
    """(proposal recall, class given box, mean IoU), see `Scores`; NaN where there is nothing to
    count.
    """
    rows = tube_boxes(truth)
    places: dict[tuple[int, int], list[int]] = {}
    for i, key in enumerate(zip(found.video.tolist(), found.frame.tolist())):
        places.setdefault(key, []).append(i)
    covered, right, overlap = [], [], []
    for video, frame, label, box in zip(
        rows.video.tolist(), rows.frame.tolist(), rows.label, rows.box
    ):
        near = proposals.get((video, frame), np.zeros((0, 4)))
        covered.append(len(near) > 0 and iou_matrix(box[None], near, PLUS_ONE).max() >= 0.5)
        here = np.array(places.get((video, frame), []), dtype=np.int64)
        ious = iou_matrix(found.box[here], box[None], PLUS_ONE)[:, 0] if len(here) else np.zeros(0)
        good = ious >= 0.5
        if good.any():
            overlap.append(ious.max())
            right.append(found.label[here[good]][found.score[here[good]].argmax()] == label)
    return tuple(100 * float(np.mean(x)) if x else float("nan") for x in (covered, right, overlap))


def evaluate(
    detector: Localizer,
    data: KeyframeDataset,
    classes: Sequence[str],
    cfg: LocalizationConfig,
    *,
    domain: str = "target",
    device="cpu",
) -> tuple[Scores, Detections]:
    """Detect on the test frames of `data`, link, score; also hands back the detections, to be drawn
    or saved.
    """
    found, proposals = detect_all(
        detector, data, batch=cfg.watch.eval_batch, stride=cfg.evaluation.eval_stride, domain=domain, device=device
    )
    return score(found, proposals, strided(data.tubes, cfg.evaluation.eval_stride), classes, cfg), found


@torch.no_grad()
def adapt_statistics(
    detector: Localizer,
    data: KeyframeDataset,
    cfg: LocalizationConfig,
    *,
    batches: int = 20,
    domain: str = "target",
    device="cpu",
) -> None:
    """AdaBN: re-estimate the statistics of `domain` on its unlabelled training frames, RoI head
    included.

    Needed before evaluation with per-domain statistics: where no target RoI went through the head
    in training, the head's target statistics would still be their initial values. Does nothing with
    group normalisation.
    """
    with estimating_statistics(detector, domain):
        for step in range(batches):
            data.set_epoch(
                step
            )  # or the numbers would depend on whether this process has trained before
            chosen = np.random.default_rng([cfg.seed, step]).permutation(len(data))[: cfg.optim.batch]
            moved = {
                k: v.to(device) for k, v in data.batch(chosen).items() if k in ("keyframe", "clip")
            }
            detector.target_step(moved)
