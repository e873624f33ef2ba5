"""Grad-CAM (Selvaraju et al., IJCV 2020) of one stream of a two-stream network: which places speak
for a class.

Two ways to the same map: `reference_cam`, a page of torch, and `package_cam`, the `grad-cam`
package.  Both return the raw map of the last feature layer; `spread` lays it over the pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.bn_inception import BNInception
from nbkit.models.i3d import InceptionI3D
from nbkit.models.mobilenet import FrozenMobileNet, MobileNetEncoder
from nbkit.models.small import FrameFeatureEncoder, SmallEncoder
from nbkit.models.two_stream import TwoStream

Placement = tuple[
    tuple[float, float], ...
]  # by axis: input coordinate of the first cell's centre, distance of centres


class StreamLogits(nn.Module):
    """One stream of a fused network, as a network of its own: what a CAM can differentiate.

    Input: the K clips of B videos, (B K, C, T, H, W); with `frames` = T, for encoders that see
    single pictures, (B K T, C, H, W), so that the package finds one map an entry.  Output: logits
    (B, classes), the mean of those that the prediction reads (`cls_on`).
    """

    def __init__(self, model: TwoStream, stream: str, clips: int, frames: int | None = None):
        super().__init__()
        self.model, self.stream, self.clips, self.frames = model, stream, clips, frames

    def forward(self, x: Tensor) -> Tensor:
        if self.frames and x.dim() == 4:
            x = x.unflatten(0, (-1, self.frames)).transpose(1, 2)  # (B K, C, T, H, W)
        with torch.backends.cudnn.flags(
            enabled=False
        ):  # cuDNN's GRU has no backward pass in evaluation mode
            out = self.model.streams[self.stream](x.unflatten(0, (-1, self.clips)))
        return torch.stack(self.model.logits(out)).mean(0)  # (B, classes)


class PictureEncoder(nn.Module):
    """A frozen image network and the trained head over its frame features, joined again: pictures
    to clip features.

    Training reads stored frame features, which have no places left; a CAM needs the map before its
    mean. (N, 3, T, H, W) in [0, 1] -> (N, out).
    """

    def __init__(self, backbone: FrozenMobileNet, head: FrameFeatureEncoder):
        super().__init__()
        self.backbone, self.head, self.map = backbone, head, nn.Identity()
        self.out_features = head.out_features

    def forward(self, x: Tensor) -> Tensor:
        n, _, frames = x.shape[:3]
        with torch.no_grad():
            pictures = (
                x.transpose(1, 2).flatten(0, 1) - self.backbone.mean
            ) / self.backbone.std  # (N T, 3, H, W)
            found = self.backbone.network.features(pictures)  # (N T, 1280, h, w)
        found = self.map(found.requires_grad_())  # frozen weights ask for no gradient; the map does
        return self.head(found.mean((2, 3)).unflatten(0, (n, frames)))


def map_layer(encoder: nn.Module, layer: int = -1) -> nn.Module:
    """The module that puts out the feature map: the last convolution (`layer` = -1), in
    `SmallEncoder` also an earlier one.

    Raises NbkitError for an encoder without places, or another `layer` than -1 elsewhere.
    """
    if isinstance(encoder, SmallEncoder) and -len(encoder.layers) <= layer < len(encoder.layers):
        return encoder.layers[layer]
    known = {
        BNInception: "map",
        InceptionI3D: "Mixed_5c",
        MobileNetEncoder: "layers",
        PictureEncoder: "map",
    }
    name = next((known[kind] for kind in known if isinstance(encoder, kind)), None)
    if name is None or layer != -1:
        raise NbkitError(
            f"{type(encoder).__name__} has no feature map {layer}; LAYER=-1 is the last one of "
            "small, bn_inception, i3d and mobilenet (stored frame features have none)"
        )
    return getattr(encoder, name)


def sees_pictures(encoder: nn.Module) -> bool:
    """Whether the encoder takes every frame as a picture (a 2-D network)."""
    return isinstance(encoder, (BNInception, MobileNetEncoder, PictureEncoder))


def reference_cam(network: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    r"""Grad-CAM, Eqs. (1) and (2) of Selvaraju et al.: the raw map of each entry, in 2-D or 3-D.

    $$a^c_k = \frac1Z \sum_p \frac{\partial y^c}{\partial A_{k,p}}, \qquad
      L^c_p = \mathrm{ReLU}\Big(\sum_k a^c_k A_{k,p}\Big)$$

    Args:
        network: (N, ...) -> logits (B, C); `layer` (inside it) puts out A (N, channels, [t,] h,
            w), p runs over its places.
        classes: int64 (B,), the class c of each row of logits.
    Returns (N, [t,] h, w), not negative.
    """
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        y = network(x)  # (B, C)
    finally:
        hook.remove()
    A = kept[0]  # (N, channels, [t,] h, w)
    (dA,) = torch.autograd.grad(
        y.gather(1, classes[:, None]).sum(), A
    )  # rows are independent: one pass serves all
    a = dA.mean(dim=tuple(range(2, A.dim())), keepdim=True)  # (N, channels, [1,] 1, 1)
    return torch.relu((a * A).sum(1)).detach()  # (N, [t,] h, w)


def package_cam(
    network: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The same by the `grad-cam` package: its raw map (N, [t,] h, w) and its scaled one (N, [T,] H,
    W).

    The scaled map of every entry is stretched to [0, 1] for itself: it says where within an entry,
    never how much.
    """
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    with GradCAM(network, [layer]) as cam:
        scaled = cam(x, targets)
        kept = cam.activations_and_grads
        raw = cam.get_cam_image(
            x, layer, targets, kept.activations[0].numpy(), kept.gradients[0].numpy()
        )
    network.zero_grad(
        set_to_none=True
    )  # the package's backward pass leaves gradients in the parameters
    return np.maximum(raw, 0), scaled


