"""Decoding real encoded files, and naming the file when it cannot be done."""

import av
import numpy as np
import pytest
from video_files import sliding, write_video

from nbkit.data.decode import look_at, read_video
from nbkit.errors import NbkitError


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_decodes_what_was_encoded(tmp_path, suffix):
    frames = sliding(9, 64)
    path = write_video(tmp_path / f"a.{suffix}", frames, fps=30)
    decoded = read_video(path)
    assert decoded.dtype == np.uint8 and decoded.shape == frames.shape
    assert (
        np.abs(decoded.astype(int) - frames).mean() < 6
    )  # lossy, but the same pictures in the same order
    assert look_at(path).frames == 9
    assert len(read_video(path, max_frames=4)) == 4


def test_channels_are_red_green_blue(tmp_path):
    red = np.zeros((3, 32, 32, 3), np.uint8)
    red[..., 0] = 220
    pixel = read_video(write_video(tmp_path / "red.mp4", red))[0, 16, 16]
    assert pixel[0] > 180 and pixel[1] < 40 and pixel[2] < 40


def _cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("reader", [look_at, read_video])
@pytest.mark.parametrize("suffix", ["mp4", "avi"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_files_are_named(tmp_path, reader, suffix, share):
    path = write_video(tmp_path / f"half.{suffix}", sliding(20, 64))
    _cut(path, share)
    with pytest.raises(NbkitError, match=f"half.{suffix}"):
        reader(path)


def test_truncated_streaming_mp4_is_named(tmp_path):
    """With the index in front FFmpeg would quietly decode the part that is left."""
    path = tmp_path / "front.mp4"
    frames = sliding(20, 64)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in frames:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                )
            )
        container.mux(stream.encode())
    assert len(read_video(path)) == 20
    _cut(path, 0.7)
    with pytest.raises(NbkitError, match="front.mp4.*truncated"):
        read_video(path)


@pytest.mark.parametrize("reader", [look_at, read_video])
def test_missing_empty_and_foreign_files_are_named(tmp_path, reader):
    with pytest.raises(NbkitError, match="gone.mp4.*no such"):
        reader(tmp_path / "gone.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(NbkitError, match="empty.mp4.*0 bytes"):
        reader(tmp_path / "empty.mp4")
    (tmp_path / "text.avi").write_text("not a video " * 50)
    with pytest.raises(NbkitError, match="text.avi"):
        reader(tmp_path / "text.avi")


def test_sound_without_pictures_is_named(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(NbkitError, match="song.mp4.*no video stream"):
        read_video(path)


def test_garbage_in_the_middle_never_passes_silently_as_an_empty_video(tmp_path):
    path = write_video(tmp_path / "scratch.mp4", sliding(20, 64))
    data = bytearray(path.read_bytes())
    data[200 : len(data) // 2] = b"\xff" * (len(data) // 2 - 200)
    path.write_bytes(bytes(data))
    try:
        assert len(read_video(path)) > 0  # FFmpeg concealed the damage
    except NbkitError as error:
        assert "scratch.mp4" in str(error)
