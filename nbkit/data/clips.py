"""From cached videos to training batches: where clips start, augmentation, withheld labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from nbkit.data.pixels import floats
from nbkit.errors import NbkitError

if TYPE_CHECKING:
    import pandas as pd

# the label of a video whose class must not be known
HIDDEN = -1
# added to the seed: another crop, other clip starts, flip and colours of the same videos
SECOND_VIEW = 104729


def clip_starts(
    n_frames: int, clips: int, frames: int, stride: int = 1, rng: Generator | None = None
) -> np.ndarray:
    """First frame of each of the K clips of a video (TSN: Wang et al., ECCV 2016).

    The video is divided into K equal segments and a clip starts in each: at a random place
    (training, with `rng`) or centred (test, without). Where a segment is shorter than the span
    (T - 1) * stride + 1 of a clip, the clips overlap: their starts are spread evenly over
    [0, N - span], in training moved by up to half of their distance.

    Returns:
        int64 (K,), ascending, in [0, max(N - span, 0)].
    """
    span = (frames - 1) * stride + 1
    last = max(n_frames - span, 0)
    segment = n_frames / clips
    if segment >= span:
        room = segment - span
        begins = np.arange(clips) * segment
        if rng is None:
            starts = np.floor(begins + 0.5 * room + 0.5)
        else:
            starts = np.floor(begins + rng.random(clips) * room)
    else:
        even = np.array([last / 2])
        half = last / 2
        if clips > 1:
            even = np.linspace(0, last, clips)
            half = last / (2 * (clips - 1))
        if rng is not None:
            even = even + rng.uniform(-half, half, clips)
        starts = np.floor(even + 0.5)
    return np.clip(starts, 0, last).astype(np.int64)


def frame_indices(n_frames: int, starts: np.ndarray, frames: int, stride: int = 1) -> np.ndarray:
    """Frame numbers (K, T) of the clips; a short video's last frame is repeated."""
    return np.minimum(starts[:, None] + np.arange(frames) * stride, n_frames - 1)


