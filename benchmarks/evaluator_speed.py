"""How long the localization metrics take on the UCF-101 four-class test set.

    python benchmarks/evaluator_speed.py --annotations <folder with pyannot.pkl and testlist01.txt>

165 videos, 27,911 frames, 4 classes, 10 detections per frame and class: 1,116,440 scored boxes
(background frames too). Result: benchmarks/results/evaluator_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from ucf24_annotations import CLASSES, frames_with_boxes, load_test_set  # noqa: E402

from nbkit.evaluate.detections import Detections  # noqa: E402
from nbkit.evaluate.frame_map import frame_map  # noqa: E402
from nbkit.evaluate.linking import link  # noqa: E402
from nbkit.evaluate.video_map import RANGE, video_maps  # noqa: E402


def crowd(n_frames, tubes, per_class: int, seed: int) -> Detections:
    """`per_class` detections of each class on every frame.

    Each video has as many smooth tracks; the first ones follow the ground truth. Boxes of a track
    vary by a pixel, and 5 % of the boxes jump away, so that tubes break.
    """
    rng, parts = np.random.default_rng(seed), []
    for video, n in enumerate(n_frames):
        shape = (n, len(CLASSES), per_class)
        start = rng.uniform(0, [260, 180], (len(CLASSES), per_class, 2))
        corner = start + np.cumsum(rng.normal(0, 1.0, (*shape, 2)), axis=0)
        box = np.concatenate(
            [corner, corner + rng.uniform(30, 80, (len(CLASSES), per_class, 2))], axis=-1
        )
        score = rng.beta(1, 6, shape)
        for k, tube in enumerate(t for t in tubes if t.video == video):
            box[tube.frames, :, k] = tube.boxes[:, None]
            score[tube.frames, tube.label, k] = rng.beta(5, 2, len(tube))
        box += rng.normal(0, 1.0, box.shape)
        box[rng.uniform(size=shape) < 0.05] += 60
        frame, label, _ = np.indices(shape)
        parts.append(
            Detections(
                np.full(score.size, video),
                frame.ravel(),
                label.ravel(),
                score.ravel(),
                box.reshape(-1, 4),
            )
        )
    return Detections.concatenate(parts)


def timed(work):
    start = time.perf_counter()
    result = work()
    return result, round(time.perf_counter() - start, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "evaluator_speed.json"
    )
    args = parser.parse_args()
    videos, n_frames, tubes = load_test_set(args.annotations)
    assert (len(videos), sum(n_frames)) == (165, 27911), (len(videos), sum(n_frames))
    found = crowd(n_frames, tubes, 10, seed=0)
    frame, frame_s = timed(lambda: frame_map(found, tubes, CLASSES, eval_background=True))
    linked, link_s = timed(lambda: link(found))
    video, video_s = timed(lambda: video_maps(linked, tubes, CLASSES, iou_thresholds=(0.2, *RANGE)))
    result = {
        "videos": len(videos),
        "frames": sum(n_frames),
        "frames_with_action": frames_with_boxes(tubes),
        "detections": len(found),
        "tubes_linked": len(linked),
        "seconds": {"frame_map": frame_s, "link": link_s, "video_map_0.2_and_0.5:0.95": video_s},
        "frame_map": round(frame.mean, 2),
        "video_map_0.5": round(video[0.5].mean, 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread",
        "numpy": np.__version__,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
