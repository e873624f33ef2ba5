"""From cached videos to training batches: where clips start, one crop and flip a video, floats once
per batch.
"""

import warnings

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from nbkit.data.flow import LEVELS, ZERO
from nbkit.errors import NbkitError

HIDDEN = -1  # the label of a video whose class must not be known


def clip_starts(n_frames, clips, frames, stride=1, rng=None):
    """First frame of each of the K clips of a video (TSN: Wang et al., ECCV 2016).

    The video is divided into K equal segments and a clip starts in each: at a random place
    (training, rng given) or centred (test, rng None).  Where a segment is shorter than the span (T
    - 1) * stride + 1 of a clip, the clips overlap: their starts are spread evenly over [0, N -
    span], in training moved by up to half of their distance. Returns int64 (K,), ascending, in [0,
    max(N - span, 0)].
    """
    span = (frames - 1) * stride + 1
    last = max(n_frames - span, 0)
    segment = n_frames / clips
    if segment >= span:
        room = segment - span
        offset = np.full(clips, 0.5) if rng is None else rng.random(clips)
        starts = np.floor(np.arange(clips) * segment + offset * room + 0.5 * (rng is None))
    else:
        even = np.linspace(0, last, clips) if clips > 1 else np.array([last / 2])
        half = last / (2 * (clips - 1)) if clips > 1 else last / 2
        jitter = 0.0 if rng is None else rng.uniform(-half, half, clips)
        starts = np.floor(even + jitter + 0.5)
    return np.clip(starts, 0, last).astype(np.int64)


def frame_indices(n_frames, starts, frames, stride=1):
    """Frame numbers (K, T) of the clips; past the end of a short video its last frame is repeated.
    """
    return np.minimum(starts[:, None] + np.arange(frames) * stride, n_frames - 1)


def check_lengths(lengths, span):
    """Refuse videos of fewer than 2 frames; warn, by name, of videos shorter than a clip (their end
    is padded).

    lengths  dict video -> frames;   span  frames that a clip covers
    """
    broken = [video for video, n in lengths.items() if n < 2]
    if broken:
        raise NbkitError(f"videos with fewer than 2 frames cannot be used: {', '.join(broken[:10])}. Drop their rows.")
    short = [f"{video} ({n})" for video, n in lengths.items() if n < span]
    if short:
        more = f" and {len(short) - 10} more" if len(short) > 10 else ""
        warnings.warn(
            f"{len(short)} videos are shorter than a clip of {span} frames; their last frame is repeated: "
            f"{', '.join(short[:10])}{more}",
            stacklevel=3,
        )


def change_colours(rgb, gain, offset):
    """In place, on bytes: each channel of rgb uint8 (K, T, H, W, 3) becomes gain * value + offset;
    gain, offset (3,).

    By table look-up while one video is in the processor's cache: three times faster than on the
    batch of floats.
    """
    levels = np.arange(256)[:, None] * gain + 255 * offset  # (256, 3)
    table = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[None]  # (1, 256, 3)
    flat = rgb.reshape(-1, rgb.shape[-2], 3)  # (K T H, W, 3), a view
    cv2.LUT(flat, table, dst=flat)


def video_labels(table, withhold_labels):
    """int64 (N,) class ids of a table, or all -1 where labels are withheld (they are then not even
    read).
    """
    if withhold_labels:
        return np.full(len(table), HIDDEN, np.int64)
    return table["label"].to_numpy(np.int64)


def visible(table, withhold_labels):
    """The table with rows numbered from 0, without its label and class_name columns where labels
    are withheld.
    """
    hidden = ["label", "class_name"] if withhold_labels else []
    return table.reset_index(drop=True).drop(columns=hidden, errors="ignore")


