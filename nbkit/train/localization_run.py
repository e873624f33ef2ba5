"""One row of a localization table from data to scores, and its run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from lightning_fabric import Fabric

from nbkit.config import digest
from nbkit.config.localization import LocalizationConfig
from nbkit.data.frame_cache import build_frame_cache
from nbkit.data.keyframes import KeyframeDataset
from nbkit.data.store import fingerprint
from nbkit.errors import NbkitError
from nbkit.files import atomically, write_json
from nbkit.models.localizer import Localizer
from nbkit.train.localization import LocalizationModel, load_detector, train_localizer
from nbkit.train.localization_eval import Scores, adapt_statistics, evaluate
from nbkit.train.record import commit, environment

#: name of a table row -> adaptation modules; the paper prints all but 'T_img + T_ins'
ROWS: dict[str, tuple[str, ...]] = {
    "I3D+RPN": (),
    "T_img": ("t_img",),
    "T_ins": ("t_ins",),
    "S_img": ("s_img",),
    "T_img + T_ins": ("t_img", "t_ins"),
    "T_img + S_img": ("t_img", "s_img"),
    "T_ins + S_img": ("t_ins", "s_img"),
    "all three": ("t_img", "t_ins", "s_img"),
    "AdaBN": (),
    "oracle": (),
}


@dataclass
class LocalizationData:
    """`source`: labelled training frames. `target`: the unlabelled domain's. `oracle`: the same
    videos with labels, for the upper-bound row alone. `test`: every frame of the target's test
    videos.
    """

    classes: list[str]
    source: KeyframeDataset
    target: KeyframeDataset
    oracle: KeyframeDataset
    test: KeyframeDataset
    key: str  # hash of the resolved table and of the videos' contents
    boxes: str  # hash of the annotation files


def load_localization(
    table: pd.DataFrame,
    classes: Sequence[str],
    source: str,
    target: str,
    cfg: LocalizationConfig,
    cache_dir: str | Path,
    *,
    split: str = "test",
    progress: bool = False,
) -> LocalizationData:
    """Frames and boxes of both domains, decoded once.

    table: a resolved table with the columns `video`, `path`, `class_name`, `label`, `domain`,
    `split`, `boxes`. Raises NbkitError where a domain or split is empty, or a source class has no
    video.
    """
    rows = table[table["domain"].isin([source, target])]
    if "boxes" not in rows or (rows["boxes"].fillna("") == "").any():
        raise NbkitError(
            "localization needs boxes for every video of the table; run `nbkit check-data`"
        )
    cache = build_frame_cache(rows, cache_dir, size=(cfg.data.height, cfg.data.width), progress=progress)

    def part(domain: str, which: str) -> pd.DataFrame:
        found = rows[(rows["domain"] == domain) & (rows["split"] == which)].reset_index(drop=True)
        if found.empty:
            raise NbkitError(f"{domain}: no {which} videos with boxes")
        return found

    train = part(source, "train")
    missing = [c for i, c in enumerate(classes) if i not in set(train["label"])]
    if missing:
        raise NbkitError(f"{source}: no training video of class {', '.join(missing)}")
    clip = {"clip_len": cfg.data.clip_len, "clip_stride": cfg.data.clip_stride, "seed": cfg.seed}
    fit = {**clip, "key_stride": cfg.data.key_stride, "augment": cfg.data.augment}
    return LocalizationData(
        list(classes),
        source=KeyframeDataset(cache, train, background=cfg.data.background, **fit),
        target=KeyframeDataset(cache, part(target, "train"), withhold_labels=True, **fit),
        oracle=KeyframeDataset(cache, part(target, "train"), background=cfg.data.background, **fit),
        test=KeyframeDataset(cache, part(target, split), key_stride=1, background=True, **clip),
        key=digest(
            rows[["video", "label", "domain", "split"]].to_csv(index=False) + str(cache.folder.name)
        ),
        boxes=_annotation_print(rows["boxes"]),
    )


def _annotation_print(paths: Iterable[str]) -> str:
    found = [Path(p) for p in sorted(set(paths))]
    files = [f for p in found for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
    return digest([fingerprint(f) for f in files])


def refuse_other_data(folder: Path, data: LocalizationData) -> None:
    """NbkitError where a run was begun or finished with other videos, splits or boxes than `data`
    holds.
    """
    path = Path(folder) / "config.json"
    begun = json.loads(path.read_text()) if path.is_file() else {}
    if begun.get("data", data.key) != data.key or begun.get("boxes", data.boxes) != data.boxes:
        raise NbkitError(
            f"{folder}: this run was made with other videos, splits or boxes than those there are now; "
            "delete it and run `nbkit run-localization` (or notebook 05) to train anew, or take another RUNS_DIR"
        )


def row_config(cfg: LocalizationConfig, row: str) -> LocalizationConfig:
    """The configuration of a table row; NbkitError for a name that is no row."""
    if row not in ROWS:
        raise NbkitError(f"row={row!r}: choose one of {', '.join(ROWS)}")
    if row == "AdaBN" and cfg.detector.norm != "per_domain":
        raise NbkitError(
            "AdaBN re-estimates batch statistics: it needs norm='per_domain' (the small size)"
        )
    return cfg.model_copy(update={"adapt": ROWS[row]})


def target_statistics(row: str) -> str:
    """Whose batch statistics read the target's videos: 'source' = those of training (the baseline
    has no others, and the oracle was trained on the target), 'target' = re-estimated on its
    unlabelled frames.
    """
    return "source" if row in ("I3D+RPN", "oracle") else "target"


def trained_detector(
    cfg: LocalizationConfig, row: str, folder: str | Path, data: LocalizationData
) -> Localizer:
    """The detector of a finished run as it was evaluated; read the target within `use_domain(_,
    target_statistics(row))`.
    """
    detector = load_detector(folder, cfg, data.classes)
    _fill_target_statistics(detector, cfg, row, data)
    return detector.eval()


def _fill_target_statistics(
    detector: Localizer, cfg: LocalizationConfig, row: str, data: LocalizationData, device="cpu"
) -> None:
    if cfg.detector.norm == "per_domain" and target_statistics(row) == "target":
        adapt_statistics(detector, data.target, cfg, device=device)


def run_row(
    cfg: LocalizationConfig,
    data: LocalizationData,
    row: str,
    folder: str | Path | None = None,
    *,
    fabric: Fabric | None = None,
    progress: bool = False,
) -> tuple[Scores, LocalizationModel, list[dict]]:
    """Train (or go on training, or load) one row and evaluate it on the target's test videos at the
    last step.

    With per-domain statistics the target's are re-estimated on its unlabelled frames before
    evaluation, for every row but the source-only one, so that no RoI head is judged with statistics
    that were never set. The oracle's are those it was trained with. folder: gets config.json,
    history.csv, checkpoint.pt, metrics.json, env.json and detections.npz.
    """
    cfg = row_config(cfg, row)
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    source, made_with = data.oracle if row == "oracle" else data.source, environment(fabric.device)
    if folder is not None and fabric.global_rank == 0:
        refuse_other_data(folder, data)
        write_json(
            Path(folder) / "config.json",
            {"row": row, "data": data.key, "boxes": data.boxes, **cfg.model_dump(mode="json")},
        )
        made_with = _begun_with(Path(folder), made_with)
    model, history = train_localizer(
        cfg,
        data.classes,
        source,
        data.target if cfg.adapt else None,
        folder,
        fabric=fabric,
        progress=progress,
    )
    trained = time.perf_counter()
    _fill_target_statistics(model.detector, cfg, row, data, fabric.device)
    scores, found = evaluate(
        model.detector,
        data.test,
        data.classes,
        cfg,
        domain=target_statistics(row),
        device=fabric.device,
    )
    if folder is not None and fabric.global_rank == 0:
        folder = Path(folder)
        step = float(
            np.mean([h["seconds"] for h in history])
        )  # of the logged steps: right for a resumed run, too
        seconds = {"train": step * cfg.optim.steps, "evaluate": time.perf_counter() - trained}
        write_json(folder / "env.json", {**made_with, "scored_at": commit()})
        columns = {k: getattr(found, k) for k in ("video", "frame", "label", "score", "box")}
        atomically(
            folder / "detections.npz",
            lambda p: _savez(p, columns | {"videos": np.array(data.test.videos)}),
        )
        write_json(
            folder / "metrics.json",
            {  # last: its presence says that the run is finished
                "row": row,
                "seed": cfg.seed,
                **scores.summary(),
                "videos": len(data.test.videos),
                "selection": "last step",
                "seconds": seconds,
                "finished": time.strftime("%FT%TZ", time.gmtime()),
            },
        )
    return scores, model, history


def _begun_with(folder: Path, now: dict) -> dict:
    """The environment in which the training in `folder` began: `now`, unless a checkpoint there is
    of an earlier call.
    """
    path = folder / "env.json"
    if (folder / "checkpoint.pt").is_file() and path.is_file():
        return json.loads(path.read_text())
    write_json(path, now)
    return now


def _savez(path: Path, arrays: dict) -> None:
    with path.open("wb") as file:  # np.savez would append .npz to the temporary name
        np.savez_compressed(file, **arrays)
