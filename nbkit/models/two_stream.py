"""The two-stream network: per modality an encoder, a projection to D, an aggregation over clips and
a classifier.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from nbkit.config.recognition import RunConfig
from nbkit.models.aggregation import make_aggregation
from nbkit.models.norm import DomainNorm, convert_batchnorm
from nbkit.models.small import FrameFeatureEncoder, SmallEncoder


class StreamOutput(NamedTuple):
    """What one stream says of a batch."""

    v: torch.Tensor  # (B, K, D) clip features
    V: torch.Tensor  # (B, D) video features
    clip_logits: torch.Tensor  # (B, K, C)
    video_logits: torch.Tensor  # (B, C)


class Stream(nn.Module):
    """One modality.  `forward((B, K, ...)) -> StreamOutput`; `head` is what Eqs. 1-4 see of v and
    V.
    """

    def __init__(self, encoder: nn.Module, cfg: RunConfig, num_classes: int):
        super().__init__()
        dim = cfg.model.feature_dim
        self.encoder = encoder
        self.project = nn.Linear(encoder.out_features, dim)
        self.aggregate = make_aggregation(cfg.model.aggregation, dim, cfg.data.clips)
        self.dropout = nn.Dropout(cfg.model.dropout)
        self.classifier = nn.Linear(dim, num_classes)
        self.head = nn.Identity() if cfg.model.head == "none" else ProjectionHead(dim, cfg.model.bn_mode)

    def clip_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, ...) -> v (B, K, D)."""
        b, k = x.shape[:2]
        return self.project(self.encoder(x.flatten(0, 1))).unflatten(0, (b, k))

    def forward(self, x: torch.Tensor) -> StreamOutput:
        v = self.clip_features(x)  # (B, K, D)
        V = self.aggregate(v)  # (B, D)
        return StreamOutput(
            v, V, self.classifier(self.dropout(v)), self.classifier(self.dropout(V))
        )


class ProjectionHead(nn.Module):
    """MLP D -> D -> D/2 with a last normalisation that has no scale: without it the contrastive
    features collapse.
    """

    def __init__(self, dim: int, bn_mode: str):
        super().__init__()
        self.out_features = dim // 2
        self.fc1, self.norm1 = nn.Linear(dim, dim), DomainNorm(dim, bn_mode)
        self.fc2, self.norm2 = nn.Linear(dim, dim // 2), DomainNorm(dim // 2, bn_mode, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (..., D) -> (..., D/2)
        flat = torch.relu(self.norm1(self.fc1(x.flatten(0, -2))))
        return self.norm2(self.fc2(flat)).unflatten(0, x.shape[:-1])


class TwoStream(nn.Module):
    """The streams of `cfg.data.modalities`, fused late: the prediction is the mean of the streams'
    softmax outputs.
    """

    def __init__(self, cfg: RunConfig, num_classes: int):
        super().__init__()
        self.cls_on = cfg.model.cls_on
        self.streams = nn.ModuleDict(
            {m: Stream(make_encoder(m, cfg), cfg, num_classes) for m in cfg.streams}
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, StreamOutput]:
        """Batch with `rgb (B,K,3,T,H,W)` and/or `flow (B,K,2,T,H,W)` -> one `StreamOutput` a
        stream.
        """
        return {m: stream(batch[m]) for m, stream in self.streams.items()}

    def logits(self, out: StreamOutput) -> list[torch.Tensor]:
        """The logits (B, C) that `cls_on` trains and reads: clips (their mean, TSN consensus),
        video, or both.
        """
        clip = out.clip_logits.mean(dim=1)  # (B, C)
        return {"clip": [clip], "video": [out.video_logits], "both": [clip, out.video_logits]}[
            self.cls_on
        ]

    def probabilities(self, outputs: dict[str, StreamOutput]) -> dict[str, torch.Tensor]:
        """Class probabilities (B, C) by stream, and `fused`, their mean."""
        probs = {
            m: torch.stack([z.softmax(-1) for z in self.logits(out)]).mean(0)
            for m, out in outputs.items()
        }
        return {**probs, "fused": torch.stack(list(probs.values())).mean(0)}


def make_encoder(stream: str, cfg: RunConfig) -> nn.Module:
    """The clip encoder of `cfg.model.backbone` for `stream`; it has `out_features` and owns its input
    normalisation.
    """
    if cfg.model.backbone == "small":
        return SmallEncoder(stream, cfg.model.bn_mode)
    if cfg.model.backbone == "mobilenet_features":
        return FrameFeatureEncoder(bn_mode=cfg.model.bn_mode, dropout=cfg.model.dropout)
    return _published(stream, cfg)


def _published(stream: str, cfg: RunConfig) -> nn.Module:
    """A backbone with published weights: `cfg.model.weights` (a file) or its own default;
    `weights='random'` loads none.
    """
    channels = 3 if stream == "rgb" else 2
    if cfg.model.backbone == "mobilenet":
        from nbkit.models.mobilenet import MobileNetEncoder

        weights = {None: "imagenet", "random": None}.get(
            cfg.model.weights, cfg.model.weights
        )  # ImageNet's come with the installation
        return MobileNetEncoder(stream, cfg.model.bn_mode, weights)
    if cfg.model.backbone == "bn_inception":
        from nbkit.models.bn_inception import BNInception

        encoder, key = BNInception(channels), "bn_inception"
    else:
        from nbkit.models.i3d import InceptionI3D

        encoder, key = InceptionI3D(channels), f"i3d_{stream}"
    if cfg.model.weights != "random":
        from nbkit.models.weights import load_pretrained

        load_pretrained(encoder, cfg.model.weights or key)
    return convert_batchnorm(encoder, cfg.model.bn_mode)
