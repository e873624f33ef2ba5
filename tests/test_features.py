"""Cached frame features: views that are real mirror images, batches aligned with the cache,
negatives of Fig. 3.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from video_files import video_table

from nbkit.data.cache import build_cache
from nbkit.data.clips import clip_starts
from nbkit.data.features import (
    VARIANTS,
    VIEWS,
    FeatureClipDataset,
    build_clip_features,
    build_features,
    flow_picture,
    flow_scale,
    sampled_frames,
    turn,
    video_clips,
)
from nbkit.errors import NbkitError


class Quadrants:
    """A stand-in network whose features can be computed by hand: the mean of each quadrant of each
    channel.
    """

    key, out_features = "quadrants", 12

    def frame_features(self, x):  # (N, 3, H, W) -> (N, 12)
        assert x.dtype == torch.float32 and 0 <= x.min() and x.max() <= 1
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    table = video_table(folder, lengths=(24, 30, 10), side=48)
    cache = build_cache(table, folder, size=32, workers=1, progress=False)
    return table, cache, build_features(cache, folder, Quadrants(), frames=24, progress=False)


def quadrants(pictures):  # (N, H, W, 3)
    return (
        Quadrants()
        .frame_features(torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))))
        .numpy()
    )


def test_features_are_those_of_the_sampled_frames(made):
    _, cache, features = made
    assert [features.n_frames(v) for v in ("v0", "v1", "v2")] == [24, 24, 10]
    chosen = sampled_frames(30, 24)
    assert chosen[0] == 0 and chosen[-1] == 29 and len(chosen) == 24
    expected = quadrants(cache.rgb("v1")[chosen].astype(np.float32) / 255)
    stored = features.get("v1", "rgb")
    assert stored.shape == (24, 4, 12) and stored.dtype == np.float16
    assert np.allclose(stored[:, 0], expected, atol=1e-3)


def test_views_are_mirror_images(made):
    features = made[2]
    order = {
        "hflip": [1, 0, 3, 2],
        "vflip": [2, 3, 0, 1],
        "rot180": [3, 2, 1, 0],
    }  # of the four quadrants
    rgb = features.get("v0", "rgb").reshape(24, 4, 3, 4)  # (N, V, channel, quadrant)
    flow = features.get("v0", "flow").reshape(24, 4, 3, 4).astype(np.float32)
    for number, view in enumerate(list(VIEWS)[1:], start=1):
        assert np.allclose(rgb[:, number], rgb[:, 0][..., order[view]], atol=1e-3)
        moved = flow[:, 0][..., order[view]].copy()
        for channel, axis in (
            (0, 1),
            (1, 0),
        ):  # u and v change sign with the mirror: p becomes 1 - p
            if VIEWS[view][axis] < 0:
                moved[:, channel] = 1 - moved[:, channel]
        assert np.allclose(flow[:, number], moved, atol=2e-3)


def test_flow_picture_and_its_scale():
    flow = np.zeros((1, 20, 20, 2), np.float32)
    flow[0, :10] = [3, 0]
    assert flow_scale(flow, 8.0) == pytest.approx(3)
    picture = flow_picture(flow, 3.0)
    assert np.allclose(picture[0, 0, 0], [1, 0.5, 1]) and np.allclose(
        picture[0, 15, 0], [0.5, 0.5, 0]
    )
    assert flow_scale(flow * 0.01, 8.0) == pytest.approx(
        4 * 8 / 127
    )  # storage noise is not blown up
    assert np.array_equal(turn(turn(flow, "rot180", flow=True), "rot180", flow=True), flow)


def test_pictures_may_be_shown_smaller(made, tmp_path):
    _, cache, features = made
    small = build_features(cache, tmp_path, Quadrants(), frames=24, size=16, progress=False)
    assert small.size == 16 and features.size == 32
    for m in (
        "rgb",
        "flow",
    ):  # means over quadrants do not depend on the size, up to what flow saturates
        assert np.abs(small.get("v1", m).astype(np.float32) - features.get("v1", m)).mean() < 5e-3


def test_a_stopped_build_keeps_whole_videos_and_goes_on(made, tmp_path):
    table, cache, features = made

    class Breaks(Quadrants):
        calls = 0

        def frame_features(self, x):
            self.calls += 1
            if self.calls > 14:
                raise KeyboardInterrupt
            return super().frame_features(x)

    with pytest.raises(KeyboardInterrupt):  # 12 passes per video
        build_features(cache, tmp_path, Breaks(), progress=False)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    counts = Breaks()
    counts.calls = -100
    again = build_features(cache, tmp_path, counts, progress=False)
    assert counts.calls == -100 + 12 + 6
    for video in table["video"]:
        assert np.array_equal(again.get(video, "flow"), features.get(video, "flow"))
    counts.calls = 99  # a further pass would raise
    build_features(cache, tmp_path, counts, progress=False)
    assert np.array_equal(
        pickle.loads(pickle.dumps(again)).get("v2", "rgb"), again.get("v2", "rgb")
    )
    with pytest.raises(NbkitError, match="'v9' is not in"):
        features.get("v9", "rgb")


def test_the_second_view_leaves_the_seed_alone(made):
    table, _, features = made
    data = FeatureClipDataset(features, table, augment=True)
    batch = data.batch([1, 0], second_view="augment")
    assert list(batch) == ["label", "index", "rgb", "flow", "rgb_2", "flow_2"] and data.seed == 0
    other = FeatureClipDataset(features, table, augment=True, seed=104729)
    assert torch.equal(batch["flow_2"], other.batch([1, 0])["flow"])


def test_batches_hold_the_planned_frames_of_one_view(made):
    table, _, features = made
    data = FeatureClipDataset(features, table, clips=3, frames=8, augment=True)
    mirrored_seen = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        batch = data.batch([1, 0], negatives=True)
        assert batch["rgb"].shape == (2, 3, 8, 12) and batch["rgb_views"].shape == (2, 3, 8, 4, 12)
        assert batch["rgb"].dtype == torch.float32 and batch["label"].tolist() == [1, 0]
        for row, index in enumerate((1, 0)):
            chosen, mirrored = data.plan(index)
            mirrored_seen.add(mirrored)
            order = [1, 0, 3, 2] if mirrored else [0, 1, 2, 3]  # views of a mirrored video
            for m in ("rgb", "flow"):
                stored = torch.tensor(features.get(f"v{index}", m)).float()[torch.tensor(chosen)][
                    :, :, order
                ]
                assert torch.equal(batch[f"{m}_views"][row], stored) and torch.equal(
                    batch[m][row], stored[:, :, 0]
                )
        plain = data.batch([1, 0])
        assert set(plain) == {"rgb", "flow", "label", "index"} and torch.equal(
            plain["flow"], batch["flow"]
        )
        assert torch.equal(data[1]["rgb"], batch["rgb"][0])
    assert mirrored_seen == {True, False}


def test_test_clips_are_centred_and_upright(made):
    table, _, features = made
    data = FeatureClipDataset(features, table.iloc[:2], clips=2, frames=8)
    stored = torch.tensor(features.get("v0", "rgb")[:, 0]).float()
    for k, start in enumerate(clip_starts(24, 2, 8)):
        assert torch.equal(data.batch([0])["rgb"][0, k], stored[start : start + 8])


def test_labels_are_withheld(made):
    table, _, features = made
    data = FeatureClipDataset(features, table, frames=8, withhold_labels=True)
    assert data.batch([0, 1, 2])["label"].tolist() == [-1, -1, -1] and "label" not in data.table


def test_unknown_videos_are_named(made):
    features = made[2]
    with pytest.raises(NbkitError, match="'other'"):
        FeatureClipDataset(features, pd.DataFrame({"video": ["other"], "label": [0]}))


# --- features of clips
class ClipMeans:
    """A stand-in network: the mean colour of a clip's first and last frame."""

    out_features = 6

    def __init__(self, channels=3):
        self.key, self.channels, self.calls = f"means-{channels}", channels, 0

    def clip_features(self, x):  # (N, C, T, H, W) -> (N, 6)
        self.calls += 1
        ends = x[:, :, [0, -1]].mean((3, 4)).flatten(1)
        return torch.nn.functional.pad(ends, (0, 6 - ends.shape[1]))


