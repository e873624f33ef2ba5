"""Between proposals and RoI vectors: sampling for training, losses, final detections.

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
    """Proposals that one training frame learns from."""

    boxes: Tensor  # (k, 4)
    labels: Tensor  # (k,), 0 = background
    truth: Tensor  # (k, 4), the box that each should be


@dataclass(frozen=True)
class DetectSettings:
    """`score`: least score.  `nms`: suppression per class.  `per_class`: kept per frame, class."""

    score: float = 0.01
    nms: float = 0.4
    per_class: int = 10


def jittered(boxes: Tensor, copies: int, amount: float, size: tuple[int, int]) -> Tensor:
    """`copies` of each box moved by up to `amount` of its sides: (n, 4) -> (n * copies, 4) at most.

    Early proposals rarely overlap a small actor; these are positives from the first step.
    """
    if copies == 0 or len(boxes) == 0:
        return boxes[:0]
    many = boxes.repeat(copies, 1)  # (n * copies, 4)
    scale = (many[:, 2:] - many[:, :2]).repeat(1, 2)
    moved = many + (torch.rand_like(many) * 2 - 1) * amount * scale
    first, second = moved[:, :2], moved[:, 2:]
    ordered = torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)
    inside = clip_boxes_to_image(ordered, size)
    return inside[remove_small_boxes(inside, 1.0)]


class RoiSampler:
    """Choose `per_image` RoIs of a frame, a fraction `positive` of them on actors (IoU >= 0.5)."""

    def __init__(self, per_image: int, positive: float):
        self.matcher = Matcher(0.5, 0.5, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(per_image, positive)

    def __call__(self, boxes: Tensor, truth: Tensor, labels: Tensor) -> RoiSample:
        """boxes (m, 4), truth (n, 4), labels (n,) in 0..C-1; n = 0 gives background only."""
        matched = torch.zeros_like(boxes)
        assigned = boxes.new_zeros(len(boxes), dtype=torch.int64)
        if len(truth) and len(boxes):
            index = self.matcher(box_iou(truth, boxes))  # (m,), negative: background
            nearest = index.clamp(min=0)
            matched = truth[nearest]
            assigned = torch.where(index >= 0, labels[nearest] + 1, 0)
        positive, negative = self.sampler([assigned])
        keep = torch.where(positive[0] | negative[0])[0]
        return RoiSample(boxes[keep], assigned[keep], matched[keep])


def roi_maps(maps: Tensor, boxes: list[Tensor], stride: int) -> Tensor:
    """RoIAlign of (B, D, t, h, w) at `boxes` in pixels: (R, D, t, 7, 7)."""
    b, d, t, h, w = maps.shape
    flat = maps.reshape(b, d * t, h, w)
    rois = roi_align(flat, boxes, 7, spatial_scale=1 / stride, sampling_ratio=2, aligned=True)
    return rois.reshape(-1, d, t, 7, 7)


def roi_losses(logits: Tensor, deltas: Tensor, samples: list[RoiSample]) -> tuple[Tensor, Tensor]:
    """Cross-entropy over C actions and background; smooth L1 of the positives' one box.

    Smooth L1 turns from square to line at 1, as in Fast R-CNN (Eq. 3 there).  logits (R, C+1),
    column 0 = background; deltas (R, 4); samples of the B frames, R boxes together.
    """
    labels = torch.cat([sample.labels for sample in samples])
    if len(labels) == 0:  # no proposal in the whole batch
        return logits.sum(), deltas.sum()
    truth = [sample.truth for sample in samples]
    wanted = torch.cat(CODER.encode(truth, [sample.boxes for sample in samples]))
    positive = torch.where(labels > 0)[0]
    box = F.smooth_l1_loss(deltas[positive], wanted[positive], beta=1.0, reduction="sum")
    return F.cross_entropy(logits, labels), box / len(labels)


def final_detections(
    logits: Tensor, deltas: Tensor, boxes: list[Tensor], size: tuple[int, int], how: DetectSettings
) -> list[dict[str, Tensor]]:
    """Per frame `boxes` (n, 4), `scores` (n,), `labels` (n,) in 0..C-1, best first; n may be 0."""
    counts = [len(proposals) for proposals in boxes]
    decoded = deltas  # (R, 4); torchvision's coder fails where R = 0
    if len(deltas):
        decoded = CODER.decode(deltas, boxes).reshape(-1, 4)
    scores = logits.softmax(1)[:, 1:]  # (R, C)
    found = []
    for frame_boxes, frame_scores in zip(decoded.split(counts), scores.split(counts)):
        found.append(_one_frame(frame_boxes, frame_scores, size, how))
    return found


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
