"""Our frame-mAP, linking and video-mAP against a public evaluator, on the same detections.

    python benchmarks/evaluator_parity.py --peer <checkout of MCG-NJU/MOC-Detector> \\
        --annotations <folder with pyannot.pkl and testlist01.txt>

The peer's own functions (`src/ACT.py`, `src/ACT_utils/`) do the counting; nothing of it is copied
here. They are run twice: as they are (float32 precision and recall), and with float64 in place of
float32, which shows that what is left of the difference is the peer's rounding. Result:
benchmarks/results/evaluator_parity.json.

The peer's corners name the last pixel itself, ours end just outside it (see
nbkit/evaluate/detections.py): `outside_the_last_pixel` is the only place where the two meet.
"""

from __future__ import annotations

import argparse
import builtins
import json
import pickle
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import nms

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from ucf24_annotations import CLASSES, load_test_set, perturbed  # noqa: E402

from nbkit.evaluate.detections import Detections, Tube  # noqa: E402
from nbkit.evaluate.frame_map import frame_map  # noqa: E402
from nbkit.evaluate.linking import LinkSettings, link  # noqa: E402
from nbkit.evaluate.video_map import video_maps  # noqa: E402

THRESHOLDS = (0.2, 0.5, 0.75)
AS_THE_PEER = LinkSettings(max_gap=0)  # the peer's tubelets of length 1 end at the first miss


class PeerDataset:
    """What the peer's evaluator asks of a dataset."""

    def __init__(self, videos, n_frames, tubes):
        self.labels, self._test_videos = list(CLASSES), [videos]
        self._nframes, self._resolution = (
            dict(zip(videos, n_frames)),
            {v: (240, 320) for v in videos},
        )
        self._gttubes = {v: {} for v in videos}
        for t in tubes:  # frame (from 1), x1, y1, x2, y2
            self._gttubes[videos[t.video]].setdefault(t.label, []).append(
                np.c_[t.frames + 1, t.boxes]
            )


class _SilentBar:
    elapsed_td = eta_td = 0

    def __init__(self, *_args, **_kwargs):
        pass

    def next(self):
        pass

    finish = next


def load_peer(path: Path, dataset: PeerDataset, float64: bool):
    """The peer's modules, its imports of training code and progress bar replaced by stand-ins."""
    for name in [m for m in sys.modules if m == "ACT" or m.startswith(("ACT_utils", "datasets"))]:
        del sys.modules[name]
    stand_ins = {
        "datasets": {},
        "opts": {"opts": object},
        "progress": {},
        "progress.bar": {"Bar": _SilentBar},
        "datasets.init_dataset": {"get_dataset": lambda _name: lambda _opt, _split: dataset},
    }
    for name, members in stand_ins.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(members)
    sys.path.insert(0, str(path / "src"))
    import ACT
    import ACT_utils.ACT_build as build
    import ACT_utils.ACT_utils as utils

    sys.path.remove(str(path / "src"))
    # NumPy 2 no longer turns a one-element array into an int, which the peer relies on
    utils.int = lambda x: builtins.int(np.asarray(x).reshape(-1)[0])
    if float64:
        wide = types.SimpleNamespace(**{**vars(np), "float32": np.float64})
        ACT.np = build.np = wide
    return ACT, build


def options(folder: Path, threshold: float):
    return types.SimpleNamespace(
        redo=False, th=threshold, model_name="", dataset="", inference_dir=str(folder), split=1, K=1
    )


def write_for_peer(folder: Path, found: Detections, videos, n_frames) -> None:
    """Write the peer's files: one table for frame AP, one pickle per frame for linking.

    Its suppression at 0.6 leaves boxes alone that no longer overlap that much.
    """
    table = np.c_[found.video, found.frame + 1, found.label, found.score, found.box]
    (folder / "frame_detections.pkl").write_bytes(pickle.dumps(table))
    rows = np.c_[found.box, found.score]
    for i, video in enumerate(videos):
        (folder / video).mkdir(parents=True)
        here = np.flatnonzero(found.video == i)
        for frame in range(n_frames[i]):
            now = here[found.frame[here] == frame]
            boxes = {c + 1: rows[now[found.label[now] == c]] for c in range(len(CLASSES))}
            (folder / video / f"{frame + 1:05d}.pkl").write_bytes(pickle.dumps(boxes))


def outside_the_last_pixel(boxes: np.ndarray) -> np.ndarray:
    """The peer's boxes (N, 4), both corners inside, in our convention."""
    return boxes + [0, 0, 1, 1]


