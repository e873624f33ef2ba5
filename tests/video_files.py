"""Small real encoded videos for tests: moving textures whose motion is known."""

import av
import cv2
import numpy as np
import pandas as pd


def texture(side, seed=0, softness=2.0):
    """A smooth random picture, uint8 (side, side, 3)."""
    noise = np.random.default_rng(seed).standard_normal((side, side, 3)).astype(np.float32)
    return cv2.normalize(
        cv2.GaussianBlur(noise, (0, 0), softness), None, 10, 245, cv2.NORM_MINMAX
    ).astype(np.uint8)


def sliding(frames=12, side=96, step=(1, 0), seed=0):
    """A texture that moves by step = (right, down) whole pixels a frame: uint8 (frames, side, side,
    3).
    """
    reach = frames * max(abs(step[0]), abs(step[1]), 1)
    big = texture(side + 2 * reach, seed)
    corner = [(reach - t * step[1], reach - t * step[0]) for t in range(frames)]
    return np.stack([big[y : y + side, x : x + side] for y, x in corner])


def write_video(path, frames, fps=25):
    """Encode uint8 (N, H, W, 3) as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast"}
        stream.thread_count = 1
        for frame in frames:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                )
            )
        container.mux(stream.encode())
    return path


def video_table(folder, lengths=(12, 12, 12), side=64, classes=2):
    """Write one video for each length; returns its VideoTable."""
    rows = []
    for i, n in enumerate(lengths):
        path = write_video(folder / f"v{i}.mp4", sliding(n, side, (1 + i % 2, 0), seed=i))
        rows.append(
            (f"v{i}", str(path), f"c{i % classes}", i % classes, "studio", "train", f"g{i}")
        )
    return pd.DataFrame(
        rows, columns=["video", "path", "class_name", "label", "domain", "split", "group"]
    )
