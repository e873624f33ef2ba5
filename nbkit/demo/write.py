"""The rendered demo domains on disk: `studio` and `street`, encoded video files in the layout of
UCF101.

    python -m nbkit.demo.write --root data/demo

An articulated figure performs eight actions. The files pass through the same decoding, flow and
manifest code as real data. The pixels come from `demo_render`, the movements from `demo_actions`,
the domains' differences from `demo_style`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np

from nbkit.data.store import new_folder, write_json
from nbkit.demo.actions import FPS
from nbkit.demo.render import ACTIONS, DOMAINS, DemoVideo, boxes_of, contact_sheet, render_video
from nbkit.errors import NbkitError

__all__ = [
    "ACTIONS",
    "CLASS_NAMES",
    "DOMAINS",
    "DemoVideo",
    "boxes_of",
    "contact_sheet",
    "read_boxes",
    "render_video",
    "write_demo",
]
VERSION = 3  # raised whenever the pixels of a seed change
SPLITS = ("train", "val", "test")
CLIPS_A_GROUP = 4
CLASS_NAMES = {
    action: "".join(word.capitalize() for word in action.split("_")) for action in ACTIONS
}


def write_demo(
    root,
    *,
    videos_per_class=None,
    seed=0,
    shift=1.0,
    size=96,
    frames=32,
    workers=2,
    domains=DOMAINS,
    untrimmed_fraction=0.0,
    haze=0.0,
) -> Path:
    """Render and encode the demo domains below `root`; nothing is done where they are already
    there.

    videos_per_class    videos a class and domain, by split (default train 40, val 20, test 40; val
    may be 0) seed, shift         see `render_video`; splits use different seeds and different
    recording groups (gXX) size, frames        side in pixels, frames a video (25 fps) workers
    processes untrimmed_fraction  in [0, 1]: part of the videos of every split that are untrimmed (3
    * frames long) haze                in [0, 1): the most haze over `street`, see `render_video`

    Writes, for every domain, `videos/<Class>/v_<Class>_gXX_cYY.avi`,
    `splits/{train,val,test}list01.txt`, `splits/classInd.txt` and `boxes/<Class>/<video>.npz` (see
    `read_boxes`), and `root/demo.json` with the settings. The same arguments write the same bytes.
    `root` appears only when it is complete; demo data of other settings in it is replaced. Returns
    root. Raises NbkitError for bad values, or where `root` holds anything else.
    """
    counts = (
        {"train": 40, "val": 20, "test": 40} if videos_per_class is None else dict(videos_per_class)
    )
    settings = {
        "version": VERSION,
        "seed": seed,
        "shift": float(shift),
        "size": size,
        "frames": frames,
        "domains": list(domains),
        "untrimmed_fraction": float(untrimmed_fraction),
        "videos_per_class": {split: int(counts.get(split, 0)) for split in SPLITS},
        "fps": FPS,
        "classes": CLASS_NAMES,
        **({"haze": float(haze)} if haze else {}),
    }
    _check(settings, counts)
    root = Path(root)
    if is_written(root, settings):
        return root
    _refuse_foreign(root)
    with new_folder(root) as folder:
        jobs = [job for domain in settings["domains"] for job in _plan(folder, domain, settings)]
        _run(jobs, workers)
        write_json(folder / "demo.json", settings)
        if root.exists():  # demo data of other settings
            shutil.rmtree(root)
    return root


def is_written(root, settings) -> bool:
    """Whether `root` holds demo data of exactly these settings."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((Path(root) / "demo.json").read_text(encoding="utf-8")) == settings
    return False


def _check(settings, counts):
    least = min(counts.get("train", 0), counts.get("test", 0))
    if not set(counts) <= set(SPLITS) or least < 1 or min(counts.values()) < 0:
        raise NbkitError(
            f"videos_per_class={counts}: needs train and test of at least 1; val may be 0; nothing else"
        )
    if not settings["domains"] or not set(settings["domains"]) <= set(DOMAINS):
        raise NbkitError(f"domains={settings['domains']}: choose from {', '.join(DOMAINS)}")
    if not 0 <= settings["untrimmed_fraction"] <= 1 or not 0 <= settings["shift"] <= 1:
        raise NbkitError("shift and untrimmed_fraction must be between 0 and 1")
    if not 0 <= settings.get("haze", 0.0) < 1:
        raise NbkitError(f"haze={settings['haze']} must be at least 0 and below 1")
    if (
        settings["size"] < 32
        or settings["size"] % 2
        or settings["frames"] < 8
        or settings["seed"] < 0
    ):
        raise NbkitError("size must be even and at least 32, frames at least 8, seed at least 0")


def _refuse_foreign(root):
    """Never replace a folder that holds something this module did not write."""
    if root.exists() and not root.is_dir():
        raise NbkitError(f"{root}: is a file; the demo data needs a folder")
    known = {*DOMAINS, "demo.json"}
    strange = (
        sorted(p.name for p in root.iterdir() if p.name not in known and p.name[0] != ".")
        if root.exists()
        else []
    )
    if strange:
        raise NbkitError(
            f"{root}: holds {', '.join(strange[:5])}, which is not demo data; choose an empty folder"
        )


