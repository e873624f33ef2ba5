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
    VIEWS,
    FeatureClipDataset,
    build_features,
    flow_picture,
    flow_scale,
    sampled_frames,
    turn,
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
