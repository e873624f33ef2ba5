"""How much of a network's Grad-CAM heat lies on the actor, over a whole test set.

A test clip is resized, cut and sampled in time before the network sees it.  The actor's masks go
through the same steps here.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from nbkit.data.boxes import read_actor_masks
from nbkit.data.cache import square
from nbkit.data.clips import ClipDataset
from nbkit.data.features import FeatureClipDataset, sampled_frames, video_pictures
from nbkit.errors import NbkitError
from nbkit.evaluate.statistics import paired_runs
from nbkit.explain.gradcam import (
    PictureEncoder,
    Placement,
    StreamLogits,
    cell_weights,
    map_layer,
    placement,
    reference_cam,
    spread,
)
from nbkit.methods.base import Method
from nbkit.models.mobilenet import FrozenMobileNet
from nbkit.models.norm import use_domain
from nbkit.models.two_stream import Attention, TwoStream

Dataset = ClipDataset | FeatureClipDataset


class Explained(NamedTuple):
    """Predictions and raw Grad-CAM maps of N videos."""

    probs: dict[str, np.ndarray]  # by stream and 'fused' (N, C)
    labels: np.ndarray  # (N,)
    classes: np.ndarray  # (N,), the class that each map speaks for
    maps: dict[str, np.ndarray]  # by stream (N, K, t, h, w), not negative
    places: dict[str, Placement | None]


# --- what the network saw, and where the actor is on it ------------------------------------------
def seen_clips(dataset: Dataset, indices: np.ndarray, device: str = "cpu") -> dict[str, Tensor]:
    """Clips by stream, (B, K, C, T, H, W).

    For stored frame features: the pictures that those were computed from.
    """
    if isinstance(dataset, ClipDataset):
        batch = dataset.batch(indices)
        return {stream: batch[stream].to(device) for stream in ("rgb", "flow")}
    features = dataset.features
    found = {}
    for stream in ("rgb", "flow"):
        clips = []
        for index in indices:
            chosen = torch.from_numpy(dataset.plan(int(index))[0])  # (K, T)
            how = stream, ("identity",), features.frames, features.size
            pictures = video_pictures(features.videos, dataset.videos[index], *how)
            clips.append(pictures[chosen].transpose(1, 2))  # (K, 3, T, H, W)
        found[stream] = torch.stack(clips).to(device)
    return found


def seen_masks(dataset: Dataset, index: int, masks: np.ndarray | None = None) -> np.ndarray:
    """Where the actor is on the clips of a video, pixel by pixel what `seen_clips` shows.

    A pixel of the smaller picture belongs to the actor when at least half of it does.

    Args:
        masks: (N, h, w) bool at the video file's own size; None: read from the path in the table's
            `boxes`.

    Returns:
        (K, T, H, W) bool.

    Raises:
        NbkitError: the video has no masks, or another number of them than of frames.
    """
    video, pictures = dataset.videos[index], isinstance(dataset, ClipDataset)
    cache = dataset.cache if pictures else dataset.features.videos
    if masks is None:
        masks = read_actor_masks(dataset.table["boxes"].iloc[index], video)
    if len(masks) != cache.n_frames(video):
        raise NbkitError(
            f"{video}: {len(masks)} masks for {cache.n_frames(video)} frames; "
            "they do not belong together"
        )
    # OpenCV drops an axis of one channel, so there are two.
    grey = np.repeat(masks[..., None].astype(np.float32), 2, -1)
    small, _ = square(grey, cache.size)  # (N, size, size, 2)
    if pictures:
        chosen, (top, left), mirrored, _ = dataset.plan(index)
        small = small[:, top : top + dataset.crop, left : left + dataset.crop]
    else:
        chosen, mirrored = dataset.plan(index)[0], False
        kept = sampled_frames(len(masks), dataset.features.frames)
        small, _ = square(small[kept], dataset.features.size)
    seen = small[chosen][..., 0] >= 0.5  # (K, T, H, W)
    if mirrored:
        return seen[..., ::-1]
    return seen


def boxes_around(masks: np.ndarray) -> np.ndarray:
    """Masks (..., H, W) bool -> the same with the tight box around each filled."""
    rows, columns = _between(masks.any(-1)), _between(masks.any(-2))
    return rows[..., :, None] & columns[..., None, :]


def _between(held: np.ndarray) -> np.ndarray:
    """From the first to the last True of (..., L)."""
    begun = np.maximum.accumulate(held, -1)
    to_come = np.maximum.accumulate(held[..., ::-1], -1)[..., ::-1]
    return begun & to_come


# --- maps of a test set --------------------------------------------------------------------------
def explainable(method: Method) -> TwoStream:
    """A copy of the method's network that starts from pixels, in evaluation mode.

    Frozen layers whose output training reads from disk are put back in front.
    """
    model = copy.deepcopy(method.model).eval()
    if method.cfg.model.backbone == "mobilenet_features":
        frozen = FrozenMobileNet().to(next(model.parameters()).device)
        for stream in model.streams.values():
            stream.encoder = PictureEncoder(frozen, stream.encoder).eval()
    return model


def explain(
    method: Method,
    dataset: Dataset,
    indices: np.ndarray | None = None,
    classes: np.ndarray | None = None,
    layer: int = -1,
    batch: int = 32,
    model: TwoStream | None = None,
) -> Explained:
    """Predictions and Grad-CAM maps, with the statistics that the method is tested with.

    Args:
        dataset: the target's test videos.
        indices: positions in it; None: all.
        classes: (N,), what each map speaks for; None: the prediction of the fused streams, as in
            the paper's Figure 5.
        layer: see `map_layer`.
        model: a network from pixels to explain in place of the method's own.
    """
    if model is None:
        model = explainable(method)
    if indices is None:
        indices = np.arange(len(dataset))
    device = next(model.parameters()).device
    attention = method.attention()
    probs: dict[str, list] = {name: [] for name in (*model.streams, "fused")}
    maps: dict[str, list] = {stream: [] for stream in model.streams}
    asked = []
    for start in range(0, len(indices), batch):
        part = slice(start, start + batch)
        clips = seen_clips(dataset, indices[part], device)
        with use_domain(model, method.statistics):
            with torch.no_grad():
                found = model.probabilities(model(clips, attention))
            wanted = found["fused"].argmax(1)
            if classes is not None:
                wanted = torch.tensor(classes[part], device=device)
            for stream in maps:
                how = layer, attention.get(stream)
                raw = reference_cam(*stream_input(model, stream, clips[stream], *how), wanted)
                shape = *clips[stream].shape[:2], -1, *raw.shape[-2:]
                maps[stream].append(raw.reshape(shape).cpu().numpy())  # (B, K, t, h, w)
        for name, values in found.items():
            probs[name].append(values.cpu().numpy())
        asked.append(wanted.cpu().numpy())
    return Explained(
        {name: np.concatenate(parts) for name, parts in probs.items()},
        dataset.labels[indices],
        np.concatenate(asked),
        {stream: np.concatenate(parts) for stream, parts in maps.items()},
        {m: placement(stream.encoder, layer) for m, stream in model.streams.items()},
    )


def stream_input(
    model: TwoStream,
    stream: str,
    clips: Tensor,
    layer: int = -1,
    attention: Attention | None = None,
) -> tuple[nn.Module, nn.Module, Tensor]:
    """What `reference_cam` and `package_cam` take for the clips (B, K, C, T, H, W) of a stream.

    Returns:
        network, layer, input (B K, C, T, H, W), or (B K T, C, H, W) where it sees pictures.
    """
    encoder = model.streams[stream].encoder
    x, frames = clips.flatten(0, 1), None  # (B K, C, T, H, W)
    if encoder.sees_pictures:
        frames = clips.shape[3]
        x = x.transpose(1, 2).flatten(0, 1)  # (B K T, C, H, W)
    network = StreamLogits(model, stream, clips.shape[1], frames, attention)
    return network, map_layer(encoder, layer), x


# --- the share of heat on the actor --------------------------------------------------------------
def energy_pointing_game(heat: np.ndarray, inside: np.ndarray) -> float:
    """Energy-based pointing game: the sum of `heat` where `inside`, over its whole sum.

    In [0, 1]; NaN where there is no heat at all.

    Source: Wang et al., Score-CAM, CVPR Workshops 2020, section 4.3.
    """
    total = heat.sum()
    if total <= 0:
        return float("nan")
    return float((heat * inside).sum() / total)


def heat_shares(maps: np.ndarray, masks: np.ndarray, place: Placement | None = None) -> np.ndarray:
    """`energy_pointing_game` of every video: (N,), NaN without heat.

    maps (N, K, t, h, w), masks (N, K, T, H, W) bool.
    """
    shares = []
    for raw, inside in zip(maps, masks):
        heat = spread(raw, inside.shape[1:], place)  # (K, T, H, W)
        shares.append(energy_pointing_game(heat, inside))
    return np.array(shares)


def ceiling_shares(
    masks: np.ndarray, cells: tuple[int, int, int], place: Placement | None = None
) -> np.ndarray:
    """The share that a map of `cells` = (t, h, w) reaches which knows the actor: (N,).

    Each cell holds the mask around its centre.
    """
    axes = cell_weights(masks.shape[-3:], cells, place)
    time, rows, columns = (weights / weights.sum(0) for weights in axes)  # of a cell, adding to 1
    weighted = masks.astype(np.float32), time, rows, columns
    known = np.einsum("nkTHW,Tt,Hh,Ww->nkthw", *weighted, optimize=True)
    return heat_shares(known, masks, place)


def other_videos(n: int, seed: int = 0) -> np.ndarray:
    """(n,): for every video another one, each used once."""
    order = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, np.int64)
    other[order] = np.roll(order, 1)
    return other


Shares = dict[str, dict[str, np.ndarray]]


def heat_table(shares: Shares, others: Shares) -> pd.DataFrame:
    """One line per row and stream, in percent: share of heat inside, with a 95 % interval.

    The interval is a bootstrap over videos.  Beside it the share for the maps of other videos, and
    the number of videos without heat.

    shares, others: by row name and stream (N,), from `heat_shares`.
    """
    lines = []
    for row, streams in shares.items():
        for stream, values in streams.items():
            known = values[~np.isnan(values)]
            interval = paired_runs(100 * known, np.zeros_like(known))
            line = {"row": row, "stream": stream, "share": interval.mean}
            line |= {"low": interval.low, "high": interval.high}
            line["other videos"] = 100 * float(np.nanmean(others[row][stream]))
            line["without heat"] = int(np.isnan(values).sum())
            lines.append(line)
    return pd.DataFrame(lines)


def heat_differences(shares: Shares, baseline: str) -> pd.DataFrame:
    """Row minus `baseline`, video by video, in points: mean and 95 % interval.

    Only videos that have heat in both count.
    """
    lines = []
    for row, streams in shares.items():
        if row == baseline:
            continue
        for stream, values in streams.items():
            gap = 100 * (values - shares[baseline][stream])
            gap = gap[~np.isnan(gap)]
            interval = paired_runs(gap, np.zeros_like(gap))
            line = {"row": f"{row} − {baseline}", "stream": stream, "difference": interval.mean}
            line |= {"low": interval.low, "high": interval.high, "videos": interval.n}
            lines.append(line)
    return pd.DataFrame(lines)
