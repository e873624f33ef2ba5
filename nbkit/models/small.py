"""Small clip encoders: a 3-D network that trains from scratch on a CPU, and a head on features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nbkit.models.norm import DomainNorm, Mode

CHANNELS = {"rgb": 3, "flow": 2}
# Rough standard deviation of the demo's flow in [-1, 1].
_FLOW_STD = 0.15


def _block(
    c_in: int, c_out: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], mode: Mode
) -> nn.Sequential:
    padding = tuple(side // 2 for side in kernel)
    return nn.Sequential(
        nn.Conv3d(c_in, c_out, kernel, stride, padding, bias=False),
        DomainNorm(c_out, mode),
        nn.ReLU(inplace=True),
    )


class SmallEncoder(nn.Module):
    """Four convolutions over space and time, (N, C, T, H, W) -> (N, `out_features`).

    About 0.3 M parameters.  Input ranges: RGB [0, 1], flow [-1, 1].  The first layer is spatial
    only; the others see three frames at a time, so the order of frames matters.
    """

    sees_pictures = False
    sees_order = True

    def __init__(self, stream: str, bn_mode: Mode = "per_domain", width: int = 16):
        super().__init__()
        w = width
        self.stream, self.out_features = stream, 8 * w
        self.layers = nn.Sequential(
            _block(CHANNELS[stream], w, (1, 3, 3), (1, 2, 2), bn_mode),  # (N, w, T, H/2, W/2)
            _block(w, 2 * w, (3, 3, 3), (2, 2, 2), bn_mode),  # (N, 2w, T/2, H/4, W/4)
            _block(2 * w, 4 * w, (3, 3, 3), (2, 2, 2), bn_mode),  # (N, 4w, T/4, H/8, W/8)
            _block(4 * w, 8 * w, (3, 3, 3), (1, 2, 2), bn_mode),  # (N, 8w, T/4, H/16, W/16)
        )
        self.gradcam_layers = self.gradcam_chain = list(self.layers)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalise(x).contiguous(memory_format=torch.channels_last_3d)
        return self.layers(x).mean(dim=(2, 3, 4))  # (N, 8w)

    def normalise(self, x: Tensor) -> Tensor:
        """Bring flow to unit variance; in RGB, every channel of a clip to mean 0 and variance 1.

        So the network need not learn light and contrast.
        """
        if self.stream == "flow":
            return x / _FLOW_STD
        x = x - x.mean((2, 3, 4), keepdim=True)  # (N, 3, T, H, W)
        norm = torch.linalg.vector_norm(x, dim=(2, 3, 4), keepdim=True)  # (N, 3, 1, 1, 1)
        std = norm / math.sqrt(x[0, 0].numel())
        return x / (std + 1e-3)


class FrameFeatureEncoder(nn.Module):
    """Light trainable head over frozen frame features, (N, T, F) -> (N, `out_features`).

    One linear layer for every frame, a temporal convolution with three taps, and a mean over time.
    """

    sees_pictures = False
    sees_order = True
    gradcam_layers: list[nn.Module] = []  # features have no places left
    gradcam_chain = None

    def __init__(
        self,
        in_features: int = 1280,
        bn_mode: Mode = "per_domain",
        hidden: int = 128,
        out_features: int = 256,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.norm_in = DomainNorm(in_features, bn_mode, affine=False)
        self.drop = nn.Dropout(dropout)
        self.reduce = nn.Linear(in_features, hidden)
        self.conv = nn.Conv1d(hidden, out_features, 3, padding=1, bias=False)
        self.norm_out = DomainNorm(out_features, bn_mode)
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:  # (N, T, F)
        frames = self.norm_in(x.flatten(0, 1))  # (N T, F)
        frames = self.reduce(self.drop(frames))  # (N T, hidden)
        clips = frames.unflatten(0, x.shape[:2]).transpose(1, 2)  # (N, hidden, T)
        clips = torch.relu(self.norm_out(self.conv(clips)))  # (N, out, T)
        return clips.mean(dim=2)  # (N, out)