def placement(encoder: nn.Module, layer: int = -1) -> Placement | None:
    """Where the cells of the map lie on the input, by axis ([T,] H, W): centre of cell j = start +
    j * step.

    From the kernels, strides and paddings of a plain chain of convolutions (Dumoulin and Visin,
    2016, section 5): start += ((k - 1) / 2 - p) * step, then step *= s.  None for other networks:
    `spread` then centres the map.
    """
    if isinstance(encoder, SmallEncoder):
        chain: list[nn.Module] = list(
            encoder.layers[: len(encoder.layers) + layer + 1 if layer < 0 else layer + 1]
        )
    elif isinstance(encoder, MobileNetEncoder):
        chain = [encoder.layers]
    elif isinstance(encoder, PictureEncoder):
        chain = [encoder.backbone.network.features]
    else:
        return None
    convolutions = [
        m for part in chain for m in part.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))
    ]
    found = []
    for axis in range(len(convolutions[0].kernel_size)):
        start, step = 0.0, 1.0
        for m in convolutions:
            start += ((m.kernel_size[axis] - 1) / 2 - m.padding[axis]) * step
            step *= m.stride[axis]
        found.append((start, step))
    return (
        tuple(found) if len(found) == 3 else ((0.0, 1.0), *found)
    )  # a picture network keeps every frame


def weights_of_cells(
    length: int, cells: int, place: tuple[float, float] | None = None
) -> np.ndarray:
    """(length, cells): how much of each cell a pixel of one axis gets, linear between centres,
    constant beyond the last.

    place (start, step) of the centres; None: cells share the axis evenly, as
    `interpolate(align_corners=False)` has it.
    """
    start, step = place or ((length / cells - 1) / 2, length / cells)
    centres = start + step * np.arange(cells)
    return np.stack([np.interp(np.arange(length), centres, row) for row in np.eye(cells)], 1)


def spread(
    maps: np.ndarray, size: tuple[int, int, int], place: Placement | None = None
) -> np.ndarray:
    """Raw maps (..., t, h, w) over the pixels (..., T, H, W) of `size`: linear, no stretching, so
    zero stays zero.
    """
    time, rows, columns = (
        weights_of_cells(length, cells, place[i] if place else None)
        for i, (length, cells) in enumerate(zip(size, maps.shape[-3:]))
    )
    return np.einsum("...thw,Tt,Hh,Ww->...THW", maps, time, rows, columns, optimize=True)
