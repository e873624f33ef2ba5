"""Our BN-Inception and I3D beside the public modules whose weights they load: same names, shapes,
outputs, gradients.

Nothing of the peers is kept here.  Get them first (neither is needed to use the suite):

    pip download --no-deps --no-binary :all: pretrainedmodels==0.7.4 && tar xzf
    pretrainedmodels-0.7.4.tar.gz git clone https://github.com/piergiaj/pytorch-i3d git -C
    pytorch-i3d checkout 05783d11f9632b25fe3d50395a9c9bb51f848d6d python
    benchmarks/backbone_parity.py --bn-inception pretrainedmodels-0.7.4 --i3d pytorch-i3d

Both networks get the same random weights (numpy, seeded) and the same input.  The largest
difference is given relative to the largest value of the peer's output.  Exits with 1 when one case
is over 1e-5.
"""

import argparse
import importlib.util
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nbkit.models.bn_inception import BNInception
from nbkit.models.i3d import InceptionI3D
from nbkit.models.weights import digest, seeded_state

TOLERANCE = 1e-5
IMAGES = [(2, 224, 224), (2, 96, 160), (3, 64, 64), (1, 256, 320)]
CLIPS = [
    (1, 16, 224, 224),
    (2, 16, 112, 112),
    (1, 24, 97, 131),
    (1, 9, 64, 250),
]  # the last two: odd sides, odd length