def numbered(clips, stream, video):
    """Variant v is the clip plus v: which one a batch shows can be read off."""
    shift = torch.arange(float(len(VARIANTS))).view(1, -1, 1, 1, 1, 1)
    return clips[:, None] + shift


@pytest.fixture(scope="module")
def clip_made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip_features")
    table = video_table(folder, lengths=(40, 10, 30), side=48)
    networks = {"rgb": ClipMeans(3), "flow": ClipMeans(2)}
    how = {"size": 32, "frames": 8, "progress": False}
    made = build_clip_features(table, folder, networks, numbered, 2.0, **how)
    return table, made, networks, (folder, how)


def test_clips_are_spread_over_the_video(clip_made):
    table = clip_made[0]
    row = table.to_dict("records")[0]
    rgb = video_clips(row, "rgb", 32, 8, 1, "dis")
    assert rgb.shape == (3, 3, 8, 32, 32) and 0 <= rgb.min() and rgb.max() <= 1
    every = video_clips(row, "rgb", 32, 40, 1, "dis")[0]  # (3, 40, 32, 32)
    for clip, start in zip(rgb, clip_starts(40, 3, 8)):
        assert torch.equal(clip, every[:, start : start + 8])
    flow = video_clips(row, "flow", 32, 8, 1, "dis")
    assert flow.shape == (3, 2, 8, 32, 32) and flow.abs().max() <= 1
    short = table.to_dict("records")[1]  # 10 frames: the last one is repeated
    assert video_clips(short, "flow", 32, 16, 1, "dis").shape == (3, 2, 16, 32, 32)


