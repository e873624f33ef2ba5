"""The cache: decoded once, exact, reused, and either whole or absent."""

import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from video_files import sliding, video_table, write_video

from nbkit.data import cache as cache_module
from nbkit.data import store
from nbkit.data.cache import VideoCache, build_cache, prepare_video, square
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
    assert len(cache) == 4 and "v0" in cache and "other" not in cache
    assert [cache.n_frames(v) for v in table["video"]] == [12, 7, 20, 5]
    for video, path in zip(table["video"], table["path"]):
        rgb, flow = prepare_video(path, 32, "dis", cache.flow_clip)
        assert np.array_equal(cache.rgb(video), rgb) and np.array_equal(cache.flow(video), flow)
    assert list(cache.index.columns) == ["video", "start", "frames"]
    assert json.loads((cache.folder / "settings.json").read_text())["key"] in cache.folder.name
    with pytest.raises(NbkitError, match="'other' is not in the cache"):
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


def test_workers_do_not_change_the_bytes(table, tmp_path):
    one, two = build(table, tmp_path / "a"), build(table, tmp_path / "b", workers=2)
    assert one.folder.name == two.folder.name
    for name in ("rgb.npy", "flow.npy", "index.csv", "settings.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_a_finished_cache_is_reused_and_other_settings_are_another_cache(
    table, tmp_path, monkeypatch
):
    first = build(table, tmp_path)
    other = build(table, tmp_path, size=24)
    assert other.folder != first.folder
    monkeypatch.setattr(cache_module, "prepare_video", None)  # decoding again would fail
    assert build(table, tmp_path).folder == first.folder
    # the order of the rows does not matter
    assert build(table.sample(frac=1, random_state=0), tmp_path).folder == first.folder


def test_new_content_under_an_old_name_is_another_cache(tmp_path):
    table = video_table(tmp_path, lengths=(6, 6))
    first = build(table, tmp_path / "c")
    write_video(table["path"][1], sliding(6, 64, (0, 1), seed=9))
    assert build(table, tmp_path / "c").folder != first.folder


def test_a_cache_travels_to_worker_processes_as_its_path(table, tmp_path):
    cache = build(table, tmp_path)
    payload = pickle.dumps(cache)
    assert len(payload) < 1000
    assert np.array_equal(pickle.loads(payload).rgb("v2"), cache.rgb("v2"))


