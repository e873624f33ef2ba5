"""Clips and batches: starts, aligned augmentation, reproducible access, withheld labels."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from video_files import video_table

from nbkit.data.cache import build_cache
from nbkit.data.clips import ClipDataset, change_colours, clip_starts, frame_indices
from nbkit.data.flow import compute_flow, dequantise, quantise
from nbkit.data.pixels import floats
from nbkit.errors import NbkitError
from nbkit.methods.batches import class_aware_batches, epoch_batches


class MemoryCache:
    """What ClipDataset needs of a VideoCache, without files: random bytes, each frame marked with
    its number.
    """

    def __init__(self, lengths, size=16, flow_clip=4.0):
        rng = np.random.default_rng(0)
        self.size, self.flow_clip = size, flow_clip
        self._rgb = {
            v: rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8) for v, n in lengths.items()
        }
        self._flow = {
            v: rng.integers(1, 256, (n, size, size, 2), dtype=np.uint8) for v, n in lengths.items()
        }
        self.rgb, self.flow = self._rgb.__getitem__, self._flow.__getitem__
        for n, rgb in zip(lengths.values(), self._rgb.values()):
            rgb[..., 0] = np.arange(n)[:, None, None]  # red = frame number

    def n_frames(self, video):
        return len(self._rgb[video])


def make(lengths=(32, 40, 24), **options):
    lengths = {f"v{i}": n for i, n in enumerate(lengths)}
    table = pd.DataFrame({"video": list(lengths), "label": np.arange(len(lengths)) % 3})
    return ClipDataset(
        MemoryCache(lengths), table, **{"clips": 3, "frames": 8, "crop": 12, **options}
    )


@given(
    st.integers(2, 200),
    st.integers(1, 6),
    st.integers(1, 16),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_starts_fit_the_video_and_ascend(n, clips, frames, stride, seed):
    span = (frames - 1) * stride + 1
    for rng in (None, np.random.default_rng(seed)):
        starts = clip_starts(n, clips, frames, stride, rng)
        assert starts.shape == (clips,) and (np.diff(starts) >= 0).all()
        assert starts.min() >= 0 and starts.max() <= max(n - span, 0)
        indices = frame_indices(n, starts, frames, stride)
        assert indices.shape == (clips, frames) and indices.max() < n
        if n >= span:
            assert (np.diff(indices, axis=1) == stride).all()
        if n / clips >= span:  # clips stay inside their segments
            assert (starts >= np.floor(np.arange(clips) * n / clips)).all()
            assert (starts + span <= np.ceil((np.arange(clips) + 1) * n / clips)).all()


def test_starts_by_hand():
    assert clip_starts(60, 3, 10).tolist() == [5, 25, 45]  # centred in segments of 20
    assert clip_starts(20, 3, 10).tolist() == [0, 5, 10]  # segments too short: spread over [0, 10]
    assert clip_starts(20, 1, 16).tolist() == [2]
    assert clip_starts(5, 3, 8).tolist() == [0, 0, 0]
    assert frame_indices(5, np.array([0]), 8).tolist() == [[0, 1, 2, 3, 4, 4, 4, 4]]
    drawn = np.stack([clip_starts(60, 3, 10, rng=np.random.default_rng(s)) for s in range(300)])
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [
        list(range(a, a + 10)) for a in (0, 20, 40)
    ]


def test_shapes_and_ranges():
    data = make(augment=True)
    batch = data.batch([2, 0])
    assert batch["rgb"].shape == (2, 3, 3, 8, 12, 12) and batch["flow"].shape == (
        2,
        3,
        2,
        8,
        12,
        12,
    )
    assert batch["rgb"].dtype == batch["flow"].dtype == torch.float32
    assert 0 <= batch["rgb"].min() and batch["rgb"].max() <= 1 and batch["flow"].abs().max() <= 1
    assert batch["label"].tolist() == [2, 0] and batch["index"].tolist() == [2, 0]


def test_centred_clips_are_the_stored_pixels():
    data = make(augment=False)
    batch, cache = data.batch([1]), data.cache
    for k, start in enumerate(clip_starts(40, 3, 8)):
        rgb = (
            cache.rgb("v1")[start : start + 8, 2:14, 2:14].transpose(3, 0, 1, 2) / 255
        )  # (3, T, H, W)
        flow = (
            dequantise(cache.flow("v1")[start : start + 8, 2:14, 2:14], 4.0).transpose(3, 0, 1, 2)
            / 4
        )
        assert np.allclose(batch["rgb"][0, k], rgb, atol=1e-6) and np.allclose(
            batch["flow"][0, k], flow, atol=1e-6
        )


def test_one_crop_and_flip_for_all_clips_and_both_modalities():
    data = make(augment=True)
    data.jitter = 0
    flips = 0
    for epoch in range(20):
        data.set_epoch(epoch)
        frames, (top, left), flip, _ = data.plan(1)
        batch, flips = data.batch([1]), flips + flip
        rgb = data.cache.rgb("v1")[frames][
            :, :, top : top + 12, left : left + 12
        ]  # (K, T, H, W, 3)
        flow = (
            dequantise(data.cache.flow("v1")[frames][:, :, top : top + 12, left : left + 12], 4.0)
            / 4
        )
        if flip:
            rgb, flow = rgb[:, :, :, ::-1], flow[:, :, :, ::-1] * [-1, 1]
        assert np.allclose(batch["rgb"][0], np.moveaxis(rgb, -1, 1) / 255, atol=1e-6)
        assert np.allclose(batch["flow"][0], np.moveaxis(flow, -1, 1), atol=1e-6)
    assert 3 < flips < 17


def test_a_second_view_is_another_view_of_the_same_videos():
    data, other = make(augment=True), make(augment=True, seed=104729)
    batch = data.batch([2, 0], second_view="augment")
    assert list(batch) == ["rgb", "flow", "label", "index", "rgb_2", "flow_2"]
    second = other.batch([2, 0])
    assert torch.equal(batch["rgb_2"], second["rgb"])
    assert torch.equal(batch["flow_2"], second["flow"])
    assert not torch.equal(batch["rgb"], batch["rgb_2"]) and data.seed == 0


def test_a_flipped_clip_is_the_clip_of_the_flipped_video(tmp_path):
    """Flow of the mirrored frames = mirrored flow with u negated, through the whole path from file
    to batch.
    """
    table = video_table(tmp_path, lengths=(16,), side=64)
    cache = build_cache(table, tmp_path, size=64, flow_clip=4.0, workers=1, progress=False)
    data = ClipDataset(cache, table, clips=1, frames=8, augment=True)
    data.jitter = 0
    data.epoch = next(e for e in range(50) if (data.set_epoch(e), data.plan(0)[2])[1])
    frames, *_ = data.plan(0)
    mirrored = cache.rgb("v0")[:, :, ::-1]
    flow = quantise(compute_flow(mirrored, clip=None), 4.0)[frames[0]]
    batch = data.batch([0])
    assert torch.equal(
        batch["rgb"][0, 0], torch.tensor(mirrored[frames[0]] / 255).float().permute(3, 0, 1, 2)
    )
    got, expected = batch["flow"][0, 0] * 4, torch.tensor(dequantise(flow, 4.0)).permute(3, 0, 1, 2)
    assert (got - expected)[:, :, 8:-8, 8:-8].abs().mean() < 0.1 and expected[0].mean() < -0.5


def test_raw_batches_hold_the_stored_bytes_and_become_the_same_floats():
    data = make(augment=True)
    raw = data.raw([2, 0], second_view="augment")
    batch = data.batch([2, 0], second_view="augment")
    assert raw.keys() == batch.keys()
    for name, x in raw.items():
        if name in ("label", "index"):
            assert torch.equal(x, batch[name])
            continue
        assert x.dtype == torch.uint8 and x.shape == batch[name].shape
        if name.startswith("rgb"):
            assert torch.equal(batch[name], x.float() / 255)
        else:
            assert torch.equal(batch[name], (x.float() - 128) * (1 / 127))
    assert torch.equal(floats(raw["flow"], "flow"), batch["flow"])
    assert floats(raw["flow"], "flow").is_contiguous()  # whatever order the bytes lie in


def test_items_depend_on_seed_epoch_and_index_only():
    data = make(augment=True)
    data.set_epoch(3)
    forward = data.batch([0, 1, 2])
    backward = data.batch([2, 1, 0])
    again = make(augment=True)
    again.set_epoch(3)
    for name in forward:
        assert torch.equal(forward[name], backward[name].flip(0))
        assert torch.equal(forward[name][1], again[1][name])
    again.set_epoch(4)
    assert not torch.equal(again[1]["rgb"], forward["rgb"][1])
    seeds = [make(augment=True, seed=seed).batch([1])["rgb"] for seed in (0, 1)]
    assert not torch.equal(*seeds)


@pytest.mark.parametrize("workers", [0, 2])
def test_works_with_a_data_loader(tmp_path, workers):
    table = video_table(tmp_path, lengths=(12, 14, 16, 12), side=32)
    cache = build_cache(table, tmp_path, size=24, workers=1, progress=False)
    data = ClipDataset(cache, table, clips=2, frames=4, crop=20, augment=True)
    batches = list(torch.utils.data.DataLoader(data, batch_size=2, num_workers=workers))
    direct = data.batch([2, 3])
    assert all(torch.equal(batches[1][name], direct[name]) for name in direct)


def test_withheld_labels_cannot_be_reached():
    data = make(withhold_labels=True)
    assert data.batch([0, 1, 2])["label"].tolist() == [-1, -1, -1] and data[1]["label"] == -1
    assert set(data.labels.tolist()) == {-1}
    assert "label" not in data.table.columns
    poisoned = ClipDataset(
        data.cache, data.table.assign(label=99), clips=3, frames=8, crop=12, withhold_labels=True
    )
    assert all(
        torch.equal(a, b) for a, b in zip(data.batch([1]).values(), poisoned.batch([1]).values())
    )


def test_short_videos_are_padded_with_a_warning_and_single_frames_refused():
    with pytest.warns(UserWarning, match=r"1 videos are shorter than a clip of 8 frames.*v1 \(5\)"):
        data = make(lengths=(32, 5))
    red = (data.batch([1])["rgb"][0, 0, 0, :, 0, 0] * 255).round().int().tolist()  # frame numbers
    assert red == [0, 1, 2, 3, 4, 4, 4, 4]
    with pytest.raises(NbkitError, match="fewer than 2 frames.*v1"):
        make(lengths=(32, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


def test_stride_takes_every_nth_frame():
    red = make(lengths=(32,), clips=1, stride=3).batch([0])["rgb"][0, 0, 0, :, 0, 0] * 255
    assert (red.round().diff() == 3).all()


def test_colour_change_is_gain_and_offset():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    gain, offset = np.array([0.8, 1.0, 1.3]), np.array([0.1, 0.0, -0.2])
    changed = rgb.copy()
    change_colours(changed, gain, offset)
    assert np.abs(changed - np.clip(rgb * gain + 255 * offset, 0, 255)).max() <= 0.5
    same = rgb.copy()
    change_colours(same, np.ones(3), np.zeros(3))
    assert np.array_equal(same, rgb)


def test_crop_must_fit():
    with pytest.raises(NbkitError, match="crop=17"):
        make(crop=17)


def test_a_training_batch_is_fast():
    """64 videos x 3 clips x 8 frames of 40 x 40: about 30 ms on an idle core; the bound leaves room
    for a busy one.
    """
    lengths = {f"v{i}": 32 for i in range(64)}
    table = pd.DataFrame({"video": list(lengths), "label": 0})
    data = ClipDataset(
        MemoryCache(lengths, size=48), table, clips=3, frames=8, crop=40, augment=True
    )
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        data.batch(range(64))
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.25


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_shows_every_video_once(n, batch, seed, epoch):
    batches = epoch_batches(n, batch, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    sizes = [len(b) for b in batches]
    assert max(sizes) <= batch and max(sizes) - min(sizes) <= 1
    assert all(np.array_equal(a, b) for a, b in zip(batches, epoch_batches(n, batch, seed, epoch)))


def test_epochs_and_seeds_differ():
    orders = {
        tuple(np.concatenate(epoch_batches(50, 8, s, e)).tolist())
        for s in range(3)
        for e in range(3)
    }
    assert len(orders) == 9
    with pytest.raises(NbkitError):
        epoch_batches(0, 8, 0, 0)


def test_class_aware_batches_show_the_same_classes_on_both_sides():
    rng = np.random.default_rng(0)
    source, target = (
        rng.integers(0, 6, 80),
        rng.integers(-1, 5, 50),
    )  # class 5 has no target, -1 is rejected
    batches = class_aware_batches(source, target, 3, 4, 20, seed=1, epoch=2)
    seen = np.zeros(6, int)
    for s, t in batches:
        assert s.shape == t.shape == (12,)
        assert np.array_equal(source[s], target[t])
        assert len(np.unique(source[s])) == 3 and len(np.unique(s)) == 12
        seen[np.unique(source[s])] += 1
    assert seen[5] == 0 and seen[:5].max() - seen[:5].min() <= 1  # dealt in turn
    again = class_aware_batches(source, target, 3, 4, 20, seed=1, epoch=2)
    assert all(np.array_equal(a, b) for x, y in zip(batches, again) for a, b in zip(x, y))


def test_class_aware_batches_repeat_videos_of_rare_classes_evenly():
    ((s, t),) = class_aware_batches([0, 0, 0, 1], [1, 0, 1], 5, 4, 1, 0, 0)
    assert np.bincount(np.array([0, 0, 0, 1])[s]).tolist() == [4, 4]
    assert (s == 3).sum() == 4 and (t == 0).sum() == (t == 2).sum() == 2
    with pytest.raises(NbkitError, match="no class"):
        class_aware_batches([0, 1], [-1, 2], 2, 2, 1, 0, 0)
