"""The rendered demo domains on disk: encoded video files in the layout of UCF101."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from nbkit.demo.actions import ACTIONS, FPS
from nbkit.demo.render import render_video
from nbkit.demo.style import DOMAINS
from nbkit.errors import NbkitError
from nbkit.files import atomically, not_written, remove_parts

VERSION = 3  # raised whenever the pixels of a seed change
SPLITS = ("train", "val", "test")
CLIPS_PER_GROUP = 4
CLASS_NAMES = {action: action.title().replace("_", "") for action in ACTIONS}
# files of a demo folder, half written ones and what file managers leave
OURS = re.compile(
    rf"(.*/)?(\.DS_Store|Thumbs\.db)|demo\.json|({'|'.join(DOMAINS)})/(videos|boxes|splits)/"
    r"(\w+list01\.txt|classInd\.txt|(?P<own>\w+)/v_(?P=own)_g\d+_c\d+\.(avi|npz))"
    r"(\.[0-9a-f]{12}\.part)?"
)


class _Job(NamedTuple):
    video: Path
    truth: Path
    what: dict[str, Any]  # arguments of `render_video`


def write_demo(
    root: str | os.PathLike,
    *,
    videos_per_class: dict[str, int] | None = None,
    seed: int = 0,
    shift: float = 1.0,
    size: int = 96,
    frames: int = 32,
    workers: int = 2,
    untrimmed_fraction: float = 0.0,
    haze: float = 0.0,
) -> Path:
    """Render and encode the demo domains below `root`, unless they are there; return root.

    Every domain gets `videos/<Class>/v_<Class>_gXX_cYY.avi`, `splits/{train,val,test}list01.txt`,
    `splits/classInd.txt` and `boxes/<Class>/<video>.npz` (see `read_boxes`); `root/demo.json`
    holds the settings.  The same arguments write the same bytes.  What is there is kept, so that a
    call goes on after a kill, and makes again what was deleted; demo data of other settings is
    replaced.

    Args:
        videos_per_class: per domain, by split (default train 40, val 20, test 40; val may be 0).
        seed, shift, size, frames, haze: see `render_video`; the splits use different seeds and
            different recording groups (gXX).
        workers: threads that render side by side.
        untrimmed_fraction: in [0, 1], the part of the videos of every split that are untrimmed.

    Raises:
        NbkitError: a bad value, a full disk, or `root` holds anything that was not written here.
    """
    counts = {"train": 40, "val": 20, "test": 40}
    if videos_per_class is not None:
        counts = dict(videos_per_class)
    settings = {
        "version": VERSION,
        "seed": seed,
        "shift": float(shift),
        "size": size,
        "frames": frames,
        "domains": list(DOMAINS),
        "untrimmed_fraction": float(untrimmed_fraction),
        "videos_per_class": {split: int(counts.get(split, 0)) for split in SPLITS},
        "fps": FPS,
        "classes": CLASS_NAMES,
    }
    if haze:
        settings["haze"] = float(haze)
    _check(settings, counts)
    root = Path(root)
    try:
        _write(root, settings, workers)
    except OSError as error:
        raise not_written(root, error) from error
    return root


def read_boxes(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """What lies beside a demo video.

    Returns:
        boxes (N, 4) float32 pixels x0, y0, x1, y1 (zeros: nobody there), action (N,) bool, and
        masks (N, H, W) bool of the whole actor.

    Raises:
        NbkitError: the file is missing or broken.
    """
    try:
        with np.load(path) as file:
            shape = tuple(file["shape"])
            packed = np.frombuffer(zlib.decompress(file["masks"].tobytes()), np.uint8)
            masks = np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)
            return {"boxes": file["boxes"], "action": file["action"], "masks": masks}
    except (OSError, KeyError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise NbkitError(
            f"{path}: not a readable box file ({error}); render the demo data again"
        ) from error


def encode(path: str | os.PathLike, frames: np.ndarray) -> None:
    """Write frames (N, H, W, 3) uint8 as MPEG-4 in AVI, always the same bytes."""
    quantiser = {"qmin": "3", "qmax": "3"}
    with av.open(path, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=FPS, options=quantiser)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # One key frame: a later one renews the noise of the whole picture, which looks like motion.
        stream.codec_context.gop_size = max(len(frames), 12)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


# --- what is asked for, and what is there --------------------------------------------------------
def _check(settings, counts):
    least = min(counts.get("train", 0), counts.get("test", 0))
    if not set(counts) <= set(SPLITS) or least < 1 or min(counts.values()) < 0:
        raise NbkitError(
            f"videos_per_class={counts}: needs train and test of at least 1; val may be 0; "
            "nothing else"
        )
    if not 0 <= settings["untrimmed_fraction"] <= 1 or not 0 <= settings["shift"] <= 1:
        raise NbkitError("shift and untrimmed_fraction must be between 0 and 1")
    if settings["size"] % 2:
        raise NbkitError(f"size={settings['size']} must be even")


def _is_written(root: Path, settings: dict) -> bool:
    """Whether `root` holds demo data of exactly these settings, or a part of it."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((root / "demo.json").read_text(encoding="utf-8")) == settings
    return False


