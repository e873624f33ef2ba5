"""Decode every video and compute its flow once; training then reads bytes by memory map and never
opens a video.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nbkit.data.flow import METHODS, SMALL, compute_flow, quantise
from nbkit.data.resumable import PartialCache
from nbkit.data.sources import count_frames, read_flow, read_frames, source_of, source_print
from nbkit.data.store import key_of, require_space
from nbkit.errors import NbkitError

VERSION = 1  # raise it when the same videos and settings would give other bytes
STORED = "precomputed"  # flow that comes with a dataset
LISTED = 20  # broken videos named in one message


class VideoCache:
    """A finished cache folder: rgb.npy, flow.npy (all videos, one after another), index.csv,
    settings.json.

    Attributes: size (pixels), flow_clip (pixels that byte 255 of a flow means), settings (dict),
    index (DataFrame). Raises NbkitError where the folder is not a whole cache.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.settings = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
            self.index = pd.read_csv(self.folder / "index.csv", dtype={"video": str}, keep_default_na=False)
            self._rgb, self._flow = (
                # slicing a plain view is twice as fast
                np.load(self.folder / name, mmap_mode="r").view(np.ndarray)
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
    """Resize the short side to `size` and cut the centre square: (N, H, W, C) -> (N, size, size,
    C), and the scale.
    """
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


def prepare_video(video, size, flow, flow_clip, max_frames=None, flow_rate=1.0, image_clip=20.0):
    """One video's share of the cache: uint8 rgb (N, size, size, 3) and flow (N, size, size, 2).

    video  Source, or the path of a whole video.  flow  a method of nbkit.data.flow, or
    'precomputed': then `flow_rate` (images a frame) and `image_clip` (pixels of byte 255) say how
    to read the stored images. The flow is computed at the video's own resolution, where limbs are
    still wider than the estimator's patches; its vectors shrink with the picture, and so do stored
    ones.
    """
    import cv2

    cv2.setNumThreads(1)
    source = source_of(video)
    frames = read_frames(source, max_frames)
    if len(frames) < 2:
        raise NbkitError(f"{source.path}: only {len(frames)} frame; a clip needs at least 2. Drop its row.")
    small, _ = square(frames, size)
    motion = read_flow(source, frames.shape, flow_rate, image_clip) if flow == STORED \
        else compute_flow(frames, flow, clip=None)
    vectors, scale = square(motion, size)
    return small, quantise(vectors * scale, flow_clip)


def _attempt(source, **how):
    """prepare_video, or the message of what is wrong: one broken file must not hide the next one.
    """
    try:
        return prepare_video(source, **how)
    except NbkitError as error:
        return str(error)


def _raise_all(problems, kept):
    more = f"\n... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    if problems:
        raise NbkitError(f"these videos cannot be used ({kept}):\n" + "\n".join(problems[:LISTED]) + more)


def _of_all(question, videos):
    """question(source) of every video by name, or one error naming all that fail, before any work.
    """
    answers, problems = {}, []
    for video, source in videos.items():
        try:
            answers[video] = question(source)
        except (NbkitError, OSError) as error:
            problems.append(str(error))
    _raise_all(problems, "no cache was written")
    return answers


def _results(videos, work, workers):
    """work(source) for every video, in order, over processes."""
    if workers <= 1:
        yield from map(work, videos)
        return
    # a forked child hangs where OpenCV or torch has already started threads
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield from pool.map(work, videos, chunksize=4)
    except BrokenProcessPool as error:
        raise NbkitError("a decoding process died (out of memory?). Run it again with workers=1: what is done is kept.") \
            from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def build_cache(table, cache_dir, *, size, flow="dis", flow_clip=None, workers=2, progress=True, max_frames=None,
                flow_rate=1.0, image_clip=20.0):
    """Decode all videos of a table and compute (or read) their flow, once.

    table      resolved table, any domains and splits together: video, path (a file or a folder of
    frames) and, where a
               layout gives them, start_frame, stop_frame, flow_path
    cache_dir  folder that holds caches; this one becomes cache_dir/videos-<key>, key = hash of
    files and settings size       side of the stored square pictures, pixels flow       'dis' |
    'tvl1' | 'raft' (in this process alone, for the GPU) | 'precomputed' (the images at flow_path)
    flow_clip  displacement in pixels *of the stored size* that becomes byte 255 (default size / 8:
    6 pixels at 48) workers    processes;  progress: show a bar;  max_frames: keep only the start of
    long videos flow_rate, image_clip  precomputed only: images a frame, and pixels of the *images*
    that their byte 255 means Returns VideoCache.  A finished cache of the same key is reused; an
    interrupted or failed build goes on, the next time, after the last video that was finished.
    Raises NbkitError naming every broken file, or the folder where the disk is full.
    """
    flow_clip = size / 8 if flow_clip is None else float(flow_clip)
    if size < 8 or flow_clip <= 0:
        raise NbkitError(f"size={size}, flow_clip={flow_clip}: size must be at least 8 and flow_clip above 0.")
    if table["video"].duplicated().any():
        raise NbkitError(f"video ids must be unique; {table['video'][table['video'].duplicated()].iloc[0]!r} is not.")
    how = {"size": int(size), "flow": flow, "flow_clip": flow_clip, "max_frames": max_frames}
    if flow == STORED:
        how |= {"flow_rate": float(flow_rate), "image_clip": float(image_clip)}
    elif flow not in METHODS:
        raise NbkitError(f"flow: unknown method {flow!r}; choose one of {sorted([*METHODS, STORED])}.")
    videos = {row["video"]: source_of(row) for row in table.to_dict("records")}
    if not all(Path(source.path).exists() for source in videos.values()):
        _of_all(count_frames, videos)  # raises, naming all of them
    files = _of_all(partial(source_print, with_flow=flow == STORED, flow_rate=flow_rate), videos)
    key = key_of({"version": VERSION, "files": sorted(files.items()), **how})
    final = Path(cache_dir) / f"videos-{key}"
    if not final.exists():
        settings = {"key": key, "version": VERSION, "videos": len(table), **how}
        _build(final, videos, files, settings, how, workers_for(flow, workers), progress)
    return VideoCache(final)


def workers_for(flow, workers):
    """RAFT runs in one process, pairs of frames in batches; its weights, and OpenCV's modules, are
    looked for first.
    """
    if flow != STORED and METHODS[flow]:
        METHODS[flow](SMALL, SMALL)  # raises where OpenCV lacks the method
    if flow != "raft":
        return workers
    from nbkit.data.flow_raft import pretrained_raft

    if workers > 1:
        print(f"flow='raft' fills the GPU from one process: workers=1 instead of {workers}", flush=True)
    pretrained_raft()
    return 1


def _build(final, videos, files, settings, how, workers, progress):
    """Do what is not done yet, and give the folder its name; raise NbkitError naming all videos
    that did not decode.
    """
    with PartialCache(final, {"version": VERSION, **how}, files, how["size"]) as part:
        if final.exists():  # another process finished it while this one waited
            return
        try:
            _fill(part, videos, how, workers, progress)
        finally:
            if not part.rows:
                part.discard()
        part.finish(settings)


def _fill(part, videos, how, workers, progress):
    todo = {video: source for video, source in videos.items() if video not in part.done}
    counts, most = _of_all(count_frames, todo), how["max_frames"] or float("inf")
    require_space(part.final.parent, sum(min(n, most) for n in counts.values()) * how["size"] ** 2 * 5)
    problems, results = [], _results(todo.values(), partial(_attempt, **how), workers)
    try:
        for video, result in zip(todo, tqdm(results, "videos", len(videos), initial=len(part.done), disable=not progress)):
            if isinstance(result, str):
                problems.append(result)
            else:
                part.add(video, dict(zip(("rgb", "flow"), result)))
    finally:
        results.close()
    _raise_all(problems, f"the other {len(part.rows)} are kept for the next attempt")