def test_a_batch_shows_the_stored_variants(clip_made):
    table, features, _, _ = clip_made
    plain = FeatureClipDataset(features, table, clips=3, frames=1)
    batch = plain.batch([2, 0], negatives=True, second_view="residual")
    assert batch["rgb"].shape == (2, 3, 1, 6) and batch["flow_views"].shape == (2, 3, 1, 3, 6)
    stored = torch.tensor(features.get("v2", "rgb")).float()  # (3, V, 6)
    assert torch.equal(batch["rgb"][0, :, 0], stored[:, 0])
    assert torch.equal(batch["rgb_views"][0, :, 0], stored[:, [0, 2, 3]])
    assert torch.equal(batch["rgb_2"][0, :, 0], stored[:, 4])
    augmented, seen = FeatureClipDataset(features, table, clips=3, frames=1, augment=True), set()
    for epoch in range(8):
        augmented.set_epoch(epoch)
        first = augmented.batch([2])["rgb"][0, :, 0]
        seen.add([torch.equal(first, stored[:, v]) for v in (0, 1)].index(True))
    assert seen == {0, 1}


def test_clip_features_are_made_once_and_a_stream_alone(clip_made):
    table, features, networks, (folder, how) = clip_made
    calls = {m: network.calls for m, network in networks.items()}
    again = build_clip_features(table, folder, networks, numbered, 2.0, **how)
    alone = build_clip_features(table, folder, {"rgb": networks["rgb"]}, numbered, 2.0, **how)
    assert {m: network.calls for m, network in networks.items()} == calls
    assert again.key == features.key != alone.key and alone.modalities == ("rgb",)
    batch = FeatureClipDataset(alone, table, frames=1).batch([0], second_view="residual")
    assert list(batch) == ["label", "index", "rgb", "rgb_2"]
