"""Features of a frozen network, computed once: a training run takes seconds.

Of single frames (`build_features`) or of clips (`build_clip_features`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nbkit.data.arrays import VideoArrays, key_of
from nbkit.data.cache import VideoCache, square
from nbkit.data.clips import VideoDataset, clip_starts, frame_indices
from nbkit.data.flow import compute_flow, dequantise
from nbkit.data.pixels import FLOW_LEVELS
from nbkit.data.sources import read_frames, source_of, source_print

# raise it when the same pictures would give other features
VERSION = 1
MODALITIES = ("rgb", "flow")
# steps along the rows and columns of a picture: -1 mirrors it
VIEWS = {"identity": (1, 1), "hflip": (1, -1), "vflip": (-1, 1), "rot180": (-1, -1)}
# what is stored of every clip: itself, its mirror image, its two negatives, its second view
VARIANTS = ("identity", "hflip", "spatial", "temporal", "residual")
# clips of a video, spread evenly
GRID = 3
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
        orders: by whether a video is mirrored, its stored views in the order of a batch.
        residual: the stored view that is the residual of its frames; None: there is none.
    """

    residual: int | None = None

    def __init__(self, arrays: VideoArrays, videos: VideoCache, frames: int, size: int):
        self.arrays, self.videos, self.frames, self.size = arrays, videos, frames, size
        self.views = tuple(VIEWS)
        self.n_frames, self.modalities = arrays.n_frames, MODALITIES
        steps = list(VIEWS.values())
        mirrored = [steps.index((rows, -columns)) for rows, columns in steps]
        self.orders = {False: list(range(len(steps))), True: mirrored}

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

    def rows(video: str) -> int:
        return min(frames, cache.n_frames(video))

    arrays.make_missing(rows, work, title="features", progress=progress)
    return FeatureCache(arrays, cache, frames, size)


# --- features of clips ---------------------------------------------------------------------------
class ClipFeatures:
    """Features of GRID clips of every video, each in the VARIANTS.

    A stored clip counts as a frame, of which a batch's clips have one.
    """

    orders = {False: [0, 2, 3], True: [1, 2, 3]}  # the clip, its spatial and temporal negative
    residual = VARIANTS.index("residual")

    def __init__(self, arrays: dict[str, VideoArrays], key: str):
        self.arrays, self.modalities, self.key = arrays, tuple(arrays), key
        self.n_frames = next(iter(arrays.values())).n_frames

    def get(self, video: str, modality: str) -> np.ndarray:
        """float16 (GRID, V, F): the features of the clips of one stream."""
        return self.arrays[modality].read(video)


def video_clips(row: Any, modality: str, size: int, frames: int, stride: int, flow: str) -> Tensor:
    """The clips of a video as a video network sees them: (GRID, C, T, size, size).

    RGB lies in [0, 1].  Flow lies in [-1, 1]: the 99.5th percentile of the clips' displacements is
    1, and half a pixel at least.
    """
    pictures = read_frames(source_of(row))  # (N, H, W, 3)
    chosen = frame_indices(
        len(pictures), clip_starts(len(pictures), GRID, frames, stride), frames, stride
    )
    if modality == "rgb":
        small = square(pictures[chosen.flatten()], size)[0].astype(np.float32) / 255
        pixels = small.reshape(*chosen.shape, size, size, 3)
    else:
        clips = []
        for numbers in chosen:
            after = min(numbers[-1] + 1, len(pictures) - 1)  # the last frame's flow leads there
            first = numbers[0]
            vectors = compute_flow(pictures[first : after + 1], flow, clip=None)
            clips.append(square(vectors, size)[0][numbers - first])
        vectors = np.stack(clips)  # (GRID, T, size, size, 2)
        pixels = np.clip(vectors / max(flow_scale(vectors, 0.0), 0.5), -1, 1)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1)))


