"""Videos that are not what they seem: turned, cut, zero-filled, damaged, with odd headers."""

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import sliding, texture, write_video

from nbkit.data.decode import look_at, read_video, video_frames
from nbkit.errors import NbkitError

ONE = 1 << 16
N = 60
# a b c d of the display matrix, and what it makes of a picture
TURNS = {
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): np.rot90,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


def set_matrix(path, a, b, c, d):
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd")
    start += 8 + (20 if data[start + 4] == 0 else 32) + 16
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("matrix", TURNS)
def test_frames_are_turned_as_players_show_them(tmp_path, matrix, suffix):
    path = write_video(tmp_path / f"a.{suffix}", sliding(4, 96)[:, :64])
    plain = read_video(path)
    set_matrix(path, *(ONE * x for x in matrix))
    turned = read_video(path)
    assert np.array_equal(turned, np.stack([TURNS[matrix](frame) for frame in plain]))
    assert look_at(path) == turned.shape[:3]


def test_another_angle_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", sliding(4, 64))
    set_matrix(path, 46341, 46341, -46341, 46341)
    for reader in (look_at, read_video):
        with pytest.raises(NbkitError, match="a.mp4: turned by -?45 degrees"):
            reader(path)


@pytest.fixture(scope="module")
def noisy():
    noise = np.random.default_rng(0).integers(-20, 20, (N, 120, 160, 3))
    return np.clip(texture(160)[:120].astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def whole(noisy, tmp_path_factory):
    """The same video in some containers, by suffix."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    kinds = {
        "avi": ("mpeg4", {}),
        "mp4": ("libx264", {}),
        "front.mp4": ("libx264", {"movflags": "faststart"}),
        "parts.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}),
        "mov": ("mpeg4", {}),
        "mkv": ("libx264", {}),
        "webm": ("libvpx", {}),
    }
    for suffix, (codec, options) in kinds.items():
        path = folder / f"v.{suffix}"
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=25, options={"g": "20"})
            stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
            for frame in noisy:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        assert len(read_video(path)) == look_at(path).frames == N
        found[suffix] = path.read_bytes()
    return found


KINDS = ["avi", "mp4", "front.mp4", "mov", "mkv", "webm"]


@pytest.mark.parametrize("suffix", [*KINDS, "parts.mp4"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_cut_file_is_refused(tmp_path, whole, suffix, share):
    path, data = tmp_path / f"v.{suffix}", whole[suffix]
    path.write_bytes(data[: int(len(data) * share)])
    for reader in (look_at, read_video):
        with pytest.raises(NbkitError, match=f"v.{suffix}"):
            reader(path)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("share", [(0.3, 1.0), (0.6, 1.0), (0.9, 1.0), (0.4, 0.6), (0.0, 0.1)])
def test_a_file_with_zeros_is_refused(tmp_path, whole, suffix, share):
    path, data = tmp_path / f"v.{suffix}", bytearray(whole[suffix])
    first, last = (int(len(data) * x) for x in share)
    data[first:last] = bytes(last - first)
    path.write_bytes(data)
    for reader in (look_at, read_video):
        with pytest.raises(NbkitError, match=f"v.{suffix}"):
            reader(path)


def riff_size(data, size):
    return data[:4] + struct.pack("<I", size) + data[8:]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: riff_size(data, 0),
        lambda data: riff_size(data, 0xFFFFFFFF),
        lambda data: riff_size(data, len(data)),
        lambda data: riff_size(data, len(data) - 500),
        lambda data: data + bytes(4096),
        lambda data: data + b"written by a camera " * 40,
        lambda data: data.replace(b"idx1", b"JUNK"),
    ],
)
def test_odd_avi_headers_are_no_reason_to_refuse(tmp_path, whole, change):
    path = tmp_path / "v.avi"
    path.write_bytes(change(whole["avi"]))
    assert len(read_video(path)) == look_at(path).frames == N


@pytest.mark.parametrize(
    "tail", [bytes(3000), b"trailer of a camera " * 40, b"\0\0\0\x10freeabcdefgh"]
)
def test_what_follows_the_last_box_is_no_reason_to_refuse(tmp_path, whole, tail):
    path = tmp_path / "v.mp4"
    path.write_bytes(whole["mp4"] + tail)
    assert len(read_video(path)) == N


def test_piped_files(tmp_path, noisy):
    """A writer that cannot go back leaves lengths and durations unknown."""

    class Pipe:
        def __init__(self):
            self.data = bytearray()

        def write(self, more):
            self.data += bytes(more)
            return len(more)

    for suffix, codec, form in (("avi", "mpeg4", "avi"), ("mkv", "libx264", "matroska")):
        pipe, path = Pipe(), tmp_path / f"v.{suffix}"
        with av.open(pipe, "w", format=form) as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 120, 160, "yuv420p"
            for frame in noisy:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        path.write_bytes(pipe.data)
        assert len(read_video(path)) == N
    path = tmp_path / "v.avi"
    path.write_bytes(path.read_bytes()[:-77])
    with pytest.raises(NbkitError, match="v.avi: the file is truncated"):
        read_video(path)


@pytest.mark.parametrize("suffix, least", [("avi", 14), ("mp4", 17), ("mkv", 17), ("webm", 0)])
def test_flipped_bits_are_mostly_noticed(tmp_path, whole, suffix, least):
    """Of 20 files with three flipped bits; VP8 (webm) has no means to notice any."""
    path, noticed = tmp_path / f"v.{suffix}", 0
    for seed in range(20):
        rng, data = np.random.default_rng(seed), bytearray(whole[suffix])
        for place in rng.integers(len(data) // 20, len(data) * 19 // 20, 3):
            data[place] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            list(video_frames(path))
        except NbkitError as error:
            assert "v." in str(error)
            noticed += 1
    assert noticed >= least, noticed


def test_neither_covers_nor_playlists_nor_foreign_letters(tmp_path, whole):
    playlist = tmp_path / "list.avi"
    playlist.write_text("ffconcat version 1.0\nfile http://127.0.0.1:9/x.avi\n")
    with pytest.raises(NbkitError, match="list.avi: not a readable video"):
        read_video(playlist)
    named = tmp_path / "v.avi"
    at = whole["avi"].find(b"ISFT") + 8
    named.write_bytes(whole["avi"][:at] + b"Caf\xe9" + whole["avi"][at + 4 :])
    assert look_at(named).frames == N  # a title in Latin-1


def test_missing_linked_and_unreadable_files(tmp_path):
    link = tmp_path / "link.avi"
    link.symlink_to("/nowhere/annex/key")
    (tmp_path / "loop.avi").symlink_to(tmp_path / "loop.avi")
    (tmp_path / "folder.avi").mkdir()
    for name, words in (("link", "a link to /nowhere"), ("loop", "a link"), ("folder", "no such")):
        with pytest.raises(NbkitError, match=f"{name}.avi: {words}"):
            look_at(tmp_path / f"{name}.avi")
    os.mkfifo(tmp_path / "pipe.avi")
    with pytest.raises(NbkitError, match="pipe.avi: no such video file"):
        look_at(tmp_path / "pipe.avi")


# --- frames that FFmpeg does not hand out --------------------------------------------------------
def held_video(path: Path, held: set[int], n=40):
    """An .avi whose file holds nothing for some frames."""
    frames = sliding(n, 64, step=(2, 0))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for t in sorted(set(range(n)) - held):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[t]), format="rgb24")
            frame.pts = t
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("held", [set(), {5}, set(range(10, 25)), {1, 3, 38}])
def test_held_frames_are_repeated_where_the_layout_says_so(tmp_path, held):
    path = held_video(tmp_path / "v.avi", held)
    decoded, by_time = read_video(path), list(video_frames(path, by_time=True))
    assert len(decoded) == look_at(path).frames == 40 - len(held)
    assert len(by_time) == look_at(path, by_time=True).frames == 40
    shown = 0
    for t, frame in enumerate(by_time):
        shown += t not in held and t > 0
        assert np.array_equal(frame, decoded[shown])
