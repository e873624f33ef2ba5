"""Features of a frozen image network, computed once per frame: a training run takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nbkit.data.arrays import VideoArrays, key_of, require_space
from nbkit.data.cache import VideoCache, square
from nbkit.data.clips import VideoDataset
from nbkit.data.flow import dequantise
from nbkit.data.pixels import FLOW_LEVELS

# raise it when the same pictures would give other features
VERSION = 1
MODALITIES = ("rgb", "flow")
# steps along the rows and columns of a picture: -1 mirrors it
VIEWS = {"identity": (1, 1), "hflip": (1, -1), "vflip": (-1, 1), "rot180": (-1, -1)}
# pictures per pass: their maps fit in a processor's cache, 64 pictures are a third slower
BATCH = 16


def flow_picture(flow: np.ndarray, scale: float) -> np.ndarray:
    """Flow (N, H, W, 2) as a picture for an RGB network: channels u, v, magnitude in [0, 1].

    `scale` is the displacement that saturates; no motion is (0.5, 0.5, 0).
    """
    scaled = flow / scale
    magnitude = np.linalg.norm(scaled, axis=-1, keepdims=True)  # (N, H, W, 1)
    picture = np.concatenate([(scaled + 1) / 2, magnitude], axis=-1)  # (N, H, W, 3)
    return np.clip(picture, 0, 1).astype(np.float32)


def flow_scale(flow: np.ndarray, flow_clip: float) -> float:
    """The 99.5th percentile of a video's flow magnitude, but at least four storage steps."""
    largest = np.percentile(np.linalg.norm(flow, axis=-1), 99.5)
    return max(float(largest), 4 * flow_clip / FLOW_LEVELS)  # storage noise must not be blown up


def turn(frames: np.ndarray, view: str, flow: bool = False) -> np.ndarray:
    """Look at frames (N, H, W, C) in a mirror; flow vectors (u, v) turn with their picture."""
    rows, columns = VIEWS[view]
    turned = frames[:, ::rows, ::columns]
    if flow:
        return turned * np.array([columns, rows], np.float32)
    return turned


def sampled_frames(n: int, frames: int) -> np.ndarray:
    """At most `frames` frame numbers spread evenly over 0..n-1, both ends included."""
    return np.unique(np.rint(np.linspace(0, n - 1, min(n, frames))).astype(np.int64))


def video_pictures(
    cache: VideoCache, video: str, modality: str, views: Sequence[str], frames: int, size: int
) -> Tensor:
    """N frames in V views as an RGB network sees them: (N V, 3, size, size) in [0, 1]."""
    chosen = sampled_frames(cache.n_frames(video), frames)
    if modality == "rgb":
        pixels = square(cache.rgb(video)[chosen], size)[0].astype(np.float32) / 255  # (N, H, W, 3)
        turned = [turn(pixels, view) for view in views]
    else:
        motion = dequantise(cache.flow(video), cache.flow_clip)  # (all, H, W, 2)
        scale = flow_scale(motion, cache.flow_clip)
        # vectors stay in pixels of the cache, like their scale
        motion, _ = square(motion[chosen], size)  # (N, H, W, 2)
        turned = [flow_picture(turn(motion, view, flow=True), scale) for view in views]
    pictures = np.stack(turned, axis=1)  # (N, V, H, W, 3)
    return torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2)


class FeatureCache:
    """Features of the frames of all videos of a VideoCache.

    Attributes:
        videos: the VideoCache.
        frames, size: at most so many frames of a video, seen as pictures of this side.
        views: names of the stored views; the first is 'identity'.
    """

    def __init__(self, arrays: VideoArrays, videos: VideoCache, frames: int, size: int):
        self.arrays, self.videos, self.frames, self.size = arrays, videos, frames, size
        self.views = tuple(VIEWS)
        self.n_frames = arrays.n_frames

    def get(self, video: str, modality: str) -> np.ndarray:
        """float16 (N, V, F): the features of N frames in V views; `modality` is 'rgb' or 'flow'."""
        return self.arrays.read(video)[:, MODALITIES.index(modality)]


