"""The two-stream network: per stream encoder, projection to D, aggregation, classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nbkit.errors import NbkitError
from nbkit.models.norm import DomainNorm, convert_batchnorm, repeating

if TYPE_CHECKING:
    from nbkit.config.recognition import RunConfig

Attention = Callable[[Tensor], Tensor]
View = Callable[[Tensor], Tensor]
SUBSAMPLE = 3  # tuples of clips per scale, the value of TRN and TA3N


class StreamOutput(NamedTuple):
    """What one stream says of a batch."""

    v: Tensor  # (B, K, D) clip features
    V: Tensor  # (B, D) video features
    clip_logits: Tensor  # (B, K, C)
    video_logits: Tensor  # (B, C)


# --- from K clip features v (B, K, D) to one video feature V (B, D) ------------------------------
class Mean(nn.Module):
    """Average of the clips.  Blind to their order, so order negatives are left out with it."""

    def forward(self, v: Tensor) -> Tensor:
        return v.mean(dim=1)


class ConcatFC(nn.Module):
    """Concatenation of the K clips and one linear layer K*D -> D."""

    def __init__(self, dim: int, clips: int):
        super().__init__()
        self.fc = nn.Linear(clips * dim, dim)

    def forward(self, v: Tensor) -> Tensor:
        return self.fc(v.flatten(1))


class LastGRU(nn.Module):
    """One-layer GRU with D hidden units over the clips; the last state."""

    def __init__(self, dim: int):
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, v: Tensor) -> Tensor:
        return self.gru(v)[1][0]


class Relations(nn.Module):
    """TRN-M (Zhou et al., ECCV 2018), the aggregation of TA3N: relations of K, ..., 2 clips.

    A relation of n clips is ReLU(linear(ReLU(their concatenation))), summed over its tuples. Its
    size is D (256 in the paper), so that the same classifier reads it. V is the sum of the K - 1
    relations; `attention` maps them (B, K-1, D) to weights w (B, K-1), and each then counts 1 + w
    times. Raises NbkitError for a single clip, which has no relations.
    """

    def __init__(self, dim: int, clips: int):
        super().__init__()
        if clips < 2:
            raise NbkitError(
                f"CLIPS={clips}: relations between clips (AGGREGATION='trn', METHOD='ta3n') need "
                "at least 2"
            )
        scales = range(clips, 1, -1)
        for n in scales:  # on the device: a copy from the host would make every step wait
            chosen = torch.tensor(clip_tuples(clips, n))
            self.register_buffer(f"tuples_{n}", chosen, persistent=False)
        self.fuse = nn.ModuleList(nn.Linear(n * dim, dim) for n in scales)

    def relations(self, v: Tensor) -> Tensor:
        """(B, K, D) -> (B, K-1, D), the largest scale first."""
        found = []
        for row, fuse in enumerate(self.fuse):
            tuples = self.get_buffer(f"tuples_{len(self.fuse) + 1 - row}")
            chosen = v[:, tuples].relu()  # (B, tuples, n, D)
            found.append(torch.relu(fuse(chosen.flatten(2))).sum(1))  # (B, D)
        return torch.stack(found, dim=1)

    def forward(self, v: Tensor, attention: Attention | None = None) -> Tensor:
        R = self.relations(v)  # (B, K-1, D)
        if attention is None:
            return R.sum(1)
        return ((1 + attention(R)).unsqueeze(-1) * R).sum(1)


def clip_tuples(clips: int, scale: int) -> list[tuple[int, ...]]:
    """At most 3 of the ordered `scale`-tuples of `clips` clips, evenly spread over their list."""
    every = list(combinations(range(clips), scale))
    count = min(SUBSAMPLE, len(every))
    return [every[-(-i * len(every) // count)] for i in range(count)]


def make_aggregation(kind: str, dim: int, clips: int) -> nn.Module:
    """`kind` in mean | concat_fc | gru (Table 6a) | trn, for K=`clips` features of size `dim`."""
    if kind == "mean":
        return Mean()
    if kind == "concat_fc":
        return ConcatFC(dim, clips)
    if kind == "gru":
        return LastGRU(dim)
    return Relations(dim, clips)


# --- the network ---------------------------------------------------------------------------------
class ProjectionHead(nn.Module):
    """MLP D -> D -> D/2 before Eqs. (1)-(4).

    Its last normalisation has no scale: with one the contrastive features collapse.
    """

    def __init__(self, dim: int, bn_mode: str):
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(dim, dim), DomainNorm(dim, bn_mode)
        self.fc2, self.norm2 = nn.Linear(dim, dim // 2), DomainNorm(dim // 2, bn_mode, affine=False)

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D/2)
        flat = torch.relu(self.norm1(self.fc1(x.flatten(0, -2))))
        return self.norm2(self.fc2(flat)).unflatten(0, x.shape[:-1])


class Stream(nn.Module):
    """One modality.  `head` is what Eqs. (1)-(4) see of v and V."""

    def __init__(self, modality: str, cfg: RunConfig, num_classes: int):
        super().__init__()
        dim = cfg.model.feature_dim
        self.modality, self.at_once = modality, cfg.optim.clips_at_once
        self.half = cfg.optim.precision == "bf16-mixed"
        self.encoder = make_encoder(modality, cfg)
        self.project = nn.Linear(self.encoder.out_features, dim)
        self.aggregate = make_aggregation(cfg.model.aggregation, dim, cfg.data.clips)
        self.dropout = nn.Dropout(cfg.model.dropout)
        self.classifier = nn.Linear(dim, num_classes)
        self.head = nn.Identity()
        if cfg.model.head == "mlp":
            self.head = ProjectionHead(dim, cfg.model.bn_mode)

    def clip_features(self, x: Tensor, view: View | None = None) -> Tensor:
        """Clips (B, K, ...), floats or bytes, -> v (B, K, D); `view` changes their floats first.

        With `at_once`, chunks of so many clips pass one after the other.  A training pass keeps
        nothing of a chunk but its features, and computes it again on the way back.
        """
        clips = x.flatten(0, 1)  # (B K, ...)
        grad = torch.is_grad_enabled()
        if self.at_once is None or (grad and not self.training):  # hooks of Grad-CAM see one pass
            encoded = self.encode(clips, view)
        else:
            chunks = clips.tensor_split(-(-len(clips) // self.at_once))
            run = self.encode_again if grad else self.encode
            encoded = torch.cat([run(chunk, view) for chunk in chunks])  # (B K, out_features)
        return self.project(encoded).unflatten(0, x.shape[:2])

    def encode(self, clips: Tensor, view: View | None) -> Tensor:
        """Clips (N, ...) -> (N, out_features), in float32 at least."""
        from nbkit.data.pixels import floats  # here: methods stay quick to import

        clips = floats(clips, self.modality)
        if view is not None:
            clips = view(clips)
        if not (self.half and self.training):
            return self.encoder(clips)
        with torch.autocast(clips.device.type, torch.bfloat16):
            return self.encoder(clips).float()

    def encode_again(self, clips: Tensor, view: View | None) -> Tensor:
        """`encode`, which keeps its input alone and is computed again for the backward pass."""

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), repeating(self.encoder)

        return checkpoint(self.encode, clips, view, use_reentrant=False, context_fn=contexts)

    def forward(self, x: Tensor, attention: Attention | None = None) -> StreamOutput:
        """Clips (B, K, ...) through the stream; `attention` weighs the relations of 'trn'."""
        v = self.clip_features(x)  # (B, K, D)
        options = {} if attention is None else {"attention": attention}
        V = self.aggregate(v, **options)  # (B, D)
        clip_logits = self.classifier(self.dropout(v))  # (B, K, C)
        return StreamOutput(v, V, clip_logits, self.classifier(self.dropout(V)))


class TwoStream(nn.Module):
    """The streams of `cfg.data.modalities`, fused late: the mean of their softmax outputs."""

    def __init__(self, cfg: RunConfig, num_classes: int):
        super().__init__()
        self.cls_on = cfg.model.cls_on
        self.streams = nn.ModuleDict({m: Stream(m, cfg, num_classes) for m in cfg.streams})

    def forward(
        self, batch: dict[str, Tensor], attention: Mapping[str, Attention] | None = None
    ) -> dict[str, StreamOutput]:
        """Batch with `rgb (B,K,3,T,H,W)` and/or `flow (B,K,2,T,H,W)` -> an output per stream."""
        attention = attention or {}
        return {m: stream(batch[m], attention.get(m)) for m, stream in self.streams.items()}

    def logits(self, out: StreamOutput) -> list[Tensor]:
        """The logits (B, C) that `cls_on` trains and reads: clips (their mean), video, both."""
        clip = out.clip_logits.mean(dim=1)  # (B, C)
        both = {"clip": [clip], "video": [out.video_logits], "both": [clip, out.video_logits]}
        return both[self.cls_on]

    def probabilities(self, outputs: dict[str, StreamOutput]) -> dict[str, Tensor]:
        """Class probabilities (B, C) by stream, and `fused`, their mean."""
        found = {}
        for m, out in outputs.items():
            found[m] = torch.stack([z.softmax(-1) for z in self.logits(out)]).mean(0)
        return {**found, "fused": torch.stack(list(found.values())).mean(0)}


def make_encoder(stream: str, cfg: RunConfig) -> nn.Module:
    """The clip encoder of `cfg.model.backbone`; it has `out_features` and normalises its input.

    Backbones with published weights read `cfg.model.weights` (a file), else their own; 'random'
    reads none. Each backbone is imported when it is asked for: methods stay quick to import.
    """
    kind, mode, weights = cfg.model.backbone, cfg.model.bn_mode, cfg.model.weights
    channels = {"rgb": 3, "flow": 2}[stream]
    if kind == "small":
        from nbkit.models.small import SmallEncoder

        return SmallEncoder(stream, mode)
    if kind == "mobilenet_features":
        from nbkit.models.small import FrameFeatureEncoder

        return FrameFeatureEncoder(bn_mode=mode, dropout=cfg.model.dropout)
    if kind == "i3d_features":
        from nbkit.models.i3d import ClipFeatureEncoder

        return ClipFeatureEncoder(mode, cfg.model.dropout)
    if kind == "mobilenet":
        from nbkit.models.mobilenet import MobileNetEncoder

        # ImageNet's weights come with the installation.
        chosen = {None: "mobilenet_v2", "random": None}.get(weights, weights)
        return MobileNetEncoder(stream, mode, chosen)
    if kind == "bn_inception":
        from nbkit.models.bn_inception import BNInception

        encoder, published = BNInception(channels), "bn_inception"
    else:
        from nbkit.models.i3d import InceptionI3D

        encoder, published = InceptionI3D(channels), f"i3d_{stream}"
    if weights != "random":
        from nbkit.models.weights import load_pretrained

        load_pretrained(encoder, weights or published)
    return convert_batchnorm(encoder, mode)
