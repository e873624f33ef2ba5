"""Grad-CAM (Selvaraju et al., IJCV 2020) of one stream of a two-stream network.

Two ways lead to the same raw map of a feature layer, `reference_cam` and `package_cam`; `spread`
lays it over the pixels.  An encoder says itself where its maps are: `gradcam_layers`,
`gradcam_chain` (the convolutions before each, or None) and `sees_pictures`.
"""

from __future__ import annotations

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.mobilenet import FrozenMobileNet
from nbkit.models.small import FrameFeatureEncoder
from nbkit.models.two_stream import Attention, TwoStream

# By axis: input coordinate of the first cell's centre, and the distance of centres.
Placement = tuple[tuple[float, float], ...]


class StreamLogits(nn.Module):
    """One stream of a fused network, as a network of its own: what a CAM can differentiate.

    Input: the K clips of B videos, (B K, C, T, H, W); with `frames` = T, for encoders that see
    single pictures, (B K T, C, H, W), so that the package finds one map per entry.  Output: logits
    (B, classes), the mean of those that the prediction reads (`cls_on`).
    """

    def __init__(
        self,
        model: TwoStream,
        stream: str,
        clips: int,
        frames: int | None = None,
        attention: Attention | None = None,
    ):
        super().__init__()
        self.model, self.stream, self.attention = model, stream, attention
        self.clips, self.frames = clips, frames

    def forward(self, x: Tensor) -> Tensor:
        if self.frames and x.dim() == 4:
            x = x.unflatten(0, (-1, self.frames)).transpose(1, 2)  # (B K, C, T, H, W)
        clips = x.unflatten(0, (-1, self.clips))
        # cuDNN's GRU has no backward pass in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            out = self.model.streams[self.stream](clips, self.attention)
        return torch.stack(self.model.logits(out)).mean(0)  # (B, classes)


class PictureEncoder(nn.Module):
    """A frozen image network and the trained head over its frame features, joined again.

    Training reads stored frame features, which have no places left; a CAM needs the map before its
    mean. (N, 3, T, H, W) in [0, 1] -> (N, out).
    """

    sees_pictures = True

    def __init__(self, backbone: FrozenMobileNet, head: FrameFeatureEncoder):
        super().__init__()
        self.backbone, self.head, self.map = backbone, head, nn.Identity()
        self.gradcam_layers, self.gradcam_chain = [self.map], backbone.gradcam_chain
        self.out_features = head.out_features

    def forward(self, x: Tensor) -> Tensor:
        n, _, frames = x.shape[:3]
        with torch.no_grad():
            found = self.backbone.feature_map(x.transpose(1, 2).flatten(0, 1))  # (N T, 1280, h, w)
        # Frozen weights ask for no gradient; the map does.
        found = self.map(found.requires_grad_())
        return self.head(found.mean((2, 3)).unflatten(0, (n, frames)))


def map_layer(encoder: nn.Module, layer: int = -1) -> nn.Module:
    """The module that puts out the feature map: the last convolution (`layer` = -1) or another.

    Raises:
        NbkitError: the encoder has no map, or no such one.
    """
    layers = encoder.gradcam_layers
    if not -len(layers) <= layer < len(layers):
        raise NbkitError(
            f"{type(encoder).__name__} has {len(layers)} feature maps and not LAYER={layer}; "
            "LAYER=-1 is the last one of small, bn_inception, i3d and mobilenet (stored frame "
            "features have none)"
        )
    return layers[layer]


# --- the raw map ---------------------------------------------------------------------------------
def reference_cam(network: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    r"""Grad-CAM, Eqs. (1) and (2) of Selvaraju et al.: the raw map of each entry, in 2-D or 3-D.

    $$a^c_k = \frac1Z \sum_p \frac{\partial y^c}{\partial A_{k,p}}, \qquad
      L^c_p = \mathrm{ReLU}\Big(\sum_k a^c_k A_{k,p}\Big)$$

    Args:
        network: (N, ...) -> logits (B, C); `layer` (inside it) puts out A (N, channels, [t,] h,
            w), p runs over its places.
        classes: int64 (B,), the class c of each row of logits.

    Returns:
        (N, [t,] h, w), not negative.
    """
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        y = network(x)  # (B, C)
    finally:
        hook.remove()
    A = kept[0]  # (N, channels, [t,] h, w)
    # Rows are independent: one pass serves all.
    chosen = y.gather(1, classes[:, None]).sum()
    (dA,) = torch.autograd.grad(chosen, A)
    places = tuple(range(2, A.dim()))
    a = dA.mean(dim=places, keepdim=True)  # (N, channels, [1,] 1, 1)
    return torch.relu((a * A).sum(1)).detach()  # (N, [t,] h, w)


def package_cam(
    network: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The same by the `grad-cam` package.

    Returns:
        its raw map (N, [t,] h, w), and its scaled one (N, [T,] H, W).  The scaled map of every
        entry is stretched to [0, 1] by itself: it says where within an entry, never how much.
    """
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    with GradCAM(network, [layer]) as cam:
        scaled = cam(x, targets)
        kept = cam.activations_and_grads
        activations, gradients = kept.activations[0].numpy(), kept.gradients[0].numpy()
        raw = cam.get_cam_image(x, layer, targets, activations, gradients)
    # The package's backward pass leaves gradients in the parameters.
    network.zero_grad(set_to_none=True)
    return np.maximum(raw, 0), scaled


# --- from cells to pixels ------------------------------------------------------------------------
def placement(encoder: nn.Module, layer: int = -1) -> Placement | None:
    """Where the cells of the map lie on the input, by axis (T, H, W): centre j = start + j * step.

    From the kernels, strides and paddings of a plain chain of convolutions (Dumoulin and Visin,
    2016, section 5): start += ((k - 1) / 2 - p) * step, then step *= s.  None for other networks:
    `spread` then centres the map.
    """
    chain = encoder.gradcam_chain
    if chain is None:
        return None
    last = range(len(chain))[layer]
    before = nn.ModuleList(chain[: last + 1])
    convolutions = [m for m in before.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))]
    found = []
    for axis in range(len(convolutions[0].kernel_size)):
        start, step = 0.0, 1.0
        for convolution in convolutions:
            half = (convolution.kernel_size[axis] - 1) / 2
            start += (half - convolution.padding[axis]) * step
            step *= convolution.stride[axis]
        found.append((start, step))
    if encoder.sees_pictures:  # it keeps every frame
        found.insert(0, (0.0, 1.0))
    return tuple(found)


def cell_weights(
    size: tuple[int, ...], cells: tuple[int, ...], place: Placement | None = None
) -> list[np.ndarray]:
    """How much of each cell a pixel gets, by axis: (length, cells), linear between centres.

    Constant beyond the last centre.  place: None: cells share an axis evenly, as
    `interpolate(align_corners=False)` has it.
    """
    found = []
    for axis, (length, count) in enumerate(zip(size, cells)):
        start, step = (length / count - 1) / 2, length / count
        if place is not None:
            start, step = place[axis]
        centres = start + step * np.arange(count)
        rows = [np.interp(np.arange(length), centres, row) for row in np.eye(count)]
        found.append(np.stack(rows, 1))
    return found


def spread(
    maps: np.ndarray, size: tuple[int, int, int], place: Placement | None = None
) -> np.ndarray:
    """Lay raw maps (..., t, h, w) over the pixels (..., T, H, W) of `size`.

    Linear, no stretching, so zero stays zero.
    """
    axes = cell_weights(size, maps.shape[-3:], place)
    return np.einsum("...thw,Tt,Hh,Ww->...THW", maps, *axes, optimize=True)
