"""The demo's networks that come with the repository, in `models/`: tools/models.py writes them.

    networks.json         the file and its sha256 by the key of the stage that it ends
    <name>.safetensors    weights in half precision
    runs/<run>/           the small files of the run that trained them, as the run store has them

A key is a hash of configuration, method and data: another configuration, or other videos, finds
nothing.  Notebooks read this folder where a machine has no run of its own; `run` never does, so
that every number of a table has been trained.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from nbkit.config import ROOT
from nbkit.config.recognition import RunConfig
from nbkit.files import Name
from nbkit.train.store import Run, finished, read_run, run_folder

MODELS = ROOT / "models"


class ShippedNetwork(BaseModel):
    """One line of networks.json."""

    name: Name
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


# networks.json: networks by the key of their last stage
INDEX = TypeAdapter(dict[str, ShippedNetwork])


def shipped_weights(key: str) -> tuple[Path, dict[str, Tensor]] | None:
    """File and weights of the network at the end of the stage `key`; None where none is shipped.

    A file that is absent, damaged or another than the one that was written is not used: a warning
    names it.
    """
    path = MODELS / "networks.json"
    try:
        if not path.exists():
            return None  # a copy of the package alone
        network = INDEX.validate_json(path.read_bytes()).get(key)
        if network is None:
            return None
        path = MODELS / f"{network.name}.safetensors"
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != network.sha256:
            raise ValueError("its sha256 is not the one in networks.json")
        return path, load(content)
    except (OSError, ValueError, SafetensorError) as error:
        text = " ".join(str(error).split())[:200]
        warnings.warn(
            f"{path}: not used as a shipped network ({text}). `git checkout -- models` restores it",
            stacklevel=2,
        )
        return None


def run_or_shipped(cfg: RunConfig, data_key: str) -> Run | None:
    """The finished run of a configuration on this data, else the one in models/, else None.

    With SHIPPED = False this machine's alone.
    """
    own = run_folder(cfg, data_key)
    folders = [own, MODELS / "runs" / own.name] if cfg.watch.shipped else [own]
    for folder in folders:
        if finished(folder):
            return read_run(cfg, folder)
    return None
