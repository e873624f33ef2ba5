"""Write models/ from finished runs: `make demo`, then `python -m tools.models`.

The networks are those of the demo's rows, and the one before stage 3, which notebook 04 looks at.
Weights are stored in half precision where the network then gives every target test video the
classes that it gave in its run, and in single precision elsewhere.  `nbkit/train/shipped.py` reads
the folder.  The cards in models/README.md are made from it, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save

from nbkit.errors import NbkitError
from nbkit.files import atomically, write_json
from nbkit.tables.table import Cell, load_table
from nbkit.train.checkpoint import read_checkpoint, stage_path
from nbkit.train.recognition import Prepared, prepare, restore, stage_key
from nbkit.train.selection import target_features
from nbkit.train.shipped import MODELS
from nbkit.train.store import find_run, finish, finished, read_metrics, run_folder

ROWS = ("Source only", "AdaBN", "STCL", "VCA", "STCL+VCA", "Target only")
COLUMN = "studio→street"
PAGE = MODELS / "README.md"
BLOCK = re.compile(r"(<!-- networks -->\n).*?(<!-- end -->)", re.S)
COPIED = ("env.json", "history.csv", "predictions.csv")


def cells() -> list[Cell]:
    """The cells of the demo's table whose networks are shipped, in the order of its rows."""
    return load_table("demo_table4").cells(seeds=[0], columns=[COLUMN], rows=ROWS)


def write(runs_dir: str) -> None:
    """All of models/ but the text of its README."""
    networks: dict[str, dict[str, str]] = {}
    for cell in cells():
        prepared = prepare(cell.config(runs_dir=runs_dir))
        folder = run_folder(prepared.method.cfg, prepared.domains.data_key)
        if not finished(folder):
            raise NbkitError(f"{folder}: no finished run of {cell.row}; run `make demo` first")
        write_run_files(folder, MODELS / "runs" / folder.name)
        for stage in (2, 3) if cell.row == "STCL+VCA" else (3,):
            key = stage_key(prepared.method, stage, prepared.domains.data_key)
            if key not in networks:  # AdaBN has the weights of source only
                name = slug(cell.row) + ("" if stage == 3 else f"_stage_{stage}")
                networks[key] = {"name": name, "sha256": write_network(prepared, stage, name)}
    write_json(MODELS / "networks.json", networks)


def write_run_files(folder: Path, place: Path) -> None:
    """The small files of a run, without the folders of the machine that trained it."""
    place.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(folder / name, place / name)
    config = json.loads((folder / "config.json").read_text())
    write_json(place / "config.json", {**config, "data_root": "data", "runs_dir": "runs"})
    metrics = read_metrics(folder)
    del metrics["sum"]
    finish(place, metrics)


def slug(row: str) -> str:
    """The name of a row's file."""
    return row.lower().replace(" ", "_").replace("+", "_")


def write_network(prepared: Prepared, stage: int, name: str) -> str:
    """Write the network at the end of a stage; returns the sha256 of the file."""
    method, domains = prepared.method, prepared.domains
    path = stage_path(method.cfg, stage_key(method, stage, domains.data_key))
    state = read_checkpoint(path, "model")
    if state is None:
        raise NbkitError(f"{path}: the checkpoint is absent; run `make demo` again")
    halved = {
        name: value.half() if value.is_floating_point() else value
        for name, value in state["model"].items()
    }
    same = answers(prepared, stage, state["model"], path) == answers(prepared, stage, halved, path)
    chosen = halved if same else state["model"]
    content = save({name: value.contiguous() for name, value in chosen.items()})
    atomically(MODELS / f"{name}.safetensors", lambda part: part.write_bytes(content))
    print(f"{name}: {'half' if same else 'single'} precision, {len(content) / 1e6:.2f} MB")
    return hashlib.sha256(content).hexdigest()


def answers(prepared: Prepared, stage: int, weights: dict[str, torch.Tensor], path: Path) -> dict:
    """Predicted classes of all target test videos with these weights, by stream and fused."""
    fabric, method, domains = prepared
    restore(method, stage, {"model": weights, "extra": {}}, path)
    found = target_features(method, domains, fabric.device).probs
    return {name: p.argmax(-1).tolist() for name, p in found.items()}


# --- the cards -----------------------------------------------------------------------------------
def cards() -> str:
    """One row per network, from models/ alone."""
    known = json.loads((MODELS / "networks.json").read_text())
    files = {network["name"]: network["sha256"] for network in known.values()}
    lines = [
        "| row | network | trained with | accuracy on the target's test videos, % "
        "(RGB, flow, **fused**) | training, seconds | commit | sha256 |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells():
        folder = shipped_folder(cell)
        accuracy = read_metrics(folder)["accuracy"]
        environment = json.loads((folder / "env.json").read_text())
        name = slug(cell.row) if slug(cell.row) in files else "source_only"
        scores = f"{accuracy['rgb']:.1f}, {accuracy['flow']:.1f}, **{accuracy['fused']:.1f}**"
        cfg = cell.config()
        weights = f", α = {cfg.stcl.alpha}, β = {cfg.vca.beta}" if cfg.method == "stcda" else ""
        seconds = read_metrics(folder)["train_seconds"]
        lines.append(
            f"| {cell.row} | `{name}` | `{cfg.method}`{weights} | {scores} | {seconds:.0f} | "
            f"{environment['commit']} | `{files[name][:12]}` |"
        )
    return "\n".join(lines) + "\n"


def shipped_folder(cell: Cell) -> Path:
    """The folder in models/runs of a cell; NbkitError where there is none."""
    folder = find_run(cell.config(runs_dir=str(MODELS / "runs")))
    if folder is None:
        raise NbkitError(f"models/runs holds no run of {cell.row}: `python -m tools.models`")
    return folder


def page() -> str:
    """models/README.md with its table as models/ has it."""
    return BLOCK.sub(lambda found: found[1] + cards() + found[2], PAGE.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs-dir", default="runs", help="where the finished runs are")
    write(parser.parse_args().runs_dir)
    text = page()
    atomically(PAGE, lambda part: part.write_text(text))