def folders(path):
    """What stands in a cache folder, besides the empty lock files."""
    return (
        sorted(p.name for p in Path(path).iterdir() if p.suffix != ".lock")
        if Path(path).exists()
        else []
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_all_broken_videos_are_named_and_nothing_is_written(tmp_path, workers):
    table = video_table(tmp_path, lengths=(6, 6, 6, 6))
    paths = [Path(p) for p in table["path"]]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    with pytest.raises(NbkitError) as caught:
        build(table, tmp_path / "c", workers=workers)
    assert all(f"v{i}.mp4" in str(caught.value) for i in (0, 1, 2)) and "v3.mp4" not in str(
        caught.value
    )
    assert folders(tmp_path / "c") == []


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
    (part,) = folders(tmp_path / "cut")
    assert part == f".{whole.folder.name}.part"
    with open(
        tmp_path / "cut" / part / "flow.npy", "ab"
    ) as file:  # killed while it wrote the third video ...
        file.write(b"half a video")
    with open(tmp_path / "cut" / part / "journal.csv", "a") as file:  # ... and its line
        file.write("v2,19,2")
    seen = counting(monkeypatch)
    again = build(table, tmp_path / "cut")
    assert seen == ["v2", "v3"] and folders(tmp_path / "cut") == [whole.folder.name]
    for name in ("rgb.npy", "flow.npy", "index.csv", "settings.json"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert folders(again.folder) == folders(whole.folder)


def test_bytes_that_never_reached_the_disk_are_made_again(table, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, fail_at=4)
        build(table, tmp_path)
    (part,) = folders(tmp_path)
    with open(tmp_path / part / "rgb.npy", "r+b") as file:
        file.truncate((tmp_path / part / "rgb.npy").stat().st_size - 1)
    seen = counting(monkeypatch)
    build(table, tmp_path)
    assert seen == ["v2", "v3"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_video_that_fails_only_when_decoded_costs_only_itself(tmp_path, monkeypatch, workers):
    table = video_table(tmp_path, lengths=(6, 6, 1, 6))  # one frame: no flow
    with pytest.raises(NbkitError, match="(?s)the other 3 are kept.*v2.mp4.*only 1 frame"):
        build(table, tmp_path / "c", workers=workers)
    write_video(
        Path(table["path"][2]), sliding(5, 64)
    )  # repaired: another key, the same good videos
    seen = counting(monkeypatch)
    cache = build(table, tmp_path / "c")
    assert seen == ["v2"] and folders(tmp_path / "c") == [cache.folder.name]
    for video, path in zip(table["video"], table["path"]):
        assert np.array_equal(cache.rgb(video), prepare_video(path, 32, "dis", cache.flow_clip)[0])


def test_pieces_of_other_videos_or_settings_are_not_used(table, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, fail_at=4)
        build(table, tmp_path)
    (part,) = folders(tmp_path)
    with monkeypatch.context() as patch:
        seen = counting(patch)
        build(table, tmp_path, size=24)
        build(table[1:], tmp_path)  # its first piece is not of this table
        assert len(seen) == 4 + 3 and part in folders(tmp_path)
    seen = counting(monkeypatch)
    build(table, tmp_path)
    assert seen == ["v3"] and part not in folders(tmp_path)


def test_a_build_that_fails_at_the_first_video_leaves_nothing(tmp_path):
    with pytest.raises(NbkitError, match="only 1 frame"):
        build(video_table(tmp_path, lengths=(1,)), tmp_path / "c")
    assert folders(tmp_path / "c") == []


def test_full_disk_names_the_folder_and_keeps_what_is_done(table, tmp_path, monkeypatch):
    def full(self, piece):
        if self.length > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, piece)

    original = store.GrowingArray.append
    monkeypatch.setattr(store.GrowingArray, "append", full)
    with pytest.raises(
        NbkitError, match=f"{tmp_path}.*disk is full; the 1 videos that are done are kept"
    ):
        build(table, tmp_path)
    monkeypatch.undo()
    seen = counting(monkeypatch)
    assert len(build(table, tmp_path)) == 4 and seen == ["v1", "v2", "v3"]


def test_raft_stays_in_this_process_and_asks_for_its_weights_first(
    table, tmp_path, monkeypatch, capsys
):
    from nbkit.data import flow, flow_raft

    asked = []
    monkeypatch.setattr(flow_raft, "pretrained_raft", lambda *a, **k: asked.append(a))
    monkeypatch.setattr(
        flow_raft, "raft_flow", lambda frames: np.zeros((*frames.shape[:3], 2), np.float32)
    )
    cache = build(
        table, tmp_path, flow="raft", workers=2
    )  # a worker process would not see these stand-ins
    assert asked and (cache.flow("v0") == flow.ZERO).all()
    assert "workers=1 instead of 2" in capsys.readouterr().out

    def offline(*_args):
        raise NbkitError("put the file at ...")

    monkeypatch.setattr(flow_raft, "pretrained_raft", offline)
    with pytest.raises(NbkitError, match="^put the file"):  # once, not once a video
        build(table, tmp_path, flow="raft", size=24)
    assert folders(tmp_path) == [cache.folder.name]


def test_too_little_space_is_seen_before_the_work(table, tmp_path, monkeypatch):
    monkeypatch.setattr(
        store.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000})()
    )
    with pytest.raises(NbkitError, match="GB are needed"):
        build(table, tmp_path)
    assert folders(tmp_path) == []


def test_a_damaged_cache_says_so(table, tmp_path):
    folder = build(table, tmp_path).folder
    with open(folder / "flow.npy", "r+b") as file:
        file.truncate(2000)
    with pytest.raises(NbkitError, match="Delete it and build it again"):
        VideoCache(folder)


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


def test_a_full_disk_at_the_last_byte_keeps_its_message_and_frees_the_lock(
    table, tmp_path, monkeypatch
):
    def full(self, *_args, **_how):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.GrowingArray, "append", full)
    monkeypatch.setattr(store.GrowingArray, "close", full)
    for _ in range(2):  # the second try meets no lock of the first
        with pytest.raises(NbkitError, match="disk is full"):
            build(table, tmp_path)
    monkeypatch.undo()
    assert len(build(table, tmp_path)) == 4
