"""Original files of UCF101, J-HMDB and ARID, where they are at hand."""

import cv2
import numpy as np
import pandas as pd
import pytest
from real_data import real_path
from scipy.io import loadmat

from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve
from nbkit.data.boxes import fitting_tubes, ucf101_24_tubes
from nbkit.data.cache import build_cache, square
from nbkit.data.clips import ClipDataset
from nbkit.data.decode import look_at, read_video, video_frames
from nbkit.data.flow import compute_flow, dequantise

SIZE, CLIP, FRAMES = 112, 20.0, 24  # pixels; pixels; frames of a video that are kept


def ucf101():
    files = sorted(real_path("ucf101", "UCF-101").glob("*/*.avi"))[:4]
    return [{"video": f"{p.parent.name}/{p.stem}", "path": str(p)} for p in files]


def of_domain(benchmark, domain, classes):
    """The first video of each of some classes, found by the benchmark's manifest in the folders of
    the real data.
    """
    table = resolve(load_manifest(benchmark), real_path(domain).parent, allow_partial=True)
    part = table[
        (table["domain"] == {"jhmdb": "hmdb"}.get(domain, domain))
        & table["class_name"].isin(classes)
    ]
    return part.groupby("class_name").head(1).to_dict("records")


def jhmdb():
    return of_domain("hmdb_arid", "jhmdb", ["jump", "walk"])


def arid():
    return of_domain("hmdb_arid", "arid", ["jump", "walk"])


@pytest.mark.parametrize(
    "source, count", [(ucf101, 4), (jhmdb, 2), (arid, 2)], ids=["ucf101", "jhmdb", "arid"]
)
def test_from_the_file_to_a_batch(source, count, tmp_path):
    rows = source()
    assert len(rows) == count
    table = pd.DataFrame(rows).assign(label=range(count))
    cache = build_cache(
        table, tmp_path, size=SIZE, flow_clip=CLIP, workers=1, progress=False, max_frames=FRAMES
    )
    for row in rows:
        frames = read_video(row["path"], FRAMES)
        assert frames.shape[1:3] == (240, 320) and len(frames) == cache.n_frames(row["video"])
        assert look_at(row["path"]).frames >= len(frames)
        small, scale = square(frames, SIZE)
        np.testing.assert_array_equal(cache.rgb(row["video"]), small)
        vectors = square(compute_flow(frames, "dis", clip=None), SIZE)[0] * scale
        stored = dequantise(cache.flow(row["video"]), CLIP)
        assert np.abs(np.clip(vectors, -CLIP, CLIP) - stored).max() <= CLIP / 254 + 1e-4
    data = ClipDataset(cache, table, clips=3, frames=8, crop=96)
    batch = data.batch(np.arange(count))
    assert batch["rgb"].shape == (count, 3, 3, 8, 96, 96) and batch["flow"].shape == (
        count,
        3,
        2,
        8,
        96,
        96,
    )
    assert 0 <= batch["rgb"].min() < batch["rgb"].max() <= 1 and batch["flow"].abs().max() <= 1
    assert len({float(x.mean()) for x in batch["rgb"]}) == count  # no video stands for another


@pytest.mark.parametrize("source", [ucf101, jhmdb], ids=["ucf101", "jhmdb"])
def test_flow_leads_from_each_frame_to_the_next(source):
    """Fetching the next frame along the flow explains the frame; the flow of the frame before
    explains it less well.
    """
    for row in source()[:2]:
        frames = read_video(row["path"], 12)
        flow = compute_flow(frames, "dis", clip=None)
        grid = np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1).astype(np.float32)

        def left_over(shift, grid=grid, frames=frames, flow=flow):
            fetched = [
                cv2.remap(
                    frames[t + 1],
                    grid + flow[t + shift],
                    None,
                    cv2.INTER_LINEAR,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                for t in range(2, 9)
            ]
            return np.mean(
                [np.abs(f.astype(float) - frames[t]).mean() for t, f in zip(range(2, 9), fetched)]
            )

        still = np.mean(
            [np.abs(frames[t + 1].astype(float) - frames[t]).mean() for t in range(2, 9)]
        )
        assert left_over(0) < min(still, left_over(-1), left_over(1))


def test_as_many_frames_as_the_corrected_ucf101_boxes_state():
    """By time stamps; one file has a frame more, and its boxes end before."""
    videos = ucf101_24_tubes(real_path("ucf101_24", "pyannot.pkl"))
    more = []
    for path in sorted(real_path("ucf101", "UCF-101").glob("*/*.avi")):
        name = f"{path.parent.name}/{path.stem}"
        if name in videos:
            count = look_at(path, by_time=True).frames
            boxes = str(real_path("ucf101_24", "pyannot.pkl"))
            fitting_tubes({"video": f"u/{name}", "class_name": "x", "boxes": boxes}, count)
            more += [name] if count != videos[name].n_frames else []
    assert more == ["Basketball/v_Basketball_g12_c01"]


def test_held_frames_are_repeated():
    path = real_path("ucf101", "UCF-101", "Basketball", "v_Basketball_g13_c02.avi")
    decoded, by_time = read_video(path), list(video_frames(path, by_time=True))
    assert (len(decoded), len(by_time)) == (324, 330)
    kept = [x for x, y in zip(by_time, [None, *by_time]) if x is not y]
    assert all((a == b).all() for a, b in zip(kept, decoded)) and len(kept) == 324


def test_one_puppet_mask_a_frame():
    for path in sorted(real_path("jhmdb", "puppet_mask").glob("*/*/puppet_mask.mat"))[::40]:
        own, video = path.parts[-3:-1]
        mask = loadmat(path)["part_mask"]  # (H, W, frames)
        file = real_path("jhmdb", "ReCompressed_Videos", own, f"{video}.avi")
        height, width = read_video(file, 1).shape[1:3]
        assert mask.shape == (height, width, look_at(file).frames)
