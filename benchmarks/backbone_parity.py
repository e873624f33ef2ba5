"""Our BN-Inception and I3D beside the public modules whose weights they load.

Compared are names, shapes, outputs and gradients.  Nothing of the peers is kept here.  Get them
first (the package needs neither):

    pip download --no-deps --no-binary :all: pretrainedmodels==0.7.4
    tar xzf pretrainedmodels-0.7.4.tar.gz
    git clone https://github.com/piergiaj/pytorch-i3d
    git -C pytorch-i3d checkout 05783d11f9632b25fe3d50395a9c9bb51f848d6d
    python benchmarks/backbone_parity.py --bn-inception pretrainedmodels-0.7.4 --i3d pytorch-i3d

Both networks get the same random weights (numpy, seeded) and the same input.  The largest
difference is given relative to the largest value of the peer's output.  Exits with 1 when one case
is over 1e-5.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nbkit.files import sha256_of
from nbkit.models.bn_inception import BNInception
from nbkit.models.i3d import InceptionI3D

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from seeded_weights import seeded_state  # noqa: E402

OUT = Path(__file__).parent / "results" / "backbone_parity.json"
TOLERANCE = 1e-5
IMAGES = [(2, 224, 224), (2, 96, 160), (3, 64, 64), (1, 256, 320)]
# The last two: odd sides, odd length.
CLIPS = [(1, 16, 224, 224), (2, 16, 112, 112), (1, 24, 97, 131), (1, 9, 64, 250)]


def import_file(name: str, place: Path) -> tuple[object, Path]:
    """Import the module file `name` found at or below `place`."""
    files = [place] if place.is_file() else sorted(place.rglob(name))
    if not files:
        sys.exit(f"{place}: no {name} there; see the head of this script")
    spec = importlib.util.spec_from_file_location(f"peer_{files[0].stem}", files[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, files[0]


def relative(ours: Tensor, peer: Tensor) -> float:
    """Largest difference over the largest value of the peer; infinite when the shapes differ."""
    if ours.shape != peer.shape:
        return float("inf")
    return ((ours - peer).abs().max() / peer.abs().max().clamp_min(1e-12)).item()


def same_state(ours: nn.Module, peer: nn.Module) -> dict:
    """Compare names and shapes, then give both the same random weights.

    The peer also has a head, which ours does not.
    """
    mine, theirs = ours.state_dict(), peer.state_dict()
    head = {name for name in theirs if name.startswith(ours.published_head + ".")}
    state = seeded_state(ours)
    ours.load_state_dict(state, strict=True)
    peer.load_state_dict(theirs | state, strict=True)
    return {
        "keys_equal": set(mine) == set(theirs) - head,
        "shapes_equal": all(mine[k].shape == theirs[k].shape for k in mine if k in theirs),
        "tensors": len(mine),
        "parameters": sum(p.numel() for p in ours.parameters()),
    }


class Pair(NamedTuple):
    """A network of ours and its peer: how both are built and what is compared."""

    ours: Callable[[], nn.Module]
    peer: Callable[[], nn.Module]
    peer_map: Callable[[nn.Module, Tensor], Tensor]  # the last map of the peer
    peer_pooled: Callable[[nn.Module, Tensor], Tensor]  # its clip features, from 7 x 7 cells
    channels: int
    sizes: list[tuple[int, ...]]


def compare(pair: Pair, ours: nn.Module, peer: nn.Module, x: Tensor, gradient: bool) -> dict:
    """Compare maps, pooled features, statistics after the pass and, if asked, all gradients."""
    map_ours = ours.features(x)
    map_peer = pair.peer_map(peer, ours.normalise(x))
    figures = {"map": relative(map_ours, map_peer)}
    if x.shape[-2:] == (224, 224):
        figures["pooled"] = relative(ours(x), pair.peer_pooled(peer, ours.normalise(x)))
    if ours.training:
        theirs = peer.state_dict()
        kept = {k: v for k, v in ours.state_dict().items() if "running" in k}
        figures["running_statistics"] = max(relative(v, theirs[k]) for k, v in kept.items())
    if gradient:
        map_ours.square().mean().backward()
        map_peer.square().mean().backward()
        figures["gradient"] = gradient_difference(ours, peer)
    return figures


def gradient_difference(ours: nn.Module, peer: nn.Module) -> float:
    """Largest difference of two gradients over the largest entry of the whole gradient.

    A bias before a batch norm has no gradient but rounding, so it cannot be its own scale.
    """
    theirs = dict(peer.named_parameters())
    largest, scale = 0.0, 0.0
    for name, parameter in ours.named_parameters():
        gap = (parameter.grad - theirs[name].grad).abs().max().item()
        largest = max(largest, gap)
        scale = max(scale, parameter.grad.abs().max().item())
    return largest / scale


def cases(pair: Pair) -> tuple[dict, list[dict]]:
    """Run all sizes in train and eval mode, with a fresh pair of networks each time.

    So no case sees the statistics of another.
    """
    rows: list[dict] = []
    state: dict = {}
    for number, size in enumerate(pair.sizes):
        for mode in ("eval", "train"):
            ours, peer = pair.ours(), pair.peer()
            state = same_state(ours, peer)
            ours.train(mode == "train")
            peer.train(mode == "train")
            shape = (size[0], pair.channels, *size[1:])
            x = torch.tensor(np.random.default_rng(number).random(shape), dtype=torch.float32)
            if pair.channels != 3:
                x = x * 2 - 1
            figures = compare(pair, ours, peer, x, gradient=number == 2)
            rows.append({"input": list(shape), "mode": mode, **figures})
            print(rows[-1], flush=True)
    return state, rows


def control(ours: nn.Module, peer: nn.Module) -> float:
    """What the figure reads when one kernel of our last block is 0.1 % larger: it must see it."""
    same_state(ours, peer)
    with torch.no_grad():
        ours.get_parameter("inception_5b_3x3.weight").mul_(1.001)
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return relative(ours.eval().features(x), peer.eval().features(ours.normalise(x)))


def bn_map(peer: nn.Module, x: Tensor) -> Tensor:
    return peer.features(x)


def bn_pooled(peer: nn.Module, x: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(peer.features(x), 7).flatten(1)


def i3d_map(peer: nn.Module, x: Tensor) -> Tensor:
    """The peer's map before its last pool (its own method pools, and needs 7 x 7 cells)."""
    for name in peer.VALID_ENDPOINTS:
        if name in peer.end_points:
            x = peer._modules[name](x)
    return x


