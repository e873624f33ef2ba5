"""What happens between proposals and RoI vectors: sampling for training, losses, final detections.

Anchors, matching, sampling, box coding, RoIAlign and suppression are torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, remove_small_boxes, roi_align

CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))


@dataclass
class RoiSample:
    """The proposals one training frame learns from: `boxes` (k, 4), `labels` (k,) 0 = background,
    `truth` (k, 4).
    """

    boxes: Tensor
    labels: Tensor
    truth: Tensor


def jittered(boxes: Tensor, copies: int, amount: float, size: tuple[int, int]) -> Tensor:
    """`copies` of each ground-truth box moved by up to `amount` of its width and height, clipped:
    (n*copies, 4).

    Early proposals rarely overlap a small actor; these give the RoI branch positives from the first
    step.
    """
    if copies == 0 or len(boxes) == 0:
        return boxes[:0]
    many = boxes.repeat(copies, 1)
    scale = (many[:, 2:] - many[:, :2]).repeat(1, 2)  # (n*copies, 4)
    moved = many + (torch.rand_like(many) * 2 - 1) * amount * scale
    moved = torch.cat(
        [torch.minimum(moved[:, :2], moved[:, 2:]), torch.maximum(moved[:, :2], moved[:, 2:])], 1
    )
    moved = clip_boxes_to_image(moved, size)
    return moved[remove_small_boxes(moved, 1.0)]


class RoiSampler:
    """Chooses `per_image` RoIs of each frame, a fraction `positive` of them on actors (IoU >=
    `foreground`).
    """

    def __init__(self, per_image: int, positive: float, foreground: float = 0.5):
        self.matcher = Matcher(foreground, foreground, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(per_image, positive)

    def __call__(self, boxes: Tensor, truth: Tensor, labels: Tensor) -> RoiSample:
        """boxes (m, 4), truth (n, 4), labels (n,) 0-based classes; n = 0 (a background frame) gives
        background only.
        """
        if len(truth) == 0 or len(boxes) == 0:
            matched, assigned = (
                torch.zeros_like(boxes),
                boxes.new_zeros(len(boxes), dtype=torch.int64),
            )
        else:
            index = self.matcher(box_iou(truth, boxes))  # (m,), negative: background
            matched = truth[index.clamp(min=0)]
            assigned = torch.where(index >= 0, labels[index.clamp(min=0)] + 1, 0)
        positive, negative = self.sampler([assigned])
        keep = torch.where(positive[0] | negative[0])[0]
        return RoiSample(boxes[keep], assigned[keep], matched[keep])


def roi_maps(maps: Tensor, boxes: list[Tensor], stride: int, side: int = 7) -> Tensor:
    """RoIAlign of (B, D, t, h, w) at `boxes` in pixels: (R, D, t, side, side)."""
    b, d, t, h, w = maps.shape
    rois = roi_align(
        maps.reshape(b, d * t, h, w),
        boxes,
        side,
        spatial_scale=1 / stride,
        sampling_ratio=2,
        aligned=True,
    )
    return rois.reshape(-1, d, t, side, side)


def roi_losses(logits: Tensor, deltas: Tensor, samples: list[RoiSample]) -> tuple[Tensor, Tensor]:
    """Cross-entropy over C actions and background, and smooth L1 of the class-agnostic box of the
    positives.

    Smooth L1 turns from square to line at 1, as in Fast R-CNN (Eq. 3 there).

    Args:
        logits: (R, C+1), column 0 = background. deltas: (R, 4). samples: of the B frames, R
            boxes together.
    """
    labels = torch.cat([s.labels for s in samples])
    if len(labels) == 0:  # no proposal in the whole batch
        return logits.sum(), deltas.sum()
    wanted = CODER.encode([s.truth for s in samples], [s.boxes for s in samples])
    positive = torch.where(labels > 0)[0]
    box = F.smooth_l1_loss(
        deltas[positive], torch.cat(list(wanted))[positive], beta=1.0, reduction="sum"
    )
    return F.cross_entropy(logits, labels), box / len(labels)


@dataclass(frozen=True)
class DetectSettings:
    """`score`: detections below are dropped. `nms`: hard suppression per class. `per_class`: kept a
    frame and class.
    """

    score: float = 0.01
    nms: float = 0.4
    per_class: int = 10


def final_detections(
    logits: Tensor, deltas: Tensor, boxes: list[Tensor], size: tuple[int, int], how: DetectSettings
) -> list[dict[str, Tensor]]:
    """Per frame `boxes` (n, 4), `scores` (n,), `labels` (n,) 0-based, best first; n = 0 where
    nothing is found.
    """
    counts = [len(b) for b in boxes]
    if sum(counts) == 0:
        empty = {
            "boxes": deltas.new_zeros(0, 4),
            "scores": deltas.new_zeros(0),
            "labels": torch.zeros(0, dtype=torch.int64, device=deltas.device),
        }
        return [dict(empty) for _ in boxes]
    decoded = CODER.decode(deltas, boxes).reshape(-1, 4).split(counts)
    scores = logits.softmax(1)[:, 1:].split(counts)  # (k, C) each
    return [_one_frame(b, s, size, how) for b, s in zip(decoded, scores)]


def _one_frame(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], how: DetectSettings
) -> dict[str, Tensor]:
    boxes = clip_boxes_to_image(boxes, size)
    row, label = torch.where(scores > how.score)
    box, score = boxes[row], scores[row, label]
    big = remove_small_boxes(box, 1.0)
    box, score, label = box[big], score[big], label[big]
    keep = batched_nms(box, score, label, how.nms)  # best first
    same = label[keep][:, None] == label[keep][None]
    rank = same.tril(-1).sum(1)  # better ones of the same class
    keep = keep[rank < how.per_class]
    return {"boxes": box[keep], "scores": score[keep], "labels": label[keep]}
