"""The spatio-temporal action detector: proposals from a key frame, classes and boxes from its clip.

Faster R-CNN whose two jobs have a backbone each (Agarwal et al., BMVC 2020).  The proposals carry
no gradient, so the losses of one branch never reach the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from nbkit.models.discriminators import Aspects, DiscriminatorShape
from nbkit.models.roi import (
    DetectSettings,
    RoiSample,
    RoiSampler,
    final_detections,
    jittered,
    roi_losses,
    roi_maps,
)


@dataclass(frozen=True)
class LocalizerSettings:
    """Numbers of the detector; the defaults are the paper size's (ours, after Faster R-CNN).

    Attributes:
        anchor_sizes: sides in pixels; anchor_ratios: height / width.
        rpn_batch: anchors per frame in the RPN loss; rpn_iou: (background below, foreground from).
        pre_nms, post_nms: proposals kept before and after suppression, (training, test).
        target_proposals: proposals of a target frame that the instance discriminator sees.
        roi_batch, roi_positive: RoIs per source frame, and the fraction on actors.
        jitter_copies, jitter: displaced copies of each labelled box among the training proposals.
        temporal_pool: average over time 'before_roi' (RoIAlign), or 'after_tf2'.
        classifier_std: of the classifier's first weights; None: torch's own, about 0.07 in `small`,
            because a few hundred steps from scratch do not get away from 0.01.
    """

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_batch: int = 256
    rpn_iou: tuple[float, float] = (0.3, 0.7)
    pre_nms: tuple[int, int] = (12000, 6000)
    post_nms: tuple[int, int] = (2000, 300)
    target_proposals: int = 128
    roi_batch: int = 128
    roi_positive: float = 0.25
    jitter_copies: int = 0
    jitter: float = 0.15
    temporal_pool: str = "before_roi"
    classifier_std: float | None = 0.01
    detect: DetectSettings = DetectSettings()
    discriminators: DiscriminatorShape = DiscriminatorShape()


class Localizer(nn.Module):
    """Detector of C actions.

    A batch is a dict: `keyframe` (B, 3, H, W) and `clip` (B, 3, T, H, W), RGB in [0, 1], the clip
    centred on the key frame; for training also `boxes`, B tensors (n_i, 4) xyxy in pixels, and
    `labels`, B tensors (n_i,) in 0..C-1.  A frame without an actor has n_i = 0.  The two branches
    are of `localizer_parts`.
    """

    def __init__(
        self, keyframe: nn.Module, temporal: nn.Module, n_classes: int, settings: LocalizerSettings
    ):
        super().__init__()
        self.settings, self.keyframe, self.temporal = settings, keyframe, temporal
        anchors = AnchorGenerator((settings.anchor_sizes,), (settings.anchor_ratios,))
        head = RPNHead(keyframe.channels, anchors.num_anchors_per_location()[0])
        self.rpn = _rpn(anchors, head, settings)
        self.classify = nn.Linear(temporal.features, n_classes + 1)  # 0 = background
        # The actor's box is the same whatever the action.
        self.regress = nn.Linear(temporal.features, 4)
        if settings.classifier_std is not None:
            nn.init.normal_(self.classify.weight, std=settings.classifier_std)
            nn.init.zeros_(self.classify.bias)
        nn.init.normal_(self.regress.weight, std=0.001)
        nn.init.zeros_(self.regress.bias)
        self.sampler = RoiSampler(settings.roi_batch, settings.roi_positive)

    # --- branches --------------------------------------------------------------------------------
    def spatial_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters of the key-frame branch and its RPN."""
        return _trainable(self.keyframe, self.rpn)

    def temporal_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters of the temporal branch with classifier and box regressor."""
        return _trainable(self.temporal, self.classify, self.regress)

    def temporal_maps(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """TF1(V), its mean over time (B, D, h, w) and what RoIAlign pools from (B, D, t, h, w)."""
        maps = self.temporal.tf1(clip)  # (B, D, t, h, w)
        mean = maps.mean(2, keepdim=True)  # (B, D, 1, h, w)
        if self.settings.temporal_pool == "before_roi":
            maps = mean
        return mean.squeeze(2), maps

    def roi_vectors(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """TF2 at the boxes: (B, D, t, h, w), B x (K_i, 4) -> (sum K_i, F)."""
        if sum(map(len, boxes)) == 0:
            return maps.new_zeros(0, self.temporal.features)
        return self.temporal.tf2(roi_maps(maps, boxes, self.temporal.stride))

    # --- proposals -------------------------------------------------------------------------------
    @torch.no_grad()
    def propose(self, frames: Tensor, spatial: Tensor, top: int | None = None) -> list[Tensor]:
        """B tensors (K_i, 4) of the current RPN without any label, best first, at most `top`."""
        # torchvision's RPN asks for labels while it trains: one that never does, with its weights.
        reader = _rpn(self.rpn.anchor_generator, self.rpn.head, self.settings)
        reader.training = False
        boxes, _ = reader(_images(frames), {"0": spatial})
        return [proposals[:top] for proposals in boxes]

    # --- training --------------------------------------------------------------------------------
    def source_step(self, batch: dict) -> tuple[dict[str, Tensor], Aspects]:
        """The four terms of Eq. (1) on labelled frames, and what the discriminators see of them."""
        frames, truth = batch["keyframe"], batch["boxes"]
        spatial = self.keyframe(frames)
        targets = [{"boxes": boxes} for boxes in truth]
        proposals, rpn = self.rpn(_images(frames), {"0": spatial}, targets)
        samples = self._samples(proposals, truth, batch["labels"], tuple(frames.shape[-2:]))
        mean, maps = self.temporal_maps(batch["clip"])
        vectors = self.roi_vectors(maps, [sample.boxes for sample in samples])
        roi_cls, roi_reg = roi_losses(self.classify(vectors), self.regress(vectors), samples)
        losses = {
            "rpn_cls": rpn["loss_objectness"],
            "rpn_reg": rpn["loss_rpn_box_reg"],
            "roi_cls": roi_cls,
            "roi_reg": roi_reg,
        }
        counts = [len(sample.boxes) for sample in samples]
        return losses, Aspects(spatial, mean, list(vectors.split(counts)))

    def _samples(
        self, proposals: list, truth: list, labels: list, size: tuple[int, int]
    ) -> list[RoiSample]:
        copies, amount = self.settings.jitter_copies, self.settings.jitter
        samples = []
        for found, boxes, classes in zip(proposals, truth, labels):
            candidates = torch.cat([found, boxes, jittered(boxes, copies, amount, size)])
            samples.append(self.sampler(candidates, boxes, classes))
        return samples

    def target_step(self, batch: dict, instances: bool = True) -> Aspects:
        """What the discriminators see of unlabelled frames; `boxes` and `labels` are never read.

        The instances are those of the best current proposals, without any ground truth.
        """
        spatial = self.keyframe(batch["keyframe"])
        mean, maps = self.temporal_maps(batch["clip"])
        if not instances:
            return Aspects(spatial, mean, [])
        boxes = self.propose(batch["keyframe"], spatial, self.settings.target_proposals)
        vectors = self.roi_vectors(maps, boxes).split([len(found) for found in boxes])
        return Aspects(spatial, mean, list(vectors))

    # --- evaluation ------------------------------------------------------------------------------
    @torch.no_grad()
    def detect(self, batch: dict) -> list[dict[str, Tensor]]:
        """Per frame `boxes` (n, 4), `scores`, `labels` (n,), `proposals` (K, 4), best first."""
        frames = batch["keyframe"]
        proposals = self.propose(frames, self.keyframe(frames))
        _, maps = self.temporal_maps(batch["clip"])
        vectors = self.roi_vectors(maps, proposals)
        logits, deltas = self.classify(vectors), self.regress(vectors)
        size = tuple(frames.shape[-2:])
        found = final_detections(logits, deltas, proposals, size, self.settings.detect)
        return [{**frame, "proposals": p} for frame, p in zip(found, proposals)]


def _rpn(anchors: AnchorGenerator, head: RPNHead, s: LocalizerSettings) -> RegionProposalNetwork:
    background, foreground = s.rpn_iou
    before = dict(zip(("training", "testing"), s.pre_nms))
    after = dict(zip(("training", "testing"), s.post_nms))
    counts = (s.rpn_batch, 0.5, before, after)
    return RegionProposalNetwork(anchors, head, foreground, background, *counts, nms_thresh=0.7)


def _images(frames: Tensor) -> ImageList:
    return ImageList(frames, [tuple(frames.shape[-2:])] * len(frames))


def _trainable(*modules: nn.Module) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]