def i3d_pooled(peer: nn.Module, x: Tensor) -> Tensor:
    return peer.extract_features(x).mean((2, 3, 4))


def pairs(bn, i3d) -> dict[str, Pair]:
    """The pairs to compare; `bn` and `i3d` are the modules of the peers."""

    def rgb_peer():
        return i3d.InceptionI3d(400, in_channels=3)

    def flow_peer():
        return i3d.InceptionI3d(400, in_channels=2)

    return {
        "bn_inception_rgb": Pair(
            BNInception, lambda: bn.BNInception(1000), bn_map, bn_pooled, 3, IMAGES
        ),
        "i3d_rgb": Pair(InceptionI3D, rgb_peer, i3d_map, i3d_pooled, 3, CLIPS),
        "i3d_flow": Pair(lambda: InceptionI3D(2), flow_peer, i3d_map, i3d_pooled, 2, CLIPS[1:]),
    }


def head_of_result(bn_file: Path, i3d_file: Path) -> dict:
    """What the result file says about the measurement itself."""
    return {
        "command": "python benchmarks/backbone_parity.py "
        "--bn-inception pretrainedmodels-0.7.4 --i3d pytorch-i3d",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": "cpu, 1 thread, float32",
        "peers": {
            "bn_inception": {
                "source": "pretrainedmodels 0.7.4 (PyPI), bninception.py",
                "sha256": sha256_of(bn_file),
            },
            "i3d": {
                "source": "piergiaj/pytorch-i3d 05783d1, pytorch_i3d.py",
                "sha256": sha256_of(i3d_file),
            },
        },
        "figure": "largest difference / largest value of the peer",
        "tolerance": TOLERANCE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bn-inception", type=Path, required=True, help="file or folder with bninception.py"
    )
    parser.add_argument(
        "--i3d", type=Path, required=True, help="file or folder with pytorch_i3d.py"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bn, bn_file = import_file("bninception.py", args.bn_inception)
    i3d, i3d_file = import_file("pytorch_i3d.py", args.i3d)
    result = head_of_result(bn_file, i3d_file)
    result["control"] = control(BNInception(), bn.BNInception(1000))
    worst, names_equal = 0.0, True
    for name, pair in pairs(bn, i3d).items():
        state, rows = cases(pair)
        figures = [v for row in rows for k, v in row.items() if k not in ("input", "mode")]
        result[name] = {**state, "worst": max(figures), "cases": rows}
        worst = max(worst, *figures)
        names_equal = names_equal and state["keys_equal"] and state["shapes_equal"]
    passed = worst <= TOLERANCE < result["control"] and names_equal
    result |= {"worst": worst, "passed": passed}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"worst {worst:.2e}, names and shapes equal: {names_equal} -> {args.out}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
