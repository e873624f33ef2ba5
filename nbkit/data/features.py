"""Features of a frozen image network, computed once per frame: then a training run takes seconds on
a laptop.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from nbkit.data.cache import square
from nbkit.data.clips import VideoDataset
from nbkit.data.flow import LEVELS, dequantise
from nbkit.methods.negatives import FAMILIES, frame_orders, some_frames
from nbkit.data.store import GrowingArray, key_of, new_folder, require_space, write_json
from nbkit.errors import NbkitError

VERSION = 1
MODALITIES = ("rgb", "flow")
# A view mirrors the width (bit 0), the height (bit 1), or both: one view of another view is the
# exclusive or.
VIEWS = {"identity": 0, "hflip": 1, "vflip": 2, "rot180": 3}


def flow_picture(flow, scale):
    """Flow as a picture for an RGB network: channels u, v, magnitude.

    flow  float32 (N, H, W, 2), pixels;  scale  pixels that saturate
    Returns float32 (N, H, W, 3) in [0, 1]; no motion is (0.5, 0.5, 0).
    """
    scaled = flow / scale
    magnitude = np.linalg.norm(scaled, axis=-1, keepdims=True)  # (N, H, W, 1)
    return np.clip(np.concatenate([(scaled + 1) / 2, magnitude], axis=-1), 0, 1).astype(np.float32)


def flow_scale(flow, flow_clip):
    """The video's 99.5th percentile of flow magnitude, but at least four storage steps: noise must
    not be blown up.
    """
    return max(float(np.percentile(np.linalg.norm(flow, axis=-1), 99.5)), 4 * flow_clip / LEVELS)


def turn(frames, view, flow=False):
    """Look at frames (N, H, W, C) in a mirror.  Flow vectors are mirrored with their picture: hflip
    negates u.

    So a view of a whole video is a real video, and a view of one frame alone contradicts its
    neighbours.
    """
    code = VIEWS[view]
    signs = np.array([-1 if code & 1 else 1, -1 if code & 2 else 1], np.float32)
    turned = frames[:, :: -1 if code & 2 else 1, :: -1 if code & 1 else 1]
    return turned * signs if flow else turned


def sampled_frames(n, frames):
    """At most `frames` frame numbers spread evenly over 0..n-1, both ends included."""
    return np.unique(np.rint(np.linspace(0, n - 1, min(n, frames))).astype(np.int64))


class FeatureCache:
    """A finished folder of frame features: rgb.npy and flow.npy float16 (all frames, V, F),
    index.csv, settings.json.

    Attributes: views (names; the first is 'identity'), out_features F, settings, index.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.settings = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
            self.index = pd.read_csv(self.folder / "index.csv", dtype={"video": str}, keep_default_na=False)
            self._arrays = {m: np.load(self.folder / f"{m}.npy", mmap_mode="r").view(np.ndarray) for m in MODALITIES}
        except (OSError, ValueError) as error:
            raise NbkitError(f"{self.folder}: not a whole cache ({error}). Delete it and build it again.") from error
        self.views, self.out_features = tuple(self.settings["views"]), self._arrays["rgb"].shape[-1]
        rows = self.index[["video", "start", "frames"]].itertuples(index=False)
        self._place = {video: slice(start, start + frames) for video, start, frames in rows}
        if any(len(array) != self.index["frames"].sum() for array in self._arrays.values()):
            raise NbkitError(f"{self.folder}: index.csv and the arrays disagree. Delete it and build it again.")

    def __reduce__(self):
        return FeatureCache, (self.folder,)

    def __len__(self):
        return len(self._place)

    def get(self, video, modality):
        """float16 (N, V, F): the features of N frames in V views; `modality` is 'rgb' or 'flow'."""
        if video not in self._place:
            raise NbkitError(f"video {video!r} has no features in {self.folder}. Build them from the whole cache.")
        return self._arrays[modality][self._place[video]]

    def n_frames(self, video):
        """Number of frames that have features."""
        return len(self.get(video, "rgb"))