class ClipDataset(Dataset):
    """K clips of T frames of every video of a table, RGB and flow aligned, read from a VideoCache.

    cache            VideoCache holding (at least) the table's videos table            VideoTable
    rows of one domain and one split clips, frames    K and T;  stride: distance between frames of a
    clip crop             side of the square crop in pixels, <= the cache's size (None: the whole
    picture) augment          True: random clip starts, one random crop and horizontal flip per
    video (the same for all of its
                     clips and both modalities; a flip negates u), mild colour jitter of RGB.
                     False: all centred
    flow_clip        flow in pixels that becomes 1.0 (None: the cache's own clip) withhold_labels
    True: every label is -1, and `table` loses its label and class_name columns.  The only way in
                     which target training data is handed out
    seed             with the epoch (see set_epoch) and the index it fixes an item's randomness: the
    order of access,
                     the number of workers and a resumed run change nothing
    flip             allow horizontal flips (turn off where left and right are different classes)
    jitter           strength of the brightness, contrast and colour change, 0 = none

    An item: rgb float32 (K, 3, T, H, W) in [0, 1], flow float32 (K, 2, T, H, W) in [-1, 1], label,
    index.
    """

    def __init__(self, cache, table, *, clips=3, frames=16, stride=1, crop=None, augment=False, flow_clip=None,
                 withhold_labels=False, seed=0, flip=True, jitter=0.15):
        self.cache, self.labels = cache, video_labels(table, withhold_labels)
        self.table = visible(table, withhold_labels)
        self.clips, self.frames, self.stride = clips, frames, stride
        self.crop = cache.size if crop is None else crop
        if not 0 < self.crop <= cache.size:
            raise NbkitError(f"crop={crop}: must be between 1 and the cache's size {cache.size}.")
        self.augment, self.flip, self.jitter = augment, flip, jitter
        self.flow_clip = cache.flow_clip if flow_clip is None else flow_clip
        self.seed, self.epoch = seed, 0
        self.videos = self.table["video"].tolist()
        self.lengths = {video: cache.n_frames(video) for video in self.videos}
        check_lengths(self.lengths, (frames - 1) * stride + 1)

    def __len__(self):
        return len(self.videos)

    def set_epoch(self, epoch):
        """Choose the epoch whose random starts, crops, flips and colours the items show."""
        self.epoch = int(epoch)

    def plan(self, index):
        """What item `index` shows in this epoch: frames (K, T), (top, left), flip, RGB gain and
        offset.
        """
        rng = np.random.default_rng((self.seed, self.epoch, index)) if self.augment else None
        n, room = self.lengths[self.videos[index]], self.cache.size - self.crop
        starts = clip_starts(n, self.clips, self.frames, self.stride, rng)
        if rng is None:
            return frame_indices(n, starts, self.frames, self.stride), (room // 2, room // 2), False, None
        top, left = rng.integers(0, room + 1, 2)
        flip = bool(rng.random() < 0.5) and self.flip
        contrast, light, colour = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1, 3)
        gain = 1 + self.jitter * (contrast + 0.5 * colour)  # (3,)
        # contrast about mid-grey, then brightness
        offset = 0.5 * (1 - gain) + 0.5 * self.jitter * light
        return frame_indices(n, starts, self.frames, self.stride), (top, left), flip, (gain, offset)

    def fill(self, index, rgb, flow):
        """Copy item `index` as bytes into rgb (K, T, H, W, 3) and flow (K, T, H, W, 2)."""
        chosen, (top, left), flip, colour = self.plan(index)
        video, rows = self.videos[index], slice(top, top + self.crop)
        columns = slice(left, left + self.crop)
        for source, out in ((self.cache.rgb(video), rgb), (self.cache.flow(video), flow)):
            for k, times in enumerate(chosen):
                # no repeated frame at the end
                steady = times[-1] - times[0] == (len(times) - 1) * self.stride
                where = slice(times[0], times[-1] + 1, self.stride) if steady else times
                out[k] = source[where][:, rows, columns]  # (T, H, W, channels)
        if flip:
            for out in (rgb, flow):
                lines = out.reshape(-1, *out.shape[-2:])  # (K T H, W, channels), a view
                cv2.flip(lines, 1, dst=lines)
            # 256 - byte: u changes its sign, v does not
            np.negative(flow[..., 0], out=flow[..., 0])
        if colour is not None and self.jitter:
            change_colours(rgb, *colour)

    def __getitem__(self, index):
        return {name: value[0] for name, value in load_batch(self, [index]).items()}


def load_batch(dataset, indices):
    """Assemble a batch without a DataLoader: bytes first, one conversion to float at the end.

    dataset  ClipDataset;   indices  positions in its table, B of them Returns dict: rgb float32 (B,
    K, 3, T, H, W) in [0, 1], flow float32 (B, K, 2, T, H, W) in [-1, 1], label int64 (B,), index
    int64 (B,).
    """
    indices = np.asarray(indices, np.int64)
    shape = (len(indices), dataset.clips, dataset.frames, dataset.crop, dataset.crop)
    rgb, flow = np.empty((*shape, 3), np.uint8), np.empty((*shape, 2), np.uint8)
    for row, index in enumerate(indices):
        dataset.fill(int(index), rgb[row], flow[row])
    colours = _channels_first(rgb).div_(255)  # (B, K, 3, T, H, W)
    motion = _channels_first(flow)  # (B, K, 2, T, H, W)
    motion.sub_(ZERO).mul_(dataset.cache.flow_clip / LEVELS / dataset.flow_clip)
    if dataset.flow_clip < dataset.cache.flow_clip:
        motion.clamp_(-1, 1)
    labels = torch.from_numpy(dataset.labels[indices])
    return {"rgb": colours, "flow": motion, "label": labels, "index": torch.from_numpy(indices)}


def _channels_first(stored):
    """uint8 (B, K, T, H, W, C) -> contiguous float32 (B, K, C, T, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(stored, -1, 2))).float()