def build_clip_features(
    table: pd.DataFrame,
    cache_dir: str | Path,
    networks: dict[str, Any],
    variants: Callable[[Tensor, str, str], Tensor],
    residual_scale: float,
    *,
    size: int,
    frames: int = 16,
    stride: int = 1,
    flow: str = "dis",
    progress: bool = True,
) -> ClipFeatures:
    """Features of GRID clips of every video of a table, once, straight from the files.

    Args:
        cache_dir: the files become cache_dir/features-<settings>/<video>.npy, one folder a stream.
        networks: by stream, what has `clip_features`, (N, C, T, H, W) -> (N, F), `out_features`
            and `key`, which stands for its weights.
        variants: (clips (N, C, T, H, W), stream, video) -> (N, V, C, T, H, W), the VARIANTS, of
            which the last one is made with `residual_scale`.
        size: side of the centre square that the network sees, in pixels.
        frames, stride: a clip has `frames` frames, `stride` apart.
    """
    rows = {row["video"]: row for row in table.to_dict("records")}
    prints = {video: source_print(source_of(row)) for video, row in rows.items()}
    arrays, made_of = {}, []
    for modality, network in networks.items():
        settings = {
            "version": VERSION,
            "stream": modality,
            "backbone": network.key,
            "clips": [GRID, frames, stride],
            "size": size,
            "variants": [VARIANTS, residual_scale],
            "flow": flow if modality == "flow" else None,
        }
        names = {v: key_of({"video": v, "content": p, **settings}) for v, p in prints.items()}
        shape = (len(VARIANTS), network.out_features)
        folder = Path(cache_dir) / f"features-{key_of(settings)}"
        stored = VideoArrays(folder, names, shape, np.float16)

        def work(video: str, modality: str = modality, network: Any = network) -> np.ndarray:
            clips = video_clips(rows[video], modality, size, frames, stride, flow)
            varied = variants(clips, modality, video)  # (GRID, V, C, T, H, W)
            features = [network.clip_features(clip) for clip in varied]  # (V, F) each
            return torch.stack(features).half().cpu().numpy()

        title = f"{modality} features"
        stored.make_missing(lambda video: GRID, work, title=title, progress=progress)
        arrays[modality] = stored
        made_of.append(settings)
    return ClipFeatures(arrays, f"features-{key_of([made_of, sorted(prints.items())])}")


# --- batches -------------------------------------------------------------------------------------
class FeatureClipDataset(VideoDataset):
    """`ClipDataset`'s counterpart on features: K clips of T frames, rgb and flow (K, T, F).

    Args:
        features: FeatureCache, or ClipFeatures, whose clips have T = 1.
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

    def plan(self, index: int, shift: int = 0) -> tuple[np.ndarray, bool]:
        """Frames (K, T) of item `index` and whether its video is mirrored."""
        chosen, rng = self._draw(index, shift)
        return chosen, rng is not None and bool(rng.random() < 0.5)

    def raw(
        self, indices: Sequence[int], *, second_view: str = "none", negatives: bool = False
    ) -> dict[str, Tensor]:
        """As in `VideoDataset`; 'residual' adds the stored residuals, where there are any."""
        batch = super().raw(indices, second_view=second_view, negatives=negatives)
        residual = self.features.residual
        if second_view == "residual" and residual is not None:
            for modality in self.features.modalities:
                order = {False: [residual], True: [residual]}
                views = self._views(batch["index"].numpy(), 0, modality, order)
                batch[f"{modality}_2"] = views[:, :, :, 0]
        return batch

    def _load(self, indices: np.ndarray, shift: int, negatives: bool) -> dict[str, Tensor]:
        """rgb and flow (B, K, T, F); `negatives` adds rgb_views and flow_views (B, K, T, V, F).

        View 0 is the one that rgb and flow show, the others are turned against it.
        """
        labels = torch.from_numpy(self.labels[indices])
        batch = {"label": labels, "index": torch.from_numpy(indices)}
        orders = self.features.orders
        if not negatives:
            orders = {mirrored: order[:1] for mirrored, order in orders.items()}
        for modality in self.features.modalities:
            views = self._views(indices, shift, modality, orders)
            batch[modality] = views[:, :, :, 0]
            if negatives:
                batch[f"{modality}_views"] = views
        return batch

    def _views(
        self, indices: np.ndarray, shift: int, modality: str, orders: dict[bool, list[int]]
    ) -> Tensor:
        """Stored views (B, K, T, V, F) of the planned frames, V of them in `orders`' order."""
        rows = []
        for index in indices:
            chosen, mirrored = self.plan(int(index), shift)
            stored = self.features.get(self.videos[index], modality)
            # in two steps: the order in memory decides how sums over it are rounded later
            rows.append(stored[chosen][:, :, orders[mirrored]])  # (K, T, V, F)
        return torch.from_numpy(np.stack(rows)).float()