def _remove_other_demo(root: Path) -> None:
    """Delete demo data of other settings: never a file that this module did not write."""
    if root.exists() and not root.is_dir():
        raise NbkitError(f"{root}: is a file; the demo data needs a folder")
    files = [path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = [path.relative_to(root).as_posix() for path in files]
    strange = sorted(name for name in names if not OURS.fullmatch(name))
    if strange:
        raise NbkitError(
            f"{root}: holds {', '.join(strange[:5])}, which is not demo data; "
            "move it away or choose an empty folder"
        )
    # the settings last: a call that is killed here finds the rest again
    for path in sorted(files, key=lambda path: path.name == "demo.json"):
        path.unlink()
    for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
        folder.rmdir()


# --- writing -------------------------------------------------------------------------------------
def _write(root: Path, settings: dict, workers: int) -> None:
    if not _is_written(root, settings):
        _remove_other_demo(root)
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        atomically(root / "demo.json", lambda part: part.write_text(text, encoding="utf-8"))
    remove_parts(root)
    jobs = [job for domain in DOMAINS for job in _plan(root, domain, settings)]
    _run([job for job in jobs if not _holds(job.video) or not _holds(job.truth)], workers)


def _holds(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _plan(folder: Path, domain: str, settings: dict) -> Iterator[_Job]:
    splits = folder / domain / "splits"
    lines = [f"{number} {name}\n" for number, name in enumerate(CLASS_NAMES.values(), 1)]
    _write_list(splits / "classInd.txt", lines)
    first_group, untrimmed = 1, settings["untrimmed_fraction"]
    for split_number, split in enumerate(SPLITS):
        count = settings["videos_per_class"][split]
        lines = []
        for label, (action, name) in enumerate(CLASS_NAMES.items(), 1):
            for kind in ("videos", "boxes"):
                (folder / domain / kind / name).mkdir(parents=True, exist_ok=True)
            for k in range(count):
                group, clip = first_group + k // CLIPS_PER_GROUP, k % CLIPS_PER_GROUP + 1
                stem = f"{name}/v_{name}_g{group:02d}_c{clip:02d}"
                if split == "train":
                    lines.append(f"{stem}.avi {label}\n")
                else:
                    lines.append(f"{stem}.avi\n")
                video = folder / domain / "videos" / f"{stem}.avi"
                truth = folder / domain / "boxes" / f"{stem}.npz"
                seed = np.random.SeedSequence([settings["seed"], split_number, k])
                what = {
                    "action": action,
                    "domain": domain,
                    "seed": int(seed.generate_state(1)[0]),
                    "untrimmed": int((k + 1) * untrimmed) > int(k * untrimmed),
                    "haze": settings.get("haze", 0.0),
                }
                what |= {name: settings[name] for name in ("shift", "size", "frames")}
                yield _Job(video, truth, what)
        _write_list(splits / f"{split}list01.txt", lines)
        first_group += -(-count // CLIPS_PER_GROUP)


def _write_list(path: Path, lines: list[str]) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != "".join(lines):
        atomically(path, lambda part: part.write_text("".join(lines), encoding="utf-8"))


def _run(jobs: list[_Job], workers: int) -> None:
    # Threads, not processes: a child process would import the caller's script anew, and start it
    # again where it has no `if __name__ == "__main__"`.
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        for _ in pool.map(_write_video, jobs):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _write_video(job: _Job) -> None:
    video = render_video(**job.what)
    bits = np.packbits(video.masks).tobytes()
    truth = {
        "boxes": video.boxes,
        "action": video.action,
        "masks": np.frombuffer(zlib.compress(bits, 1), np.uint8),
        "shape": np.array(video.masks.shape),
    }

    def save(part: Path) -> None:
        with part.open("wb") as file:  # numpy would add a suffix to a name
            np.savez(file, **truth)

    atomically(job.truth, save)
    atomically(job.video, lambda part: encode(part, video.frames))
