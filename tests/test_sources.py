"""Every kind of source, video files, folders of frames, segments and stored flow, becomes the same
kind of cache.
"""

import cv2
import numpy as np
import pandas as pd
import pytest
from video_files import texture, write_video

from nbkit.data.cache import build_cache
from nbkit.data.flow import dequantise
from nbkit.data.sources import (
    Source,
    find_flow,
    look,
    read_flow,
    read_frames,
    source_of,
    source_print,
    video_images,
)
from nbkit.errors import NbkitError

SIDE, STORED, N, START = (
    96,
    48,
    36,
    7,
)  # pixels of the video and of the cache, frames, first frame of the segment


def shaken(rng):
    """A texture that jumps to and fro: frames uint8 (N, SIDE, SIDE, 3) and the true steps (N,) in
    pixels, to the right.
    """
    steps = rng.integers(-4, 5, N)
    place = np.concatenate([[0], np.cumsum(steps)[:-1]])
    reach = 1 + np.abs(place).max()
    big = texture(SIDE + 2 * reach, seed=3)
    return np.stack([big[reach : reach + SIDE, reach - p : reach - p + SIDE] for p in place]), steps


def write_images(folder, pattern, images):
    """{number: picture} as image files; RGB pictures become BGR for OpenCV."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in images.items():
        image = image[..., ::-1] if image.ndim == 3 else image
        ok, data = cv2.imencode(
            pattern[-4:], np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, 100]
        )
        assert ok
        (folder / pattern.format(number)).write_bytes(data.tobytes())


def flow_image(u, side=SIDE):
    """A displacement in pixels of the picture as the field stores it (TSN): 0..255 for -20..20."""
    return np.full((side, side), round((u + 20) / 40 * 255), np.uint8)


def video_dis(root, frames, steps):
    return {"path": str(write_video(root / "v.mp4", frames))}, "dis", steps


def folder_dis(root, frames, steps):
    write_images(root / "v", "{:05d}.png", dict(enumerate(frames, 1)))
    return {"path": str(root / "v")}, "dis", steps


def segment_dis(root, frames, steps):
    images = {1: frames[0], 2: frames[-1]} | dict(
        enumerate(frames, START)
    )  # other frames of the long video before it
    write_images(root / "P01_01", "frame_{:010d}.jpg", images)
    return (
        {"path": str(root / "P01_01"), "start_frame": START, "stop_frame": START + N - 1},
        "dis",
        steps,
    )


def tsn(root, frames, steps, names=("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"), first=1):
    """N - 1 flow images of another size than the video, beside the pictures that they were made
    from.
    """
    for pattern, values in zip(names, (steps, 0 * steps)):
        write_images(
            root / "flow",
            pattern,
            {i: flow_image(u / 2, SIDE // 2) for i, u in enumerate(values[:-1], first)},
        )
    write_images(root / "flow", "img_{:05d}.jpg", dict(enumerate(frames, first)))
    return (
        {"path": str(root / "flow"), "flow_path": str(root / "flow")},
        "precomputed",
        np.append(steps[:-1], steps[-2]),
    )


def tsn_from_zero(root, frames, steps):
    return tsn(root, frames, steps, first=0)


def u_and_v(root, frames, steps):
    row, *_ = video_dis(root, frames, steps)
    for side, values in (("u", steps), ("v", 0 * steps)):
        images = {i: flow_image(u) for i, u in enumerate(values[:-1], 1)}
        write_images(root / "flow" / side, "frame{:06d}.jpg", images)
    return {**row, "flow_path": str(root / "flow")}, "precomputed", np.append(steps[:-1], steps[-2])


def epic(root, frames, steps):
    """Flow image k spans the frames 2k - 1, 2k and 2k + 1 of the long video."""
    row, *_ = segment_dis(root, frames, steps)
    long = np.concatenate([np.zeros(START), steps])  # long[i]: the step of frame i
    pairs = {k: long[2 * k - 1 : 2 * k + 1].mean() for k in range(1, (START + N - 1) // 2 + 1)}
    for side, factor in (("u", 1), ("v", 0)):
        write_images(
            root / "P01_01" / side,
            "frame_{:010d}.jpg",
            {k: flow_image(factor * u) for k, u in pairs.items()},
        )
    expected = [pairs[min((i + 1) // 2, max(pairs))] for i in range(START, START + N)]
    return {**row, "flow_path": str(root / "P01_01")}, "precomputed", np.array(expected)


KINDS = [video_dis, folder_dis, segment_dis, tsn, tsn_from_zero, u_and_v, epic]


def moved(rgb):
    """What the cached pictures themselves say: displacement (N - 1,) to the right, in cached
    pixels.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in rgb]
    window = cv2.createHanningWindow(grey[0].shape[::-1], cv2.CV_32F)
    return np.array([cv2.phaseCorrelate(a, b, window)[0][0] for a, b in zip(grey, grey[1:])])


@pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)
def test_pictures_and_flow_are_in_step_and_in_the_same_units(kind, tmp_path):
    frames, steps = shaken(np.random.default_rng(5))
    row, flow, expected = kind(tmp_path, frames, steps)
    table = pd.DataFrame([{"video": "v", **row}])
    cache = build_cache(
        table,
        tmp_path / "cache",
        size=STORED,
        flow=flow,
        flow_clip=20.0,
        workers=1,
        progress=False,
        flow_rate=0.5 if kind is epic else 1.0,
    )
    assert cache.n_frames("v") == N and cache.rgb("v").shape == (N, STORED, STORED, 3)
    inner = dequantise(cache.flow("v"), 20.0)[:, 8:-8, 8:-8]
    u, seen = np.median(inner[..., 0], (1, 2)), moved(cache.rgb("v"))
    reach = range(-3, 4)
    score = [np.corrcoef(u[3 + s : N - 4 + s], seen[3 : N - 4])[0, 1] for s in reach]
    assert reach[int(np.argmax(score))] == 0, dict(zip(reach, np.round(score, 2)))
    scale = STORED / SIDE
    np.testing.assert_allclose(u[:-1], scale * expected[:-1], atol=0.25)
    assert np.abs(np.median(inner[..., 1], (1, 2))).max() < 0.25


def test_stored_and_computed_flow_are_clipped_alike(tmp_path):
    frames = np.stack([texture(64)] * 3)
    row = {
        "video": "v",
        "path": str(write_video(tmp_path / "v.mp4", frames)),
        "flow_path": str(tmp_path / "f"),
    }
    for pattern in ("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"):
        write_images(
            tmp_path / "f",
            pattern,
            {1: np.full((64, 64), 255, np.uint8), 2: np.zeros((64, 64), np.uint8)},
        )
    built = {
        clip: build_cache(
            pd.DataFrame([row]),
            tmp_path / "c",
            size=64,
            flow="precomputed",
            flow_clip=clip,
            workers=1,
            progress=False,
        ).flow("v")
        for clip in (20.0, 8.0, 40.0)
    }
    for clip, peak in ((20.0, 127), (8.0, 127), (40.0, 64)):
        assert (built[clip][0] == 128 + peak).all() and (built[clip][1:] == 128 - peak).all()


def test_sources_of_rows():
    row = pd.Series({"path": "/a", "start_frame": np.nan, "stop_frame": np.nan, "flow_path": ""})
    assert source_of(row) == Source("/a") == source_of("/a") == source_of(Source("/a"))
    assert source_of(
        {"path": "/a", "start_frame": 3.0, "stop_frame": 9.0, "flow_path": "/f"}
    ) == Source("/a", 3, 9, "/f")


def test_frames_in_the_order_of_their_numbers_and_gaps_are_named(tmp_path):
    write_images(
        tmp_path, "2538-5_{:d}.jpg", {n: np.full((16, 16), 4 * n, np.uint8) for n in range(8, 13)}
    )
    assert [path.name for path in video_images(tmp_path)[:3]] == [
        "2538-5_8.jpg",
        "2538-5_9.jpg",
        "2538-5_10.jpg",
    ]  # 10 after 9, not after 1
    frames = read_frames(Source(str(tmp_path)), max_frames=4)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [32, 36, 40, 44], atol=1)
    (tmp_path / "2538-5_10.jpg").unlink()
    with pytest.raises(NbkitError, match="frame 10 missing after 2538-5_9.jpg"):
        look(Source(str(tmp_path)))
    with pytest.raises(NbkitError, match="frame_0000000003.jpg: frame missing"):
        look(Source(str(tmp_path), 3, 5))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NbkitError, match="no frames"):
        look(Source(str(tmp_path / "empty")))


def test_what_can_be_wrong_with_stored_flow(tmp_path):
    frames, steps = shaken(np.random.default_rng(0))
    row, *_ = tsn(tmp_path, frames, steps)
    source = source_of(row)
    with pytest.raises(NbkitError, match="flow of 48x48 pixels does not fit frames of 120x90"):
        read_flow(source, (5, 90, 120))
    with pytest.raises(NbkitError, match="names no flow folder"):
        source_print(Source(row["path"]), with_flow=True)
    with pytest.raises(NbkitError, match="flow_x_00036.jpg: frame missing"):
        read_flow(source, (45, SIDE, SIDE))  # shorter than the video by more than its end
    for path in tmp_path.glob("flow/flow_y_*"):
        path.unlink()
    with pytest.raises(NbkitError, match="no flow images; expected"):
        find_flow(tmp_path / "flow")
    with pytest.raises(NbkitError, match="no flow images"):
        find_flow(tmp_path / "nowhere")


def test_the_print_of_a_folder_follows_its_content(tmp_path):
    frames, steps = shaken(np.random.default_rng(0))
    row, *_ = epic(tmp_path, frames, steps)
    source = source_of(row)
    pixels, both = source_print(source), source_print(source, with_flow=True)
    assert pixels != both and pixels != source_print(Source(source.path, START + 1, source.stop))
    write_images(tmp_path / "P01_01/u", "frame_{:010d}.jpg", {START: texture(SIDE)[..., 0]})
    assert source_print(source) == pixels and source_print(source, with_flow=True) != both
    write_images(tmp_path / "P01_01", "frame_{:010d}.jpg", {START: texture(SIDE, seed=8)})
    assert source_print(source) != pixels


def test_the_print_of_a_segment_follows_its_own_flow_images(tmp_path):
    frames, steps = shaken(np.random.default_rng(0))
    row, *_ = epic(tmp_path, frames, steps)  # half as many flow images as frames
    source = source_of(row)
    before = source_print(source, with_flow=True, flow_rate=0.5)
    last = -(-source.stop // 2)  # ceil
    write_images(tmp_path / "P01_01/v", "frame_{:010d}.jpg", {last: texture(SIDE)[..., 0]})
    assert source_print(source, with_flow=True, flow_rate=0.5) != before