def import_file(name: str, place: Path) -> tuple[object, Path]:
    """Import the module file `name` found at or below `place`."""
    files = [place] if place.is_file() else sorted(place.rglob(name))
    if not files:
        sys.exit(f"{place}: no {name} there; see the head of this script")
    spec = importlib.util.spec_from_file_location(f"peer_{files[0].stem}", files[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, files[0]


def relative(ours: torch.Tensor, peer: torch.Tensor) -> float:
    """Largest difference over the largest value of the peer; infinite when the shapes differ."""
    if ours.shape != peer.shape:
        return float("inf")
    return ((ours - peer).abs().max() / peer.abs().max().clamp_min(1e-12)).item()


def same_state(ours: nn.Module, peer: nn.Module) -> dict:
    """Compare names and shapes, then give both the same random weights (strictly)."""
    mine, theirs = ours.state_dict(), peer.state_dict()
    state = seeded_state(ours)
    peer.load_state_dict(state, strict=True)
    ours.load_state_dict(state, strict=True)
    return {
        "keys_equal": set(mine) == set(theirs),
        "shapes_equal": all(mine[k].shape == theirs[k].shape for k in mine if k in theirs),
        "tensors": len(mine),
        "parameters": sum(p.numel() for p in ours.parameters()),
    }


def compare(
    ours: nn.Module, peer: nn.Module, x: torch.Tensor, peer_map, gradient: bool, head: bool
) -> dict:
    """Ours against the peer: map, statistics after the pass, if asked the head and all the
    parameters' gradients.
    """
    map_ours = ours.features(x)
    map_peer = peer_map(ours.normalise(x))
    figures = {"map": relative(map_ours, map_peer)}
    if head:  # the peers' pools need 7 x 7 cells
        logits = peer(
            ours.normalise(x)
        )  # (N, classes), or (N, classes, positions) of the 3-D network
        figures["head"] = relative(ours(x), logits if x.dim() == 4 else logits.mean(2))
    if ours.training:
        theirs = peer.state_dict()
        kept = {k: v for k, v in ours.state_dict().items() if "running" in k}
        figures["running_statistics"] = max(relative(v, theirs[k]) for k, v in kept.items())
    if gradient:
        map_ours.square().mean().backward()
        map_peer.square().mean().backward()
        theirs = dict(peer.named_parameters())
        # A bias before a batch norm has no gradient but rounding, so the scale is that of the whole
        # gradient.
        pairs = [(p.grad, theirs[k].grad) for k, p in ours.named_parameters() if p.grad is not None]
        scale = max(g.abs().max().item() for _, g in pairs)
        figures["gradient"] = max((a - b).abs().max().item() for a, b in pairs) / scale
    return figures


def cases(make_ours, make_peer, sizes, peer_map, channels: int) -> tuple[dict, list[dict]]:
    """All sizes in train and eval mode; a fresh pair of networks each time, so no case sees
    another's statistics.
    """
    rows, state = [], {}
    for number, size in enumerate(sizes):
        for mode in ("eval", "train"):
            ours, peer = make_ours(), make_peer()
            state = same_state(ours, peer)
            for net in (ours, peer):
                net.train(mode == "train")
                for module in net.modules():
                    if isinstance(module, nn.Dropout):
                        module.p = 0.0  # each network would throw its own dice
            shape = (size[0], channels, *size[1:])
            x = torch.tensor(np.random.default_rng(number).random(shape), dtype=torch.float32)
            x = x if channels == 3 else x * 2 - 1
            head = size[-2:] == (224, 224)
            figures = compare(ours, peer, x, peer_map(peer), gradient=number == 2, head=head)
            rows.append({"input": list(shape), "mode": mode, **figures})
            print(rows[-1], flush=True)
    return state, rows


def control(ours: nn.Module, peer: nn.Module) -> float:
    """What the figure reads when one kernel of our last block is 0.1 % larger: the comparison must
    see it.
    """
    same_state(ours, peer)
    with torch.no_grad():
        ours.get_parameter("inception_5b_3x3.weight").mul_(1.001)
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return relative(ours.eval().features(x), peer.eval().features(ours.normalise(x)))


def bn_map(peer):
    return peer.features


def i3d_map(peer):
    """The peer's map before its last pool (its own method pools, and needs 7 x 7 cells)."""

    def run(x):
        for name in peer.VALID_ENDPOINTS:
            if name in peer.end_points:
                x = peer._modules[name](x)
        return x

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bn-inception", type=Path, required=True, help="file or folder with bninception.py"
    )
    parser.add_argument(
        "--i3d", type=Path, required=True, help="file or folder with pytorch_i3d.py"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "backbone_parity.json"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    bn, bn_file = import_file("bninception.py", args.bn_inception)
    i3d, i3d_file = import_file("pytorch_i3d.py", args.i3d)
    result = {
        "command": "python benchmarks/backbone_parity.py --bn-inception pretrainedmodels-0.7.4 --i3d pytorch-i3d",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": "cpu, 1 thread, float32",
        "peers": {
            "bn_inception": {
                "source": "pretrainedmodels 0.7.4 (PyPI), bninception.py",
                "sha256": digest(bn_file),
            },
            "i3d": {
                "source": "piergiaj/pytorch-i3d 05783d1, pytorch_i3d.py",
                "sha256": digest(i3d_file),
            },
        },
        "figure": "largest difference / largest value of the peer",
        "tolerance": TOLERANCE,
    }
    runs = {
        "bn_inception_rgb": (
            lambda: BNInception(3, 1000),
            lambda: bn.BNInception(1000),
            IMAGES,
            bn_map,
            3,
        ),
        "i3d_rgb": (
            lambda: InceptionI3D(3, 400),
            lambda: i3d.InceptionI3d(400, in_channels=3),
            CLIPS,
            i3d_map,
            3,
        ),
        "i3d_flow": (
            lambda: InceptionI3D(2, 400),
            lambda: i3d.InceptionI3d(400, in_channels=2),
            CLIPS[1:],
            i3d_map,
            2,
        ),
    }
    result["control"] = control(BNInception(3, 1000), bn.BNInception(1000))
    worst, names_equal = 0.0, True
    for name, run in runs.items():
        state, rows = cases(*run)
        figures = [v for row in rows for k, v in row.items() if k not in ("input", "mode")]
        result[name] = {**state, "worst": max(figures), "cases": rows}
        worst, names_equal = (
            max(worst, *figures),
            names_equal and state["keys_equal"] and state["shapes_equal"],
        )
    result |= {"worst": worst, "passed": worst <= TOLERANCE < result["control"] and names_equal}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"worst {worst:.2e}, names and shapes equal: {names_equal} -> {args.out}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
