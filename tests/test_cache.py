"""The cache: one file per video, decoded once, exact, reused, whole or absent."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from video_files import sliding, video_table, write_video

from nbkit.data import arrays, flow
from nbkit.data import cache as cache_module
from nbkit.data.cache import build_cache, prepare_video, square
from nbkit.data.decode import read_video
from nbkit.data.flow import dequantise
from nbkit.errors import NbkitError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return video_table(tmp_path_factory.mktemp("videos"), lengths=(12, 7, 20, 5))


def build(table, folder, **options):
    return build_cache(table, folder, **{"size": 32, "workers": 1, "progress": False, **options})


def test_holds_every_frame_of_every_video(table, tmp_path):
    cache = build(table, tmp_path)
    assert len(cache) == 4 and cache.videos == ["v0", "v1", "v2", "v3"]
    assert [cache.n_frames(v) for v in table["video"]] == [12, 7, 20, 5]
    for video, path in zip(table["video"], table["path"]):
        rgb, flow = prepare_video(path, 32, "dis", cache.flow_clip)
        assert np.array_equal(cache.rgb(video), rgb) and np.array_equal(cache.flow(video), flow)
        assert not cache.rgb(video).flags.writeable
    with pytest.raises(NbkitError, match="'other' is not in"):
        cache.rgb("other")


def test_flow_vectors_shrink_with_the_picture(tmp_path):
    path = write_video(tmp_path / "a.mp4", sliding(4, 96, (4, 0)))
    _, flow = prepare_video(path, 24, "dis", 4.0)
    u = dequantise(flow, 4.0)[:, 4:-4, 4:-4, 0]
    assert abs(u.mean() - 1.0) < 0.15  # 4 pixels at 96 are 1 pixel at 24


def test_short_side_is_fitted_and_the_centre_cut():
    wide = np.zeros((2, 40, 80, 3), np.uint8)
    wide[:, :, 38:42] = 255
    small, scale = square(wide, 20)
    assert small.shape == (2, 20, 20, 3) and scale == 0.5
    assert small[0, 10, 9:11].min() > 200 and small[0, :, [0, 19]].max() == 0
    same, scale = square(wide[:, :, :40], 40)
    assert scale == 1 and np.array_equal(same, wide[:, :, :40])


def files(cache):
    """Content of the cache's files by video."""
    return {video: path.read_bytes() for video, path in cache.arrays.paths.items()}


def left(path):
    """Names of the files below a folder."""
    return sorted(p.name for p in Path(path).rglob("*") if p.is_file())


def test_workers_do_not_change_the_bytes(table, tmp_path):
    one, two = build(table, tmp_path / "a"), build(table, tmp_path / "b", workers=2)
    assert one.key == two.key and files(one) == files(two)
    assert left(tmp_path / "a") == left(tmp_path / "b") and len(left(tmp_path / "a")) == 4


def test_a_finished_cache_is_reused_and_other_settings_are_another_cache(
    table, tmp_path, monkeypatch
):
    first = build(table, tmp_path)
    other = build(table, tmp_path, size=24)
    assert other.key != first.key and other.arrays.folder != first.arrays.folder
    monkeypatch.setattr(cache_module, "prepare_video", None)  # decoding again would fail
    again = build(table, tmp_path)
    assert again.key == first.key and again.arrays.paths == first.arrays.paths
    # the order of the rows does not matter
    assert build(table.sample(frac=1, random_state=0), tmp_path).key == first.key


def test_tables_share_the_videos_that_they_have_in_common(table, tmp_path, monkeypatch):
    part = build(table[1:3], tmp_path)
    seen = counting(monkeypatch)
    whole = build(table, tmp_path)
    assert seen == ["v0", "v3"] and whole.key != part.key
    assert np.array_equal(whole.rgb("v2"), part.rgb("v2"))


