"""Frozen I3D on a real pair: seconds per clip, and what linear classifiers make of the features.

    python benchmarks/frozen_clips.py --time                       # random clips, no data
    python benchmarks/frozen_clips.py ucf_hmdb_three ucf hmdb      # features are built where absent
    python benchmarks/frozen_clips.py ucf_hmdb_three ucf hmdb frames=8 frame_stride=2 crop=128

The second form prints, for every stored variant, the accuracy of logistic regression on the mean
over a video's clips: on the other domain (all of its videos), and on the own test part.  No run
uses these numbers; the target's labels are read here to judge the features alone.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nbkit.config.recognition import RunConfig
from nbkit.data.features import VARIANTS
from nbkit.models.i3d import FrozenI3D
from nbkit.train.domains import dataset_maker, resolved_videos

SIZES = ((112, 8), (128, 8), (160, 8), (112, 16), (128, 16), (160, 16))


def seconds_per_clip() -> None:
    """Processor time of one clip, in the precision that is used here and in float32."""
    network = FrozenI3D(3)
    print(network.key)
    for half in {network.half, False}:
        network.half = half
        for side, frames in SIZES:
            x, spent = torch.rand(2, 3, frames, side, side), []
            for _ in range(3):
                start = time.process_time()
                network.clip_features(x)
                spent.append((time.process_time() - start) / len(x))
            name = "bfloat16" if half else "float32"
            print(f"{name}, {frames} frames, {side} pixels: {min(spent):.2f} s", flush=True)


def linear(cfg: RunConfig) -> None:
    """Logistic regression on every variant, source -> target and inside each domain."""
    _, table = resolved_videos(cfg)
    data = dataset_maker(cfg, None, table)[0](table, augment=False, withhold_labels=False)
    stored = [data.features.get(video, cfg.streams[0]) for video in data.videos]
    X = np.stack(stored).astype(np.float32).mean(1)  # (N, V, F)
    y, train = table["label"].to_numpy(), (table["split"] == "train").to_numpy()
    inside = {name: (table["domain"] == name).to_numpy() for name in (cfg.source, cfg.target)}
    ways = ((cfg.source, cfg.target), (cfg.target, cfg.source))
    pairs = [(inside[a], inside[b], f"{a} -> {b}") for a, b in ways]
    pairs += [(own & train, own & ~train, f"{name}, test part") for name, own in inside.items()]
    for v, variant in enumerate(VARIANTS):
        texts = []
        for fitted, tested, name in pairs:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
            classifier.fit(X[fitted, v], y[fitted])
            texts.append(f"{name} {100 * classifier.score(X[tested, v], y[tested]):.1f}")
        print(f"{variant}: {'; '.join(texts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", nargs="*", help="benchmark, source, target, then fields=values")
    parser.add_argument("--time", action="store_true")
    args = parser.parse_args()
    if args.time:
        seconds_per_clip()
    if args.place:
        benchmark, source, target, *fields = args.place
        changed = {name: int(value) for name, value in (field.split("=") for field in fields)}
        changed |= {"benchmark": benchmark, "source": source, "target": target}
        linear(RunConfig.make(profile="laptop", **changed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