def change_colours(rgb: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> None:
    """Change rgb uint8 (K, T, H, W, 3) in place to gain * value + offset; gain, offset (3,).

    A table look-up on one video is three times faster than arithmetic on the batch of floats.
    """
    levels = np.arange(256)[:, None] * gain + 255 * offset  # (256, 3)
    table = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[None]  # (1, 256, 3)
    flat = rgb.reshape(-1, rgb.shape[-2], 3)  # (K T H, W, 3), a view
    cv2.LUT(flat, table, dst=flat)


class VideoDataset(Dataset):
    """Clips of every video of a table: what the data sets of pixels and of features share.

    Args:
        cache: anything with `n_frames(video)`.
        table: rows of one domain and one split.
        clips, frames: K clips of T frames per video; `stride` is the step between frames.
        augment: random clip starts and views for training; without it every clip is centred.
        withhold_labels: every label is -1, and `table` loses its label and class_name columns.
            This is the only way in which target training data is handed out.
        seed: with the epoch and the index it fixes an item's randomness. The order of access,
            the number of workers and a resumed run change nothing.
    """

    def __init__(
        self,
        cache: Any,
        table: pd.DataFrame,
        clips: int,
        frames: int,
        stride: int,
        augment: bool,
        withhold_labels: bool,
        seed: int,
    ):
        table = table.reset_index(drop=True)
        if withhold_labels:
            self.labels = np.full(len(table), HIDDEN, np.int64)
            self.table = table.drop(columns=["label", "class_name"], errors="ignore")
        else:
            self.labels = table["label"].to_numpy(np.int64)
            self.table = table
        self.clips, self.frames, self.stride = clips, frames, stride
        self.augment, self.seed, self.epoch = augment, seed, 0
        self.videos = self.table["video"].tolist()
        self.lengths = {video: cache.n_frames(video) for video in self.videos}
        broken = [video for video, n in self.lengths.items() if n < 2]
        if broken:
            names = ", ".join(broken[:10])
            raise NbkitError(f"videos with fewer than 2 frames: {names}. Drop their rows.")
        span = (frames - 1) * stride + 1
        short = [f"{video} ({n})" for video, n in self.lengths.items() if n < span]
        if short:
            told = f"{len(short)} videos are shorter than a clip of {span} frames"
            names = ", ".join(short[:10])
            warnings.warn(f"{told}; their last frame is repeated: {names}", stacklevel=3)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.batch([index]).items()}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random starts, crops, flips and colours the items show."""
        self.epoch = int(epoch)

    def batch(self, indices: Sequence[int], **views: Any) -> dict[str, Tensor]:
        """`raw`, with `rgb` in [0, 1] and `flow` in [-1, 1] as float32."""
        raw = self.raw(indices, **views)
        return {name: floats(x, name.partition("_")[0]) for name, x in raw.items()}

    def raw(
        self, indices: Sequence[int], *, second_view: str = "none", negatives: bool = False
    ) -> dict[str, Tensor]:
        """Assemble a batch of B videos, on the CPU; pictures stay bytes for `pixels.floats`.

        Args:
            indices: positions in the table.
            second_view: 'augment' adds `rgb_2` and `flow_2`, another augmented view of the same
                videos; 'residual' adds the residual's cached features, and nothing to pixels, of
                which the method makes it.
            negatives: add what negative clips are made from, where it is more than the clips.

        Returns:
            `rgb` and `flow` (B, K, ...), `label` and `index` int64 (B,).
        """
        numbers = np.asarray(indices, np.int64)
        batch = self._load(numbers, 0, negatives)
        if second_view == "augment":
            second = self._load(numbers, SECOND_VIEW, False)
            for name in ("rgb", "flow"):
                if name in second:
                    batch[f"{name}_2"] = second[name]
        return batch

    def _load(self, indices: np.ndarray, shift: int, negatives: bool) -> dict[str, Tensor]:
        raise NotImplementedError

    def _draw(self, index: int, shift: int) -> tuple[np.ndarray, Generator | None]:
        """Frame numbers (K, T) of an item, and the random numbers of its view where it has any."""
        rng = None
        if self.augment:
            rng = np.random.default_rng((self.seed + shift, self.epoch, index))
        n = self.lengths[self.videos[index]]
        starts = clip_starts(n, self.clips, self.frames, self.stride, rng)
        return frame_indices(n, starts, self.frames, self.stride), rng


class ClipDataset(VideoDataset):
    """K clips of T frames of every video of a table, RGB and flow aligned, from a VideoCache.

    An item holds `rgb` float32 (K, 3, T, H, W) in [0, 1], `flow` float32 (K, 2, T, H, W) in
    [-1, 1] (pixels over the cache's `flow_clip`), `label` and `index`.

    Args:
        crop: side of the square crop in pixels, at most the cache's size (None: all of it).
        augment: one random crop and horizontal flip per video, the same for all of its clips and
            both modalities (a flip negates u), and a mild change of colours of RGB.
        table, clips, frames, stride, withhold_labels, seed: as in `VideoDataset`.
    """

    # strength of the brightness, contrast and colour change; 0 is none
    jitter = 0.15

    def __init__(
        self,
        cache: Any,
        table: pd.DataFrame,
        *,
        clips: int = 3,
        frames: int = 16,
        stride: int = 1,
        crop: int | None = None,
        augment: bool = False,
        withhold_labels: bool = False,
        seed: int = 0,
    ):
        super().__init__(cache, table, clips, frames, stride, augment, withhold_labels, seed)
        self.cache = cache
        self.crop = cache.size if crop is None else crop
        if not 0 < self.crop <= cache.size:
            raise NbkitError(f"crop={crop}: must be between 1 and the cache's size {cache.size}.")

    def plan(self, index: int, shift: int = 0) -> tuple:
        """Frames (K, T), (top, left), flip, and (gain, offset) of an item; `shift` of the seed."""
        chosen, rng = self._draw(index, shift)
        room = self.cache.size - self.crop
        if rng is None:
            return chosen, (room // 2, room // 2), False, None
        top, left = rng.integers(0, room + 1, 2)
        flip = bool(rng.random() < 0.5)
        contrast, light, colour = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1, 3)
        gain = 1 + self.jitter * (contrast + 0.5 * colour)  # (3,)
        # contrast about mid-grey, then brightness
        offset = 0.5 * (1 - gain) + 0.5 * self.jitter * light
        return chosen, (top, left), flip, (gain, offset)

    def _load(self, indices: np.ndarray, shift: int, negatives: bool) -> dict[str, Tensor]:
        """rgb and flow uint8 (B, K, C, T, H, W), views of arrays whose channels lie last."""
        shape = (len(indices), self.clips, self.frames, self.crop, self.crop)
        rgb, flow = np.empty((*shape, 3), np.uint8), np.empty((*shape, 2), np.uint8)
        for row, index in enumerate(indices):
            self._fill(int(index), shift, rgb[row], flow[row])
        colours, motion, labels, numbers = map(
            torch.from_numpy, (rgb, flow, self.labels[indices], indices)
        )
        found = {"rgb": colours.movedim(-1, 2), "flow": motion.movedim(-1, 2)}
        return {**found, "label": labels, "index": numbers}

    def _fill(self, index: int, shift: int, rgb: np.ndarray, flow: np.ndarray) -> None:
        """Copy item `index` as bytes into rgb (K, T, H, W, 3) and flow (K, T, H, W, 2)."""
        chosen, (top, left), flip, colour = self.plan(index, shift)
        video = self.videos[index]
        rows, columns = slice(top, top + self.crop), slice(left, left + self.crop)
        for source, out in ((self.cache.rgb(video), rgb), (self.cache.flow(video), flow)):
            for k, times in enumerate(chosen):
                where = times
                if times[-1] - times[0] == (len(times) - 1) * self.stride:
                    # no repeated frame at the end: a slice is read without a copy
                    where = slice(times[0], times[-1] + 1, self.stride)
                out[k] = source[where][:, rows, columns]  # (T, H, W, channels)
        if flip:
            for out in (rgb, flow):
                lines = out.reshape(-1, *out.shape[-2:])  # (K T H, W, channels), a view
                cv2.flip(lines, 1, dst=lines)
            # 256 - byte: u changes its sign, v does not
            np.negative(flow[..., 0], out=flow[..., 0])
        if colour is not None and self.jitter:
            change_colours(rgb, *colour)