def _backbone(name):
    if name != "mobilenet":
        return name  # any object with frame_features, out_features and key
    from nbkit.models.mobilenet import FrozenMobileNet

    return FrozenMobileNet()


def video_pictures(cache, video, modality, views, frames, size):
    """float32 (N V, 3, size, size) in [0, 1]: N frames of a video of a VideoCache in V views, as an
    RGB network sees them.
    """
    chosen = sampled_frames(cache.n_frames(video), frames)
    stored = getattr(cache, modality)(video)
    if modality == "rgb":
        pixels = square(stored[chosen], size)[0].astype(np.float32) / 255  # (N, H, W, 3)
        pictures = np.stack([turn(pixels, view) for view in views], axis=1)
    else:
        motion = dequantise(stored, cache.flow_clip)  # (all, H, W, 2)
        scale = flow_scale(motion, cache.flow_clip)
        # (N, H, W, 2), vectors in pixels of the cache, like their scale
        motion, _ = square(motion[chosen], size)
        pictures = np.stack([flow_picture(turn(motion, view, flow=True), scale) for view in views], axis=1)
    return torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2)


def video_features(cache, video, modality, backbone, views, batch, frames, size):
    """float16 (N, V, F) of one video of a VideoCache, seen at size x size pixels."""
    flat = video_pictures(cache, video, modality, views, frames, size)
    features = torch.cat([backbone.frame_features(part) for part in flat.split(batch)])  # (N V, F)
    return features.unflatten(0, (-1, len(views))).half().numpy()


def build_features(cache, cache_dir, backbone="mobilenet", views=tuple(VIEWS), batch=16, frames=24, size=128,
                   progress=True):
    """Features of every video of a VideoCache, once.

    cache      VideoCache;   cache_dir: the result becomes cache_dir/features-<key> backbone
    'mobilenet', or an object with frame_features((N, 3, H, W) in [0, 1]) -> (N, F), out_features
    and key views      'identity' first, then some of 'hflip', 'vflip', 'rot180' batch      pictures
    a pass: 16 keeps the maps in a processor's cache, 64 is a third slower frames     at most so
    many frames of a video, spread evenly size       side of the pictures the network sees, at most
    the cache's: 4 ms a picture at 128, 7 at 160 (one core) Returns FeatureCache; a finished one is
    reused, an interrupted build leaves nothing.
    """
    if not views or views[0] != "identity" or not set(views) <= set(VIEWS):
        raise NbkitError(f"views={views}: must start with 'identity', then some of {tuple(VIEWS)[1:]}.")
    network = _backbone(backbone)
    how = {"videos": cache.settings["key"], "backbone": network.key, "views": list(views), "frames": frames,
           "size": min(size, cache.size)}
    key = key_of({"version": VERSION, **how})
    final = Path(cache_dir) / f"features-{key}"
    if final.exists():
        return FeatureCache(final)
    counts = [min(frames, cache.n_frames(video)) for video in cache.index["video"]]
    require_space(cache_dir, sum(counts) * len(views) * network.out_features * 2 * len(MODALITIES))
    with new_folder(final) as folder:
        shape = (len(views), network.out_features)
        arrays = {m: GrowingArray(folder / f"{m}.npy", shape, np.float16) for m in MODALITIES}
        rows = []
        try:
            for video in tqdm(cache.index["video"], "features", disable=not progress):
                rows.append((video, arrays["rgb"].length, len(sampled_frames(cache.n_frames(video), frames))))
                for m, array in arrays.items():
                    array.append(video_features(cache, video, m, network, views, batch, frames, how["size"]))
        except BaseException:
            for array in arrays.values():
                array.close(whole=False)
            raise
        for array in arrays.values():
            array.close()
        pd.DataFrame(rows, columns=["video", "start", "frames"]).to_csv(folder / "index.csv", index=False)
        write_json(folder / "settings.json", {"key": key, "version": VERSION, **how})
    return FeatureCache(final)


