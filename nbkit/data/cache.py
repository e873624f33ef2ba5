"""Decode every video and compute its flow once; training then reads bytes by memory map and never opens a video."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nbkit.data.decode import probe, read_video
from nbkit.data.flow import METHODS, compute_flow, quantise
from nbkit.data.store import GrowingArray, fingerprint, key_of, new_folder, require_space, write_json
from nbkit.errors import NbkitError

VERSION = 1  # raise it when the same videos and settings would give other bytes
LISTED = 20  # broken videos named in one message


class VideoCache:
    """A finished cache folder: rgb.npy, flow.npy (all videos, one after another), index.csv, settings.json.

    Attributes: size (pixels), flow_clip (pixels that byte 255 of a flow means), settings (dict), index (DataFrame).
    Raises NbkitError where the folder is not a whole cache.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.settings = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
            self.index = pd.read_csv(self.folder / "index.csv", dtype={"video": str}, keep_default_na=False)
            self._rgb, self._flow = (
                np.load(self.folder / name, mmap_mode="r").view(np.ndarray)  # slicing a plain view is twice as fast
                for name in ("rgb.npy", "flow.npy")
            )
        except (OSError, ValueError) as error:
            raise NbkitError(f"{self.folder}: not a whole cache ({error}). Delete it and build it again.") from error
        self.size, self.flow_clip = self.settings["size"], self.settings["flow_clip"]
        self._place = {
            video: slice(start, start + frames)
            for video, start, frames in self.index[["video", "start", "frames"]].itertuples(index=False)
        }
        if not len(self._rgb) == len(self._flow) == self.index["frames"].sum():
            raise NbkitError(f"{self.folder}: index.csv and the arrays disagree. Delete it and build it again.")

    def __reduce__(self):  # worker processes map the files themselves instead of receiving a copy
        return VideoCache, (self.folder,)

    def __len__(self):
        return len(self._place)

    def __contains__(self, video):
        return video in self._place

    def _slice(self, video):
        try:
            return self._place[video]
        except KeyError:
            message = f"video {video!r} is not in the cache {self.folder}. Build it from the whole table."
            raise NbkitError(message) from None

    def rgb(self, video):
        """uint8 (N, size, size, 3), a read-only view of the file."""
        return self._rgb[self._slice(video)]

    def flow(self, video):
        """uint8 (N, size, size, 2): flow in pixels of this size, see nbkit.data.flow.dequantise."""
        return self._flow[self._slice(video)]

    def n_frames(self, video):
        """Number of frames (and of flows) of a video."""
        place = self._slice(video)
        return place.stop - place.start


def square(frames, size):
    """Resize the short side to `size` and cut the centre square: (N, H, W, C) -> (N, size, size, C), and the scale."""
    import cv2

    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    tall, wide = max(size, round(height * scale)), max(size, round(width * scale))
    top, left = (tall - size) // 2, (wide - size) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = np.empty((len(frames), size, size, frames.shape[3]), frames.dtype)
    for t, frame in enumerate(frames):
        resized = frame if (tall, wide) == (height, width) else cv2.resize(frame, (wide, tall), interpolation=how)
        out[t] = resized[top : top + size, left : left + size]
    return out, scale


def prepare_video(path, size, flow, flow_clip, max_frames=None):
    """One video's share of the cache: uint8 rgb (N, size, size, 3) and flow (N, size, size, 2).

    The flow is computed at the video's own resolution, where limbs are still wider than the estimator's patches; its
    vectors shrink with the picture.
    """
    import cv2

    cv2.setNumThreads(1)
    frames = read_video(path, max_frames)
    if len(frames) < 2:
        raise NbkitError(f"{path}: only {len(frames)} frame; a clip needs at least 2. Drop its row.")
    small, _ = square(frames, size)
    vectors, scale = square(compute_flow(frames, flow, clip=None), size)
    return small, quantise(vectors * scale, flow_clip)


def _attempt(path, **how):
    """prepare_video, or the message of what is wrong: one broken file must not hide the next one."""
    try:
        return prepare_video(path, **how)
    except NbkitError as error:
        return str(error)


