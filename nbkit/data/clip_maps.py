"""Maps of a frozen 3-D network over whole videos, stored once; the localizer trains above them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbkit.data.arrays import VideoArrays, key_of
from nbkit.data.frame_cache import FrameCache

# raise it when the same frames would give other maps
VERSION = 1
# the last frozen layer; the next one, Mixed_4e, is the first that a localizer trains
LAYER, CHANNELS = "Mixed_4d", 512
# frames per map, and pixels per cell
TIME, SPACE = 4, 16
# Frames read together, and those that are read before and after them as well: a map depends on 23
# frames before its first and 23 behind its last.
PIECE, CONTEXT = 192, 24


class ClipMaps:
    """Maps (t, 512, h, w) of every video and of its mirror image, one for every four frames.

    Attributes:
        key: stands for the frames and for the network.
    """

    def __init__(self, arrays: VideoArrays, key: str):
        self.arrays, self.key = arrays, key

    def clip(self, video: str, frame: int, length: int, mirrored: bool) -> np.ndarray:
        """The maps around a key frame, (512, length / 4, h, w) float32; the ends are repeated."""
        stored = self.arrays.read(video)  # (t, 2, 512, h, w)
        wanted = frame // TIME + np.arange(length // TIME) - length // TIME // 2
        maps = stored[np.clip(wanted, 0, len(stored) - 1), int(mirrored)]
        return np.ascontiguousarray(maps.transpose(1, 0, 2, 3), np.float32)


def build_clip_maps(
    frames: FrameCache, cache_dir: str | Path, network: Any, progress: bool = True
) -> ClipMaps:
    """Maps of all videos of `frames`; those that an earlier call has stored are not made again.

    Args:
        network: `clip_maps` turns clips (N, 3, T, H, W) in [0, 1] into the output of a layer; `key`
            stands for it.
        cache_dir: the files become cache_dir/maps-<network>/<video>.npy, 72 kB per frame of 160 by
            213 pixels.

    Raises:
        NbkitError: the disk has too little space.
    """
    height, width = frames.size
    settings = {"version": VERSION, "network": network.key, "layer": LAYER, "size": [height, width]}
    names = {video: path.stem for video, path in frames.arrays.paths.items()}
    shape = (2, CHANNELS, -(-height // SPACE), -(-width // SPACE))
    folder = Path(cache_dir) / f"maps-{key_of(settings)}"
    arrays = VideoArrays(folder, names, shape, np.float16)

    def rows(video: str) -> int:
        return -(-frames.n_frames(video) // TIME)

    def work(video: str) -> np.ndarray:
        pixels = frames.frames(video)  # (N, H, W, 3)
        both = [maps_of_video(view, network) for view in (pixels, pixels[:, :, ::-1])]
        return np.stack(both, axis=1)

    arrays.make_missing(rows, work, title="maps", progress=progress)
    return ClipMaps(arrays, key_of({"frames": frames.key, **settings}))


def maps_of_video(pixels: np.ndarray, network: Any) -> np.ndarray:
    """Maps of a whole video, read in pieces: uint8 (N, H, W, 3) -> float16 (t, 512, h, w).

    The last frame is repeated up to a multiple of four: the padding of another length would shift
    all maps by a frame.
    """
    numbers = np.minimum(np.arange(-(-len(pixels) // TIME) * TIME), len(pixels) - 1)  # (4 t,)
    found = []
    for first in range(0, len(numbers), PIECE):
        before = min(first, CONTEXT)
        wanted = numbers[first - before : first + PIECE + CONTEXT]
        piece = pixels[wanted].astype(np.float32) / 255
        clip = torch.from_numpy(piece).permute(3, 0, 1, 2)[None]  # (1, 3, N, H, W)
        maps = network.clip_maps(clip, LAYER)[0].transpose(0, 1)  # (t, 512, h, w)
        kept = maps[before // TIME :][: PIECE // TIME]
        found.append(kept.cpu().numpy().astype(np.float16))
    return np.concatenate(found)