class FeatureClipDataset(VideoDataset):
    """`ClipDataset`'s counterpart on frame features: K clips of T frames, rgb and flow (K, T, F).

    Args:
        features: FeatureCache.
        augment: random clip starts and, for the whole video (all clips, both modalities), one of
            two views: identity or its mirror image.
        table, clips, frames, stride, withhold_labels, seed: as in `VideoDataset`; `stride` counts
            feature frames.
    """

    def __init__(
        self,
        features: FeatureCache,
        table: pd.DataFrame,
        *,
        clips: int = 3,
        frames: int = 8,
        stride: int = 1,
        augment: bool = False,
        withhold_labels: bool = False,
        seed: int = 0,
    ):
        super().__init__(
            features,
            table,
            clips=clips,
            frames=frames,
            stride=stride,
            augment=augment,
            withhold_labels=withhold_labels,
            seed=seed,
        )
        self.features = features
        codes = [VIEWS[view] for view in features.views]
        if augment and any(code ^ 1 not in codes for code in codes):
            raise NbkitError(
                f"{features.folder}: views {features.views} do not hold the mirror image "
                "of each view."
            )
        self.order = list(range(len(codes)))
        # the views of a flipped video
        self.mirrored = [codes.index(code ^ 1) for code in codes] if augment else self.order

    def plan(self, index: int, seed: int | None = None) -> tuple[np.ndarray, bool]:
        """Frames (K, T) of item `index` and whether its video is mirrored."""
        rng = self._generator(index, seed)
        chosen = self._frames_of(index, rng)
        return chosen, rng is not None and bool(rng.random() < 0.5)

    def _load(self, indices: np.ndarray, seed: int, negatives: bool) -> dict[str, Tensor]:
        """rgb and flow (B, K, T, F); `negatives` adds rgb_views and flow_views (B, K, T, V, F).

        View 0 is the one that rgb and flow show, the others are turned against it.
        """
        plans = [self.plan(int(index), seed) for index in indices]
        batch = {
            "label": torch.from_numpy(self.labels[indices]),
            "index": torch.from_numpy(indices),
        }
        for modality in MODALITIES:
            rows = []
            for index, (chosen, mirrored) in zip(indices, plans):
                order = self.mirrored if mirrored else self.order
                if not negatives:
                    order = order[:1]
                stored = self.features.get(self.videos[index], modality)
                rows.append(stored[chosen][:, :, order])
            views = torch.from_numpy(np.stack(rows)).float()  # (B, K, T, V, F)
            batch[modality] = views[:, :, :, 0]
            if negatives:
                batch[f"{modality}_views"] = views
        return batch


def feature_negative(views, family, generator, *, frac=(0.25, 0.75), order="shuffle"):
    """The negative of every clip (Fig. 3) on features: turned frames are the features of another
    view.

    views   (N, T, V, F), view 0 is the clip itself;   family: 'spatial' | 'temporal' | 'both' |
    'repeat' Returns (N, T, F): a random subset of frames in another view, or the frames in a wrong
    order, or one frame repeated.
    """
    if family not in FAMILIES:
        raise NbkitError(f"clip_neg={family!r}: choose one of {FAMILIES}.")
    n, frames, count = views.shape[:3]
    if count < 2 and family in ("spatial", "both"):
        raise NbkitError("a spatial negative needs features of at least 2 views.")
    # (N, T) each
    view, time = torch.zeros(n, frames, dtype=torch.long), torch.arange(frames).expand(n, frames)
    if family == "repeat":
        time = torch.randint(frames, (n, 1), generator=generator).expand(n, frames)
    if family in ("spatial", "both"):
        other = torch.randint(1, count, (n, frames), generator=generator) if count > 1 else view
        view = torch.where(some_frames(n, frames, generator, frac), other, view)
    if family in ("temporal", "both"):
        time = frame_orders(n, frames, generator, order)
    if family == "both":  # each clip keeps one of the two changes
        spatial = torch.rand(n, 1, generator=generator) < 0.5
        view = torch.where(spatial, view, 0)
        time = torch.where(spatial, torch.arange(frames), time)
    rows = torch.arange(n, device=views.device)[:, None]
    return views[rows, time.to(views.device), view.to(views.device)]  # (N, T, F)