def _raise_all(problems):
    more = f"\n... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    if problems:
        raise NbkitError("these videos cannot be used (no cache was written):\n" + "\n".join(problems[:LISTED]) + more)


def _check_files(table, max_frames):
    """Look at every file before any work: the number of frames of each, or one error naming all that fail."""
    frames, problems = [], []
    for path in table["path"]:
        try:
            found = probe(path).frames
            frames.append(found if max_frames is None else min(found, max_frames))
        except NbkitError as error:
            problems.append(str(error))
    _raise_all(problems)
    return frames


def _results(paths, work, workers):
    """work(path) for every path, in order, over processes."""
    if workers <= 1:
        yield from map(work, paths)
        return
    context = get_context("spawn")  # a forked child hangs where OpenCV or torch has already started threads
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield from pool.map(work, paths, chunksize=4)
    except BrokenProcessPool as error:
        raise NbkitError("a decoding process died (out of memory?). Try again with workers=1.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def build_cache(table, cache_dir, *, size, flow="dis", flow_clip=None, workers=2, progress=True, max_frames=None):
    """Decode all videos of a table and compute their flow, once.

    table      VideoTable (columns video, path), any domains and splits together
    cache_dir  folder that holds caches; this one becomes cache_dir/videos-<key>, key = hash of files and settings
    size       side of the stored square pictures, pixels
    flow       'dis' | 'tvl1';  flow_clip: displacement in pixels *of the stored size* that becomes byte 255
               (default size / 8: 6 pixels at 48)
    workers    processes;  progress: show a bar;  max_frames: keep only the start of long videos
    Returns VideoCache.  A finished cache of the same key is reused; an interrupted or failed build leaves nothing.
    Raises NbkitError naming every broken file, or the folder where the disk is full.
    """
    if flow not in METHODS:
        raise NbkitError(f"flow: unknown method {flow!r}; choose one of {sorted(METHODS)}.")
    flow_clip = size / 8 if flow_clip is None else float(flow_clip)
    if size < 8 or flow_clip <= 0:
        raise NbkitError(f"size={size}, flow_clip={flow_clip}: size must be at least 8 and flow_clip above 0.")
    if table["video"].duplicated().any():
        raise NbkitError(f"video ids must be unique; {table['video'][table['video'].duplicated()].iloc[0]!r} is not.")
    if not all(Path(path).is_file() for path in table["path"]):
        _check_files(table, max_frames)  # raises, naming all of them
    how = {"size": int(size), "flow": flow, "flow_clip": flow_clip, "max_frames": max_frames}
    files = {video: fingerprint(path) for video, path in zip(table["video"], table["path"])}
    key = key_of({"version": VERSION, "files": sorted(files.items()), **how})
    final = Path(cache_dir) / f"videos-{key}"
    if final.exists():
        return VideoCache(final)
    counts = _check_files(table, max_frames)
    require_space(cache_dir, sum(counts) * size * size * 5)
    work = partial(_attempt, **how)
    with new_folder(final) as folder:
        _write(folder, table, work, workers, progress)
        write_json(folder / "settings.json", {"key": key, "version": VERSION, "videos": len(table), **how})
    return VideoCache(final)


def _write(folder, table, work, workers, progress):
    """Fill the folder's arrays and index; raise NbkitError naming all videos that did not decode."""
    size = work.keywords["size"]
    rgb = GrowingArray(folder / "rgb.npy", (size, size, 3), np.uint8)
    flow = GrowingArray(folder / "flow.npy", (size, size, 2), np.uint8)
    rows, problems, start = [], [], 0
    results = _results(table["path"].tolist(), work, workers)
    try:
        for video, result in zip(table["video"], tqdm(results, "videos", len(table), disable=not progress)):
            if isinstance(result, str):
                problems.append(result)
            elif not problems:
                rgb.append(result[0])
                flow.append(result[1])
                rows.append((video, start, len(result[0])))
                start += len(result[0])
        _raise_all(problems)
    except BaseException:
        results.close()
        rgb.close(whole=False)
        flow.close(whole=False)
        raise
    rgb.close()
    flow.close()
    pd.DataFrame(rows, columns=["video", "start", "frames"]).to_csv(folder / "index.csv", index=False)
