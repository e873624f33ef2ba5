"""The spatio-temporal action detector: proposals from a key frame, classes and boxes from its clip.

Faster R-CNN whose two jobs have a backbone each (Agarwal et al., BMVC 2020). The key-frame branch
and its region proposal network say *where* somebody may be; the temporal branch pools the clip at
those places and says *what* they do. The proposals carry no gradient, so the losses of one branch
never reach the other.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from nbkit.errors import NbkitError
from nbkit.models.discriminators import Aspects
from nbkit.models.roi import (
    DetectSettings,
    RoiSampler,
    final_detections,
    jittered,
    roi_losses,
    roi_maps,
)


@dataclass(frozen=True)
class LocalizerSettings:
    """Numbers of the detector; the defaults are those of the paper size (our reconstruction, after
    Faster R-CNN).

    Attributes:
        anchor_sizes: sides in pixels; anchor_ratios: height / width.
        rpn_batch: anchors a frame in the RPN loss; rpn_iou: (background below, foreground from).
        pre_nms, post_nms: proposals kept before and after suppression, (training, test).
        target_proposals: proposals of a target frame that the instance discriminator sees.
        roi_batch, roi_positive, roi_foreground: RoIs a source frame, fraction on actors, IoU
            that makes one.
        jitter_copies, jitter: displaced copies of each ground-truth box among the training
            proposals.
        temporal_pool: average over time before RoIAlign, or after TF2.
        classifier_std: of the classifier's first weights; None: torch's own, about 0.07 for the
            small size. A few hundred
            steps from scratch do not get away from 0.01, the value for networks that were trained
            before.
    """

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_batch: int = 256
    rpn_iou: tuple[float, float] = (0.3, 0.7)
    rpn_nms: float = 0.7
    pre_nms: tuple[int, int] = (12000, 6000)
    post_nms: tuple[int, int] = (2000, 300)
    target_proposals: int = 128
    roi_batch: int = 128
    roi_positive: float = 0.25
    roi_foreground: float = 0.5
    jitter_copies: int = 0
    jitter: float = 0.15
    temporal_pool: Literal["before_roi", "after_tf2"] = "before_roi"
    classifier_std: float | None = 0.01
    detect: DetectSettings = field(default_factory=DetectSettings)


class Localizer(nn.Module):
    """Detector of C actions.

    A batch is a dict: `keyframe` (B, 3, H, W) and `clip` (B, 3, T, H, W), RGB in [0, 1], the clip
    centred on the key frame; for training also `boxes`, B tensors (n_i, 4) xyxy in pixels, and
    `labels`, B tensors (n_i,) in 0..C-1. A frame without an actor has n_i = 0.

    Args:
        keyframe, temporal: branches, see `localizer_parts`. n_classes: C. settings: see
            `LocalizerSettings`.
    """

    def __init__(
        self,
        keyframe: nn.Module,
        temporal: nn.Module,
        n_classes: int,
        settings: LocalizerSettings = LocalizerSettings(),
    ):
        super().__init__()
        s = self.settings = settings
        if s.temporal_pool not in ("before_roi", "after_tf2"):
            raise NbkitError(
                f"temporal_pool={s.temporal_pool!r}: choose 'before_roi' or 'after_tf2'"
            )
        self.keyframe, self.temporal, self.n_classes = keyframe, temporal, n_classes
        anchors = AnchorGenerator((tuple(s.anchor_sizes),), (tuple(s.anchor_ratios),))
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(keyframe.channels, anchors.num_anchors_per_location()[0]),
            s.rpn_iou[1],
            s.rpn_iou[0],
            s.rpn_batch,
            0.5,
            {"training": s.pre_nms[0], "testing": s.pre_nms[1]},
            {"training": s.post_nms[0], "testing": s.post_nms[1]},
            s.rpn_nms,
        )
        self.classify = nn.Linear(temporal.features, n_classes + 1)  # 0 = background
        self.regress = nn.Linear(
            temporal.features, 4
        )  # the actor's box is the same whatever the action
        if s.classifier_std is not None:
            nn.init.normal_(self.classify.weight, std=s.classifier_std)
            nn.init.zeros_(self.classify.bias)
        nn.init.normal_(self.regress.weight, std=0.001)
        nn.init.zeros_(self.regress.bias)
        self.sampler = RoiSampler(s.roi_batch, s.roi_positive, s.roi_foreground)

    # --------------------------------------------------------------------------------------------------
    # branches
    def spatial_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters of the key-frame branch and its RPN."""
        return [p for m in (self.keyframe, self.rpn) for p in m.parameters() if p.requires_grad]

    def temporal_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters of the temporal branch with classifier and box regressor."""
        return [
            p
            for m in (self.temporal, self.classify, self.regress)
            for p in m.parameters()
            if p.requires_grad
        ]

    def temporal_maps(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """-> TF1(V) averaged over time (B, D, h, w), and the maps RoIAlign pools from (B, D, t, h,
        w).
        """
        maps = self.temporal.tf1(clip)  # (B, D, t, h, w)
        mean = maps.mean(2, keepdim=True)  # (B, D, 1, h, w)
        return mean.squeeze(2), mean if self.settings.temporal_pool == "before_roi" else maps

    def roi_vectors(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """TF2 at the boxes: (B, D, t, h, w), B x (K_i, 4) -> (sum K_i, F)."""
        if sum(map(len, boxes)) == 0:
            return maps.new_zeros(0, self.temporal.features)
        return self.temporal.tf2(roi_maps(maps, boxes, self.temporal.stride))

    # -------------------------------------------------------------------------------------------------
    # proposals
    def propose(self, frames: Tensor, spatial: Tensor, top: int | None = None) -> list[Tensor]:
        """Proposals by the current RPN without any label: B tensors (K_i, 4), best first, at most
        `top`.
        """
        with _testing(self.rpn), torch.no_grad():
            boxes, _ = self.rpn(_images(frames), {"0": spatial})
        return [b[:top] for b in boxes]

    def training_proposals(self, frames: Tensor, spatial: Tensor, boxes: list[Tensor]):
        """Proposals and the two RPN losses of labelled frames."""
        proposals, losses = self.rpn(_images(frames), {"0": spatial}, [{"boxes": b} for b in boxes])
        return proposals, losses["loss_objectness"], losses["loss_rpn_box_reg"]

    # --------------------------------------------------------------------------------------------------
    # training
    def source_step(self, batch: dict) -> tuple[dict[str, Tensor], Aspects]:
        """The four terms of Eq. (1) on labelled frames, and what the discriminators see of them."""
        check_batch(batch, self.n_classes)
        frames, size = batch["keyframe"], tuple(batch["keyframe"].shape[-2:])
        spatial = self.keyframe(frames)
        proposals, rpn_cls, rpn_reg = self.training_proposals(frames, spatial, batch["boxes"])
        s = self.settings
        samples = [
            self.sampler(torch.cat([p, t, jittered(t, s.jitter_copies, s.jitter, size)]), t, y)
            for p, t, y in zip(proposals, batch["boxes"], batch["labels"])
        ]
        mean, maps = self.temporal_maps(batch["clip"])
        boxes = [x.boxes for x in samples]
        vectors = self.roi_vectors(maps, boxes)
        roi_cls, roi_reg = roi_losses(self.classify(vectors), self.regress(vectors), samples)
        losses = {"rpn_cls": rpn_cls, "rpn_reg": rpn_reg, "roi_cls": roi_cls, "roi_reg": roi_reg}
        return losses, Aspects(spatial, mean, list(vectors.split([len(b) for b in boxes])))

    def target_step(self, batch: dict, instances: bool = True) -> Aspects:
        """What the discriminators see of unlabelled frames; `boxes` and `labels` of the batch are
        never read.

        The instances are those of the best current proposals, without any ground truth.
        """
        spatial = self.keyframe(batch["keyframe"])
        mean, maps = self.temporal_maps(batch["clip"])
        if not instances:
            return Aspects(spatial, mean, [])
        boxes = self.propose(batch["keyframe"], spatial, self.settings.target_proposals)
        return Aspects(
            spatial, mean, list(self.roi_vectors(maps, boxes).split([len(b) for b in boxes]))
        )

    # ------------------------------------------------------------------------------------------------
    # evaluation
    @torch.no_grad()
    def detect(self, batch: dict) -> list[dict[str, Tensor]]:
        """Per frame `boxes` (n, 4), `scores` (n,), `labels` (n,), and `proposals` (K, 4) best
        first.
        """
        frames = batch["keyframe"]
        proposals = self.propose(frames, self.keyframe(frames))
        vectors = self.roi_vectors(self.temporal_maps(batch["clip"])[1], proposals)
        found = final_detections(
            self.classify(vectors),
            self.regress(vectors),
            proposals,
            tuple(frames.shape[-2:]),
            self.settings.detect,
        )
        return [{**f, "proposals": p} for f, p in zip(found, proposals)]


def check_batch(batch: dict, n_classes: int) -> None:
    """Refuse what would train silently on nonsense: unlabelled boxes, boxes without area or outside
    the frame.
    """
    height, width = batch["keyframe"].shape[-2:]
    for i, (boxes, labels) in enumerate(zip(batch["boxes"], batch["labels"], strict=True)):
        if boxes.shape != (len(labels), 4):
            raise NbkitError(
                f"frame {i} of the batch: {len(labels)} labels, boxes of shape {tuple(boxes.shape)}"
            )
        if len(labels) == 0:
            continue
        if labels.min() < 0 or labels.max() >= n_classes:
            raise NbkitError(
                f"frame {i} of the batch: labels {labels.tolist()} are not in 0..{n_classes - 1}; "
                "a frame of the unlabelled domain was given as a labelled one"
            )
        if (
            (boxes[:, 2:] <= boxes[:, :2]).any()
            or (boxes < 0).any()
            or (boxes[:, 2:].amax(0) > boxes.new_tensor([width, height])).any()
        ):
            raise NbkitError(
                f"frame {i} of the batch: a box has no area or leaves the {width}x{height} frame: "
                f"{boxes.tolist()}; clean the boxes first"
            )


def _images(frames: Tensor) -> ImageList:
    return ImageList(frames, [tuple(frames.shape[-2:])] * len(frames))


@contextmanager
def _testing(rpn: RegionProposalNetwork):
    """torchvision's RPN asks for labels unless it is in test mode; only its own flag matters, it
    has no other state.
    """
    before, rpn.training = rpn.training, False
    try:
        yield
    finally:
        rpn.training = before