def test_new_content_under_an_old_name_is_another_video(tmp_path):
    table = video_table(tmp_path, lengths=(6, 6))
    first = build(table, tmp_path / "c")
    write_video(table["path"][1], sliding(6, 64, (0, 1), seed=9))
    second = build(table, tmp_path / "c")
    assert second.key != first.key
    assert second.arrays.paths["v0"] == first.arrays.paths["v0"]
    assert second.arrays.paths["v1"] != first.arrays.paths["v1"]


def test_two_videos_of_the_same_content_have_a_file_each(tmp_path):
    table = video_table(tmp_path, lengths=(6,))
    twice = table.loc[[0, 0]].assign(video=["a", "b"])
    assert len(left(build(twice, tmp_path / "c").arrays.folder)) == 2


def test_a_cache_travels_to_worker_processes_as_its_paths(table, tmp_path):
    cache = build(table, tmp_path)
    payload = pickle.dumps(cache)
    assert len(payload) < 3000
    assert np.array_equal(pickle.loads(payload).rgb("v2"), cache.rgb("v2"))


@pytest.mark.parametrize("workers", [1, 2])
def test_all_broken_videos_are_named_and_nothing_is_written(tmp_path, workers):
    table = video_table(tmp_path, lengths=(6, 6, 6, 6))
    paths = [Path(p) for p in table["path"]]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    with pytest.raises(NbkitError) as caught:
        build(table, tmp_path / "c", workers=workers)
    told = str(caught.value)
    assert all(f"v{i}.mp4" in told for i in (0, 1, 2)) and "v3.mp4" not in told
    assert left(tmp_path / "c") == []


def counting(monkeypatch, fail_at=None, error=KeyboardInterrupt):
    """Record which videos are prepared; the `fail_at`-th raises `error`."""
    seen, original = [], cache_module.prepare_video

    def prepare(source, **how):
        seen.append(Path(source.path).stem)
        if len(seen) == fail_at:
            raise error
        return original(source, **how)

    monkeypatch.setattr(cache_module, "prepare_video", prepare)
    return seen


def test_a_stopped_build_goes_on_after_the_last_finished_video(table, tmp_path, monkeypatch):
    whole = build(table, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, fail_at=3)
        build(table, tmp_path / "cut")
    assert len(left(tmp_path / "cut")) == 2
    seen = counting(monkeypatch)
    again = build(table, tmp_path / "cut")
    assert seen == ["v2", "v3"] and files(again) == files(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_video_that_fails_only_when_decoded_costs_only_itself(tmp_path, monkeypatch, workers):
    table = video_table(tmp_path, lengths=(6, 6, 6, 6))
    data = bytearray(Path(table["path"][2]).read_bytes())
    last = data.find(b"moov") - 4
    data[last - 900 : last] = b"\xff" * 900  # its last frames
    Path(table["path"][2]).write_bytes(data)
    with pytest.raises(NbkitError, match="(?s)the others are kept.*v2.mp4.*damaged"):
        build(table, tmp_path / "c", workers=workers)
    write_video(Path(table["path"][2]), sliding(5, 64))  # repaired
    seen = counting(monkeypatch)
    cache = build(table, tmp_path / "c")
    assert seen == ["v2"]
    for video, path in zip(table["video"], table["path"]):
        assert np.array_equal(cache.rgb(video), prepare_video(path, 32, "dis", cache.flow_clip)[0])


def full_disk(*_args, **_how):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["save", "fsync"])
def test_full_disk_names_the_file_and_keeps_what_is_done(table, tmp_path, monkeypatch, step):
    build(table[:1], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*{"save": (np, "save"), "fsync": (os, "fsync")}[step], full_disk)
        with pytest.raises(NbkitError, match=f"{tmp_path}.*npy: .*the disk is full"):
            build(table, tmp_path)
    assert len(left(tmp_path)) == 1  # no half file
    seen = counting(monkeypatch)
    assert len(build(table, tmp_path)) == 4 and seen == ["v1", "v2", "v3"]