def build_features(
    cache: VideoCache,
    cache_dir: str | Path,
    network: Any,
    frames: int = 24,
    size: int = 128,
    progress: bool = True,
) -> FeatureCache:
    """Features of every video of a VideoCache, once.

    Args:
        cache_dir: the files become cache_dir/features-<settings>/<video>.npy.
        network: has `frame_features`, (N, 3, H, W) in [0, 1] -> (N, out_features), `out_features`
            and `key`, which stands for its weights.
        frames: at most so many frames of a video, spread evenly.
        size: side of the pictures that the network sees, at most the cache's: with MobileNetV2
            4 ms per picture at 128, 7 at 160 (one core).
    """
    size = min(size, cache.size)
    settings = {"version": VERSION, "backbone": network.key, "frames": frames, "size": size}
    # the name of a video's file stands for its content and the settings of its cache
    names = {video: path.stem for video, path in cache.arrays.paths.items()}
    folder = Path(cache_dir) / f"features-{key_of(settings)}"
    shape = (len(MODALITIES), len(VIEWS), network.out_features)
    arrays = VideoArrays(folder, names, shape, np.float16)

    def work(video: str) -> np.ndarray:
        found = []
        for modality in MODALITIES:
            pictures = video_pictures(cache, video, modality, tuple(VIEWS), frames, size)
            passes = [network.frame_features(part) for part in pictures.split(BATCH)]
            features = torch.cat(passes)  # (N V, F)
            found.append(features.unflatten(0, (-1, len(VIEWS))).half().numpy())
        return np.stack(found, axis=1)  # (N, 2, V, F)

    todo = arrays.missing()
    if todo:
        counts = [min(frames, cache.n_frames(video)) for video in todo]
        require_space(cache_dir, sum(counts) * int(np.prod(shape)) * 2)
        arrays.make(todo, work, title="features", progress=progress)
    return FeatureCache(arrays, cache, frames, size)


class FeatureClipDataset(VideoDataset):
    """`ClipDataset`'s counterpart on frame features: K clips of T frames, rgb and flow (K, T, F).

    Args:
        features: FeatureCache.
        augment: random clip starts and, for the whole video (all clips, both modalities), one of
            two views: identity or its mirror image.
        table, clips, frames, withhold_labels, seed: as in `VideoDataset`.
    """

    def __init__(
        self,
        features: FeatureCache,
        table: pd.DataFrame,
        *,
        clips: int = 3,
        frames: int = 8,
        augment: bool = False,
        withhold_labels: bool = False,
        seed: int = 0,
    ):
        super().__init__(features, table, clips, frames, 1, augment, withhold_labels, seed)
        self.features = features
        # order of the views by whether the video is mirrored
        steps = list(VIEWS.values())
        mirrored = [steps.index((rows, -columns)) for rows, columns in steps]
        self.orders = {False: list(range(len(steps))), True: mirrored}

    def plan(self, index: int, shift: int = 0) -> tuple[np.ndarray, bool]:
        """Frames (K, T) of item `index` and whether its video is mirrored."""
        chosen, rng = self._draw(index, shift)
        return chosen, rng is not None and bool(rng.random() < 0.5)

    def _load(self, indices: np.ndarray, shift: int, negatives: bool) -> dict[str, Tensor]:
        """rgb and flow (B, K, T, F); `negatives` adds rgb_views and flow_views (B, K, T, V, F).

        View 0 is the one that rgb and flow show, the others are turned against it.
        """
        labels = torch.from_numpy(self.labels[indices])
        batch = {"label": labels, "index": torch.from_numpy(indices)}
        plans = [self.plan(int(index), shift) for index in indices]
        for modality in MODALITIES:
            rows = []
            for index, (chosen, mirrored) in zip(indices, plans):
                order = self.orders[mirrored]
                if not negatives:
                    order = order[:1]
                stored = self.features.get(self.videos[index], modality)
                # in two steps: the order in memory decides how sums over it are rounded later
                rows.append(stored[chosen][:, :, order])  # (K, T, V, F)
            views = torch.from_numpy(np.stack(rows)).float()  # (B, K, T, V, F)
            batch[modality] = views[:, :, :, 0]
            if negatives:
                batch[f"{modality}_views"] = views
        return batch