def without_overlaps(found: Detections) -> Detections:
    """Hard suppression at 0.5 per frame and class, so that the peer's soft one changes no score."""
    place = np.stack([found.video, found.frame, found.label], axis=1)
    _, group = np.unique(place, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order])) + 1
    kept = []
    for rows in np.split(order, starts):
        boxes = torch.from_numpy(outside_the_last_pixel(found.box[rows]))
        stays = nms(boxes, torch.from_numpy(found.score[rows]), 0.5)
        kept.append(rows[stays.numpy()])
    return found.select(np.sort(np.concatenate(kept)))


def ours(found, truth):
    """frame-mAP and video-mAP in [0, 1] by threshold, and the number of tubes linked."""
    found = found.select(np.arange(len(found)))
    found.box = outside_the_last_pixel(found.box)
    truth = [Tube(t.video, t.label, t.frames, outside_the_last_pixel(t.boxes)) for t in truth]
    frame = {}
    for t in THRESHOLDS:
        result = frame_map(found, truth, CLASSES, eval_background=True, iou_threshold=t)
        frame[t] = result.mean / 100
    tubes = link(found, AS_THE_PEER)
    results = video_maps(tubes, truth, CLASSES, iou_thresholds=THRESHOLDS)
    video = {t: result.mean / 100 for t, result in results.items()}
    return frame, video, len(tubes)


def peers(path, dataset, folder, float64):
    for old in folder.rglob("*_tubes.pkl"):
        old.unlink()
    act, build = load_peer(path, dataset, float64)
    frame = {t: float(act.frameAP(options(folder, t), print_info=False)) / 100 for t in THRESHOLDS}
    build.BuildTubes(options(folder, 0.5))
    n_tubes = sum(
        len(per_class)
        for f in folder.rglob("*_tubes.pkl")
        for per_class in pickle.loads(f.read_bytes()).values()
    )
    video = {}
    for t in THRESHOLDS:
        # the peer deletes matched ground truths from the data set's own lists: give it a copy each
        # time
        act.get_dataset = lambda _n: lambda _o, _s: _copy(dataset)
        video[t] = float(act.videoAP(options(folder, t), print_info=False)) / 100
    return frame, video, n_tubes


def _copy(dataset):
    fresh = types.SimpleNamespace(**vars(dataset))
    fresh._gttubes = {
        v: {c: list(tubes) for c, tubes in d.items()} for v, d in dataset._gttubes.items()
    }
    return fresh


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "evaluator_parity.json"
    )
    args = parser.parse_args()
    videos, n_frames, tubes = load_test_set(args.annotations)
    chosen = np.linspace(0, len(videos) - 1, args.videos).astype(int)
    number = {int(old): new for new, old in enumerate(chosen)}
    videos, n_frames = [videos[i] for i in chosen], [n_frames[i] for i in chosen]
    tubes = [t for t in tubes if t.video in number]
    for t in tubes:
        t.video = number[t.video]
    runs, dataset = [], PeerDataset(videos, n_frames, tubes)
    for seed, jitter, keep in ((0, 0.02, 1.0), (1, 0.04, 0.999), (2, 0.08, 0.995)):
        found = without_overlaps(
            perturbed(tubes, len(CLASSES), seed, jitter=jitter, keep=keep, wrong=0.02)
        )
        with tempfile.TemporaryDirectory() as folder:
            write_for_peer(Path(folder), found, videos, n_frames)
            mine = ours(found, tubes)
            theirs = {
                w: peers(args.peer, dataset, Path(folder), w == "float64")
                for w in ("float32", "float64")
            }
        runs.append(
            {
                "seed": seed,
                "jitter": jitter,
                "detections": len(found),
                "tubes": mine[2],
                "peer_tubes": theirs["float64"][2],
                "frame_map": mine[0],
                "video_map": mine[1],
                "peer_frame_map": theirs["float64"][0],
                "peer_video_map": theirs["float64"][1],
                **{
                    f"max_difference_{w}": max(
                        abs(a[t] - b[t])
                        for a, b in zip(mine[:2], theirs[w][:2])
                        for t in THRESHOLDS
                    )
                    for w in theirs
                },
            }
        )
        print(json.dumps(runs[-1]))
    commit = subprocess.run(
        ["git", "-C", str(args.peer), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    result = {
        "peer": "github.com/MCG-NJU/MOC-Detector (MIT)",
        "peer_commit": commit.stdout.strip() or "unknown",
        "data": f"UCF101-24 test split 1, {len(videos)} videos of {len(CLASSES)} classes, "
        f"{sum(map(len, tubes))} boxes, {len(tubes)} tubes; AP in [0, 1]",
        "runs": runs,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    worst = max(r["max_difference_float64"] for r in runs)
    assert worst < 1e-6, worst


if __name__ == "__main__":
    main()