def _plan(folder, domain, settings):
    """Write the split lists of a domain; yield one job (arguments of `_write_video`) a video."""
    base = folder / domain
    (base / "splits").mkdir(parents=True)
    names = list(CLASS_NAMES.values())
    text = "".join(f"{i} {name}\n" for i, name in enumerate(names, 1))
    (base / "splits" / "classInd.txt").write_text(text, encoding="utf-8")
    group = 1
    for split_number, split in enumerate(SPLITS):
        n, lines = settings["videos_per_class"][split], []
        for label, (action, name) in enumerate(CLASS_NAMES.items(), 1):
            for kind in ("videos", "boxes"):
                (base / kind / name).mkdir(parents=True, exist_ok=True)
            for k in range(n):
                stem = f"v_{name}_g{group + k // CLIPS_A_GROUP:02d}_c{k % CLIPS_A_GROUP + 1:02d}"
                lines.append(
                    f"{name}/{stem}.avi" + (f" {label}" if split == "train" else "") + "\n"
                )
                part = settings["untrimmed_fraction"]
                how = {
                    "shift": settings["shift"],
                    "size": settings["size"],
                    "frames": settings["frames"],
                    "untrimmed": int((k + 1) * part) > int(k * part),
                    "haze": settings.get("haze", 0.0),
                }
                number = np.random.SeedSequence([settings["seed"], split_number, k]).generate_state(
                    1
                )[0]
                yield str(base), name, stem, action, domain, int(number), how
        (base / "splits" / f"{split}list01.txt").write_text("".join(lines), encoding="utf-8")
        group += -(-n // CLIPS_A_GROUP)


def _run(jobs, workers):
    if workers <= 1:
        for job in jobs:
            _write_video(job)
        return
    context = get_context(
        "spawn"
    )  # a forked child hangs where OpenCV or torch has already started threads
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        for _ in pool.map(_write_video, jobs, chunksize=8):
            pass
    except BrokenProcessPool as error:
        raise NbkitError(
            "a rendering process died (out of memory?). Try again with workers=1."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_video(job):
    base, name, stem, action, domain, seed, how = job
    cv2.setNumThreads(1)  # the processes are the parallelism
    video = render_video(action, domain, seed, **how)
    encode(os.path.join(base, "videos", name, f"{stem}.avi"), video.frames)
    packed = np.frombuffer(zlib.compress(np.packbits(video.masks).tobytes(), 1), np.uint8)
    np.savez(
        os.path.join(base, "boxes", name, f"{stem}.npz"),
        boxes=video.boxes,
        action=video.action,
        masks=packed,
        shape=np.array(video.masks.shape),
    )


def read_boxes(path) -> dict[str, np.ndarray]:
    """What lies beside a demo video: boxes (N, 4) float32 pixels x0, y0, x1, y1 (zeros: nobody
    there), action (N,) bool and masks (N, H, W) bool of the whole actor.

    Raises NbkitError for a file that is missing or broken.
    """
    try:
        with np.load(path) as file:
            shape, bits = (
                tuple(file["shape"]),
                np.frombuffer(zlib.decompress(file["masks"].tobytes()), np.uint8),
            )
            masks = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
            return {"boxes": file["boxes"], "action": file["action"], "masks": masks}
    except (OSError, KeyError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise NbkitError(
            f"{path}: not a readable box file ({error}); render the demo data again"
        ) from error


def encode(path, frames, quality=3):
    """Write frames (N, H, W, 3) uint8 as MPEG-4 in AVI, always the same bytes; quality: the
    quantiser, 2 (best) to 31.

    Only the first frame is a key frame: a later one would renew the coded noise of the whole
    picture at once, which flow estimators take for motion.
    """
    with av.open(path, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(
            "mpeg4", rate=FPS, options={"qmin": str(quality), "qmax": str(quality)}
        )
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count, stream.codec_context.gop_size = 1, max(len(frames), 12)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def main(arguments=None):
    """Command line of `python -m nbkit.demo.write`."""
    parser = argparse.ArgumentParser(
        prog="python -m nbkit.demo.write", description="Render the demo domains."
    )
    parser.add_argument("--root", default="data/demo", help="folder to write (default %(default)s)")
    for split, count in (("train", 40), ("val", 20), ("test", 40)):
        parser.add_argument(
            f"--{split}", type=int, default=count, help="videos a class and domain (%(default)s)"
        )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shift", type=float, default=1.0, help="0: street equals studio, 1: full (default)"
    )
    parser.add_argument("--size", type=int, default=96, help="side in pixels (default %(default)s)")
    parser.add_argument(
        "--frames", type=int, default=32, help="frames a video (default %(default)s)"
    )
    parser.add_argument(
        "--untrimmed", type=float, default=0.0, help="part of the videos that are untrimmed (0)"
    )
    parser.add_argument(
        "--haze", type=float, default=0.0, help="the most haze over street, 0 (default) to below 1"
    )
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    try:
        root = write_demo(
            given.root,
            videos_per_class={"train": given.train, "val": given.val, "test": given.test},
            seed=given.seed,
            shift=given.shift,
            size=given.size,
            frames=given.frames,
            workers=given.workers,
            untrimmed_fraction=given.untrimmed,
            haze=given.haze,
        )
    except NbkitError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"demo data in {root}")


if __name__ == "__main__":
    main()