def test_a_folder_that_may_not_be_written_is_named(table, tmp_path, monkeypatch):
    def refused(*_args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(NbkitError, match="npy: could not be written .*Permission denied"):
        build(table, tmp_path)


def test_raft_runs_in_one_thread_and_asks_for_its_weights_first(
    table, tmp_path, monkeypatch, capsys
):
    asked = []

    def still():
        asked.append(1)
        return lambda frames: np.zeros((*frames.shape[:3], 2), np.float32)

    monkeypatch.setattr(flow, "pretrained_raft", still)
    cache = build(table, tmp_path, flow="raft", workers=2)
    assert asked and (cache.flow("v0") == flow.ZERO).all()
    assert "workers=1 instead of 2" in capsys.readouterr().out

    def offline():
        raise NbkitError("put the file at ...")

    monkeypatch.setattr(flow, "pretrained_raft", offline)
    with pytest.raises(NbkitError, match="^put the file"):  # once, not once per video
        build(table, tmp_path, flow="raft", size=24)
    assert len(left(tmp_path)) == 4


def test_too_little_space_is_seen_before_the_work(table, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(NbkitError, match="GB are needed"):
        build(table, tmp_path)
    assert left(tmp_path) == []


def harmed(path, how):
    data = path.read_bytes()
    if how == "array":
        np.save(path, np.zeros((3, 7), np.uint8))
    elif how == "order":
        np.save(path, np.asfortranarray(np.load(path)))
    elif how == "dtype":
        np.save(path, np.zeros((3, 5 * 32 * 32), np.float32))
    elif how == "pickle":
        np.save(path, np.array([{}]), allow_pickle=True)
    elif how == "header":
        path.write_bytes(data[:10] + b"{'descr': (((" + data[23:])
    else:
        path.write_bytes(
            {"cut": data[:2000], "empty": b"", "long": data + b"x", "text": b"<html>"}[how]
        )


@pytest.mark.parametrize(
    "how", ["cut", "empty", "long", "text", "array", "dtype", "pickle", "header", "order"]
)
def test_a_damaged_file_is_named_and_made_again(table, tmp_path, monkeypatch, how):
    first = build(table, tmp_path)
    before, path = files(first), first.arrays.paths["v1"]
    harmed(path, how)
    with pytest.raises(NbkitError, match=f"{path.name}: damaged"):
        arrays.open_array(path, first.arrays.shape, first.arrays.dtype)
    seen = counting(monkeypatch)
    with pytest.warns(UserWarning, match=f"{path.name}: damaged .* it is made again"):
        again = build(table, tmp_path)
    assert seen == ["v1"] and files(again) == before


def test_a_file_that_cannot_be_read_just_now_is_left_as_it_is(table, tmp_path, monkeypatch):
    path = build(table, tmp_path).arrays.paths["v1"]
    original = np.lib.format.open_memmap

    def unreadable(name, **how):
        if Path(name) == path:
            raise OSError(errno.EIO, "Input/output error")
        return original(name, **how)

    monkeypatch.setattr(np.lib.format, "open_memmap", unreadable)
    before = path.read_bytes()
    with pytest.raises(NbkitError, match=f"{path.name}: cannot be read just now .*left as it is"):
        build(table, tmp_path)
    assert path.read_bytes() == before


def test_a_file_that_was_deleted_after_the_build_is_named(table, tmp_path):
    cache = build(table, tmp_path)
    cache.arrays.paths["v1"].unlink()
    with pytest.raises(NbkitError, match="npy: was deleted. Run again"):
        cache.rgb("v1")


def test_refusals(table, tmp_path):
    twice = table.assign(video="same")
    with pytest.raises(NbkitError, match="unique.*'same'"):
        build(twice, tmp_path)
    with pytest.raises(NbkitError, match="unknown method 'lk'"):
        build(table, tmp_path, flow="lk")
    with pytest.raises(NbkitError, match="flow_clip"):
        build(table, tmp_path, flow_clip=0)


def test_max_frames_keeps_the_start(table, tmp_path):
    cache = build(table, tmp_path, max_frames=6, size=64)
    assert [cache.n_frames(v) for v in table["video"]] == [6, 6, 6, 5]
    assert np.array_equal(cache.rgb("v0"), read_video(table["path"][0])[:6])
