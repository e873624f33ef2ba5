"""How much of a network's Grad-CAM heat lies on the actor: maps of a whole test set, the actor's
mask on the same pixels.

A test clip is resized, cut and sampled in time before the network sees it.  The masks go through
the same steps here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nbkit.data.boxes import read_actor_masks
from nbkit.data.cache import VideoCache, square
from nbkit.data.clips import ClipDataset, load_batch
from nbkit.data.features import FeatureClipDataset, sampled_frames, video_pictures
from nbkit.errors import NbkitError
from nbkit.evaluate.statistics import paired_runs
from nbkit.explain.gradcam import (
    PictureEncoder,
    Placement,
    StreamLogits,
    map_layer,
    placement,
    reference_cam,
    sees_pictures,
    spread,
    weights_of_cells,
)
from nbkit.methods.base import Method
from nbkit.models.mobilenet import FrozenMobileNet
from nbkit.models.norm import use_domain
from nbkit.models.two_stream import TwoStream


class Explained(NamedTuple):
    """Predictions and raw Grad-CAM maps of N videos."""

    probs: dict[str, np.ndarray]  # by stream and 'fused' (N, C)
    labels: np.ndarray  # (N,)
    classes: np.ndarray  # (N,), the class that each map speaks for
    maps: dict[str, np.ndarray]  # by stream (N, K, t, h, w), not negative
    places: dict[str, Placement | None]


# --- what the network saw, and where the actor is on it
# -----------------------------------------------------------------
def seen_clips(
    dataset: ClipDataset | FeatureClipDataset, indices: np.ndarray, device="cpu"
) -> dict[str, Tensor]:
    """Clips by stream, (B, K, C, T, H, W).  For stored frame features: the pictures that those were
    computed from.
    """
    if isinstance(dataset, ClipDataset):
        batch = load_batch(dataset, indices)
        return {m: batch[m].to(device) for m in ("rgb", "flow")}
    cache, how = _videos_of(dataset), dataset.features.settings
    found: dict[str, list[Tensor]] = {"rgb": [], "flow": []}
    for index in indices:
        chosen = dataset.plan(int(index))[0]  # (K, T)
        for m, clips in found.items():
            every = video_pictures(
                cache, dataset.videos[index], m, ("identity",), how["frames"], how["size"]
            )
            clips.append(every[torch.from_numpy(chosen)].transpose(1, 2))  # (K, 3, T, H, W)
    return {m: torch.stack(clips).to(device) for m, clips in found.items()}


def seen_masks(
    dataset: ClipDataset | FeatureClipDataset, index: int, masks: np.ndarray | None = None
) -> np.ndarray:
    """Where the actor is on the clips of a video: (K, T, H, W) bool, pixel by pixel what
    `seen_clips` shows.

    masks (N, h, w) bool at the video file's own size (None: read from the path in the table's
    `boxes`).  A pixel of the smaller picture belongs to the actor when at least half of it does.
    Raises NbkitError for a video without masks, or with another number of them than of frames.
    """
    video, cache = dataset.videos[index], _videos_of(dataset)
    if masks is None:
        masks = read_actor_masks(dataset.table["boxes"].iloc[index], video)
    if len(masks) != cache.n_frames(video):
        raise NbkitError(
            f"{video}: {len(masks)} masks for {cache.n_frames(video)} frames; they do not belong together"
        )
    grey = np.repeat(
        masks[..., None].astype(np.float32), 2, -1
    )  # OpenCV drops an axis of one channel
    small, _ = square(grey, cache.size)  # (N, size, size, 2)
    chosen, how = dataset.plan(index)[0], dataset
    if isinstance(dataset, ClipDataset):
        _, (top, left), mirrored, _ = dataset.plan(index)
        small = small[:, top : top + how.crop, left : left + how.crop]
    else:
        settings, mirrored = dataset.features.settings, False
        small = square(small[sampled_frames(len(masks), settings["frames"])], settings["size"])[0]
    seen = small[chosen][..., 0] >= 0.5  # (K, T, H, W)
    return seen[..., ::-1] if mirrored else seen


def _videos_of(dataset) -> VideoCache:
    if isinstance(dataset, ClipDataset):
        return dataset.cache
    features = dataset.features
    return VideoCache(
        Path(features.folder).parents[1] / "cache" / f"videos-{features.settings['videos']}"
    )


def boxes_around(masks: np.ndarray) -> np.ndarray:
    """Masks (..., H, W) bool -> the same with the tight box around each filled."""

    def between(held: np.ndarray) -> np.ndarray:  # (..., L): from the first to the last True
        return (
            np.maximum.accumulate(held, -1) & np.maximum.accumulate(held[..., ::-1], -1)[..., ::-1]
        )

    return between(masks.any(-1))[..., :, None] & between(masks.any(-2))[..., None, :]


# --- maps of a test set
# -------------------------------------------------------------------------------------------------
def explainable(method: Method) -> TwoStream:
    """The method's network, from pixels: frozen layers whose output training reads from disk are
    put back in front.
    """
    model = method.model
    if method.cfg.model.backbone != "mobilenet_features":
        return model
    model, frozen = copy.deepcopy(model), FrozenMobileNet().to(next(model.parameters()).device)
    for stream in model.streams.values():
        stream.encoder = PictureEncoder(frozen, stream.encoder)
    return model.eval()


def explain(
    method: Method,
    indices: np.ndarray | None = None,
    speak_for: str = "predicted",
    layer: int = -1,
    classes: np.ndarray | None = None,
    batch: int = 32,
    model: TwoStream | None = None,
) -> Explained:
    """Predictions and Grad-CAM maps of the target's test videos, with the statistics that the
    method is tested with.

    Args:
        indices: positions in the test set (None: all).
        speak_for: the class of each map, 'predicted' (by the fused streams, as in the paper's
            Figure 5) or 'true'.
        classes: (N,) given class ids instead;  layer: see `map_layer`;  model: another network
            than the method's own.
    """
    dataset = method.domains.test["target"]
    model = (explainable(method) if model is None else model).eval()
    device = next(model.parameters()).device
    indices = np.arange(len(dataset)) if indices is None else np.asarray(indices)
    encoders = {m: s.encoder for m, s in model.streams.items()}
    rows: list[tuple[dict, np.ndarray, dict]] = []
    for start in range(0, len(indices), batch):
        part = indices[start : start + batch]
        clips = seen_clips(dataset, part, device)
        with use_domain(model, method.statistics):
            with torch.no_grad():
                probs = model.probabilities(model(clips))
            asked = (
                probs["fused"].argmax(1)
                if speak_for == "predicted"
                else torch.as_tensor(dataset.labels[part])
            )
            asked = asked if classes is None else torch.as_tensor(classes[start : start + batch])
            maps = {m: _maps(model, m, clips[m], asked.to(device), layer) for m in encoders}
        rows.append(({m: p.cpu().numpy() for m, p in probs.items()}, asked.cpu().numpy(), maps))
    return Explained(
        {m: np.concatenate([r[0][m] for r in rows]) for m in rows[0][0]},
        dataset.labels[indices],
        np.concatenate([r[1] for r in rows]),
        {m: np.concatenate([r[2][m] for r in rows]) for m in encoders},
        {m: placement(encoder, layer) for m, encoder in encoders.items()},
    )


def stream_input(model: TwoStream, stream: str, clips: Tensor, layer: int = -1):
    """What `reference_cam` and `package_cam` take for the clips (B, K, C, T, H, W) of one stream:
    network, layer, input.
    """
    encoder, x = model.streams[stream].encoder, clips.flatten(0, 1)  # (B K, C, T, H, W)
    frames = clips.shape[3] if sees_pictures(encoder) else None
    network = StreamLogits(model, stream, clips.shape[1], frames)
    return network, map_layer(encoder, layer), x.transpose(1, 2).flatten(0, 1) if frames else x


def _maps(model: TwoStream, stream: str, clips: Tensor, classes: Tensor, layer: int) -> np.ndarray:
    """(B, K, t, h, w)."""
    raw = reference_cam(*stream_input(model, stream, clips, layer), classes).cpu().numpy()
    return raw.reshape(*clips.shape[:2], -1, *raw.shape[-2:])


# --- the share of heat
# ----------------------------------------------------------------------------------------------------
def share_inside(heat: np.ndarray, inside: np.ndarray) -> float:
    """Sum of `heat` where `inside`, over its whole sum, in [0, 1]; NaN where there is no heat at
    all.
    """
    total = heat.sum()
    return float((heat * inside).sum() / total) if total > 0 else float("nan")


def heat_shares(maps: np.ndarray, masks: np.ndarray, place: Placement | None = None) -> np.ndarray:
    """Share of heat inside, a video: maps (N, K, t, h, w), masks (N, K, T, H, W) bool -> (N,), NaN
    without heat.
    """
    return np.array(
        [share_inside(spread(m, inside.shape[1:], place), inside) for m, inside in zip(maps, masks)]
    )


def ceiling_shares(
    masks: np.ndarray, cells: tuple[int, int, int], place: Placement | None = None
) -> np.ndarray:
    """The share that a map of `cells` = (t, h, w) reaches which knows the actor: each cell holds
    the mask around its centre.
    """
    size = masks.shape[-3:]
    axes = [
        weights_of_cells(n, c, place[i] if place else None)
        for i, (n, c) in enumerate(zip(size, cells))
    ]
    time, rows, columns = (
        w / w.sum(0) for w in axes
    )  # each cell's weights over the pixels, adding to 1
    known = np.einsum(
        "nkTHW,Tt,Hh,Ww->nkthw", masks.astype(np.float32), time, rows, columns, optimize=True
    )
    return heat_shares(known, masks, place)


def other_videos(n: int, seed: int = 0) -> np.ndarray:
    """(n,): for every video another one, each used once."""
    order = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, np.int64)
    other[order] = np.roll(order, 1)
    return other


def heat_table(
    shares: dict[str, dict[str, np.ndarray]], others: dict[str, dict[str, np.ndarray]]
) -> pd.DataFrame:
    """One line a row and stream, in percent: share of heat inside and its 95 % interval (bootstrap
    over videos), the same for the maps of other videos, and the number of videos without heat.

    shares, others: by row name and stream (N,), from `heat_shares`.
    """
    lines = []
    for row, streams in shares.items():
        for stream, values in streams.items():
            known = values[~np.isnan(values)]
            interval = paired_runs(100 * known, np.zeros_like(known))
            lines.append(
                {
                    "row": row,
                    "stream": stream,
                    "share": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "other videos": 100 * float(np.nanmean(others[row][stream])),
                    "without heat": int(np.isnan(values).sum()),
                }
            )
    return pd.DataFrame(lines)


def heat_differences(shares: dict[str, dict[str, np.ndarray]], baseline: str) -> pd.DataFrame:
    """Row minus `baseline`, video by video, in points: mean and 95 % interval of the videos that
    have heat in both.
    """
    lines = []
    for row in (r for r in shares if r != baseline):
        for stream, values in shares[row].items():
            gap = 100 * (values - shares[baseline][stream])
            gap = gap[~np.isnan(gap)]
            interval = paired_runs(gap, np.zeros_like(gap))
            lines.append(
                {
                    "row": f"{row} − {baseline}",
                    "stream": stream,
                    "difference": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "videos": interval.n,
                }
            )
    return pd.DataFrame(lines)
