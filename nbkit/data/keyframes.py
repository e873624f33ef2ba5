"""Key frames with their clips and boxes: what the localizer trains on and is evaluated on."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from nbkit.data.boxes import clean_boxes, tubes_of
from nbkit.data.frame_cache import FrameCache, scale_boxes
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import Tube


def action_tubes(row, number: int, native: tuple[int, int], size: tuple[int, int], n_frames: int) -> list[Tube]:
    """Ground-truth tubes of one video in the pixels of the resized frame.

    Args:
        row: a table row with `video`, `boxes`, `path`, `class_name`, `label`.
        number: the video's number in its list. native, size: (height, width) of the file and of
            the cache.
        n_frames: decodable frames; annotation beyond them is cut off.
    Frames without a box (no actor, an empty mask, no action going on) are in no tube; where the
    action stops for a while a new tube begins.
    """
    tubes = []
    for tube in tubes_of(row).tubes:
        boxes = np.asarray(tube.boxes, dtype=np.float64)[:max(n_frames - tube.start, 0)]
        if len(boxes) == 0:
            continue
        boxes = scale_boxes(clean_boxes(boxes, *native, str(row["video"])), native, size)
        tubes.append(Tube(number, int(row["label"]), np.arange(tube.start, tube.start + len(boxes)), boxes))
    return tubes


def clip_indices(frame: int, length: int, stride: int, n_frames: int) -> np.ndarray:
    """(length,) frame numbers of the clip around a key frame; beyond the ends the first or last
    frame is repeated, so that a video shorter than the clip works too.
    """
    return np.clip(frame + stride * (np.arange(length) - length // 2), 0, n_frames - 1)


class KeyframeDataset:
    """Every `key_stride`-th frame of some videos with the clip around it, and boxes where labels
    may be seen.

    Args:
        cache: from `build_frame_cache`. table: rows of one domain and split.
        clip_len, clip_stride: T and the step between its frames. key_stride: step between key
            frames.
        background: keep labelled frames on which nobody acts (evaluation on untrimmed video
            needs them; training
            does without by default, as in the paper).
        withhold_labels: the unlabelled domain. Annotation is not even opened: all frames are
            listed, and every
            batch has empty boxes.
        augment: horizontal flip and a little brightness and contrast, the same for key frame
            and clip, drawn from
            (seed, epoch, index) alone.
    """

    def __init__(self, cache: FrameCache, table: pd.DataFrame, *, clip_len: int = 16, clip_stride: int = 1,
                 key_stride: int = 4, background: bool = False, withhold_labels: bool = False, augment: bool = False,
                 seed: int = 0):
        if min(clip_len, clip_stride, key_stride) < 1:
            raise NbkitError("clip_len, clip_stride and key_stride must be at least 1")
        if len(table) == 0:
            raise NbkitError("no videos for localization in this domain and split. Run `nbkit check-data`")
        self.cache, self.clip_len, self.clip_stride = cache, clip_len, clip_stride
        self.withhold_labels, self.augment, self.seed, self.epoch = withhold_labels, augment, seed, 0
        self.videos = [str(v) for v in table["video"]]
        self.n_frames = [cache.n_frames(v) for v in self.videos]
        self.tubes: list[Tube] = []
        if not withhold_labels:
            for number, (_, row) in enumerate(table.iterrows()):
                native = cache.native_size(row["video"])
                self.tubes += action_tubes(row, number, native, cache.size, self.n_frames[number])
        self._boxes = self._boxes_by_frame()
        everything = [(v, f) for v, n in enumerate(self.n_frames) for f in range(0, n, key_stride)]
        self.keys = everything if withhold_labels or background else [k for k in everything if k in self._boxes]
        if not self.keys:
            raise NbkitError("not one key frame has a box; check the annotation, or pass background=True")

    def _boxes_by_frame(self) -> dict[tuple[int, int], tuple[list, list]]:
        table: dict[tuple[int, int], tuple[list, list]] = {}
        for tube in self.tubes:
            for frame, box in zip(tube.frames, tube.boxes):
                boxes, labels = table.setdefault((tube.video, int(frame)), ([], []))
                boxes.append(box)
                labels.append(tube.label)
        return table

    def __len__(self) -> int:
        return len(self.keys)

    def set_epoch(self, epoch: int) -> None:
        """Choose which augmentation the next batches get."""
        self.epoch = epoch

    def item(self, index: int) -> dict:
        """One key frame: `keyframe` (3, H, W), `clip` (3, T, H, W) in [0, 1], `boxes` (n, 4),
        `labels` (n,).
        """
        video, frame = self.keys[index]
        frames = self.cache.frames(self.videos[video])
        wanted = clip_indices(frame, self.clip_len, self.clip_stride, len(frames))
        clip = frames[np.r_[frame, wanted]].astype(np.float32) / 255.0  # (1 + T, H, W, 3)
        boxes, labels = self._boxes.get((video, frame), ([], []))
        boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        if self.augment:
            clip, boxes = _augment(clip, boxes, np.random.default_rng([self.seed, self.epoch, index]))
        # (3, 1 + T, H, W)
        pixels = torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)))
        return {"keyframe": pixels[:, 0], "clip": pixels[:, 1:], "boxes": torch.from_numpy(boxes),
                "labels": torch.tensor(labels, dtype=torch.int64), "video": video, "frame": frame}

    def batch(self, indices: Sequence[int]) -> dict:
        """Items side by side: tensors `keyframe` and `clip`, lists `boxes` and `labels`, arrays
        `video`, `frame`.
        """
        items = [self.item(int(i)) for i in indices]
        return {"keyframe": torch.stack([i["keyframe"] for i in items]), "clip": torch.stack([i["clip"] for i in items]),
                "boxes": [i["boxes"] for i in items], "labels": [i["labels"] for i in items],
                "video": np.array([i["video"] for i in items]), "frame": np.array([i["frame"] for i in items])}


def _augment(clip: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(1+T, H, W, 3) in [0, 1] and its (n, 4) boxes, perhaps mirrored, a little brighter, darker,
    flatter, steeper.
    """
    if rng.uniform() < 0.5:
        width = clip.shape[2]
        clip = clip[:, :, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    return np.clip((clip - 0.5) * contrast + 0.5 + brightness, 0, 1).astype(np.float32), boxes.astype(np.float32)
