"""Key frames with their clips and boxes: what the localizer trains on and is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from nbkit.data.arrays import answers_of
from nbkit.data.boxes import clean_boxes, fitting_tubes
from nbkit.data.clip_maps import ClipMaps
from nbkit.data.frame_cache import FrameCache, scale_boxes
from nbkit.errors import NbkitError
from nbkit.evaluate.detections import Tube


def action_tubes(row: pd.Series, number: int, cache: FrameCache) -> list[Tube]:
    """Ground-truth tubes of one video in the pixels of the resized frame.

    Frames without a box (no actor, an empty mask, no action going on) are in no tube; where the
    action stops for a while a new tube begins.

    Args:
        row: of the resolved table.
        number: the video's number in its list.

    Raises:
        NbkitError: the annotation counts other frames than the cache, or has an impossible box.
    """
    video, tubes = str(row["video"]), []
    native = cache.native_size(video)
    for tube in fitting_tubes(row, cache.n_frames(video)).tubes:
        boxes = scale_boxes(clean_boxes(tube.boxes, *native, video), native, cache.size)
        frames = np.arange(tube.start, tube.start + len(boxes))
        tubes.append(Tube(number, int(row["label"]), frames, boxes))
    return tubes


def clip_indices(frame: int, length: int, stride: int, n_frames: int) -> np.ndarray:
    """Frame numbers (length,) of the clip around a key frame; the video's ends are repeated."""
    return np.clip(frame + stride * (np.arange(length) - length // 2), 0, n_frames - 1)


class KeyframeDataset:
    """Every `key_stride`-th frame of some videos with the clip around it, and boxes where allowed.

    Args:
        cache: from `build_frame_cache`.
        table: rows of one domain and split.
        maps: what a frozen network made of the videos, for a detector that reads them instead of
            the clip's pixels; None: the pixels.
        clip_len, clip_stride: T and the step between its frames.
        key_stride: step between key frames.
        background: keep labelled frames on which nobody acts.  Evaluation on untrimmed video needs
            them; training does without by default, as in the paper.
        withhold_labels: the unlabelled domain.  Annotation is not even opened: all frames are
            listed, and every batch has empty boxes.
        augment: horizontal flip and a little brightness and contrast, the same for key frame and
            clip, drawn from (seed, epoch, index) alone.
    """

    def __init__(
        self,
        cache: FrameCache,
        table: pd.DataFrame,
        maps: ClipMaps | None = None,
        *,
        clip_len: int,
        clip_stride: int = 1,
        key_stride: int = 4,
        background: bool = False,
        withhold_labels: bool = False,
        augment: bool = False,
        seed: int = 0,
    ):
        self.cache, self.maps = cache, maps
        self.clip_len, self.clip_stride = clip_len, clip_stride
        self.withhold_labels, self.augment = withhold_labels, augment
        self.seed, self.epoch = seed, 0
        self.videos = [str(video) for video in table["video"]]
        self.n_frames = [cache.n_frames(video) for video in self.videos]
        self.tubes: list[Tube] = []
        if not withhold_labels:
            rows = {number: row for number, (_, row) in enumerate(table.iterrows())}
            found = answers_of(
                lambda number: action_tubes(rows[number], number, cache),
                rows,
                "their boxes do not fit",
            )
            self.tubes = [tube for tubes in found.values() for tube in tubes]
        self._boxes: dict[tuple[int, int], list[tuple[np.ndarray, int]]] = {}
        for tube in self.tubes:
            for frame, box in zip(tube.frames, tube.boxes):
                self._boxes.setdefault((tube.video, int(frame)), []).append((box, tube.label))
        self.keys = []
        for video, n in enumerate(self.n_frames):
            self.keys += [(video, frame) for frame in range(0, n, key_stride)]
        if not withhold_labels and not background:
            self.keys = [key for key in self.keys if key in self._boxes]
        if not self.keys:
            raise NbkitError(
                "not one key frame has a box; check the annotation, or pass background=True"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def set_epoch(self, epoch: int) -> None:
        """Choose which augmentation the next batches get."""
        self.epoch = epoch

    def item(self, index: int) -> dict[str, Any]:
        """One key frame (3, H, W), its clip (3, T, H, W) in [0, 1], n boxes and labels.

        Where there are maps, the clip is theirs: (512, T / 4, h, w).
        """
        video, frame = self.keys[index]
        name, wanted = self.videos[video], [frame]
        frames = self.cache.frames(name)
        if self.maps is None:
            wanted += clip_indices(frame, self.clip_len, self.clip_stride, len(frames)).tolist()
        shown = frames[wanted].astype(np.float32) / 255.0  # (1 + T, H, W, 3)
        known = self._boxes.get((video, frame), [])
        boxes = np.array([box for box, _ in known], dtype=np.float32).reshape(-1, 4)
        mirrored = False
        if self.augment:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            shown, boxes, mirrored = _augment(shown, boxes, rng)
        pixels = np.ascontiguousarray(shown.transpose(3, 0, 1, 2))  # (3, 1 + T, H, W)
        clip = pixels[:, 1:]
        if self.maps is not None:
            clip = self.maps.clip(name, frame, self.clip_len, mirrored)
        return {
            "keyframe": torch.from_numpy(pixels[:, 0]),
            "clip": torch.from_numpy(clip),
            "boxes": torch.from_numpy(boxes),
            "labels": torch.tensor([label for _, label in known], dtype=torch.int64),
            "video": video,
            "frame": frame,
        }

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """Items side by side: tensors of pixels, lists of `boxes` and `labels`, arrays."""
        items = [self.item(int(i)) for i in indices]
        found: dict[str, Any] = {name: [item[name] for item in items] for name in items[0]}
        for name in ("keyframe", "clip"):
            found[name] = torch.stack(found[name])
        for name in ("video", "frame"):
            found[name] = np.array(found[name])
        return found


def _augment(
    clip: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(1+T, H, W, 3) in [0, 1] and its (n, 4) boxes, perhaps mirrored (True), in other light."""
    mirrored = bool(rng.uniform() < 0.5)
    if mirrored:
        width = clip.shape[2]
        clip = clip[:, :, ::-1]
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack([width - x2, y1, width - x1, y2], axis=1)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    lit = np.clip((clip - 0.5) * contrast + 0.5 + brightness, 0, 1)
    return lit.astype(np.float32), boxes.astype(np.float32), mirrored
