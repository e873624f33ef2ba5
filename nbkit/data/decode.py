"""Reading video files with PyAV (which bundles FFmpeg), with errors that name the file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from nbkit.errors import NbkitError

AGAIN = "Fetch or extract it again."


def count_video_frames(path: str | Path) -> int:
    """Number of frames of a video, found without decoding it.

    Headers of AVI files often announce more frames than there are; the packets are counted.

    Raises:
        NbkitError: the file is missing, empty, truncated or not a video.
    """
    container, stream = _open(path)
    with container:
        try:
            frames = sum(1 for packet in container.demux(stream) if packet.size)
        except (av.FFmpegError, OSError) as error:
            raise NbkitError(f"{path}: damaged video ({error}). {AGAIN}") from error
        if frames == 0 or stream.codec_context.height == 0:
            raise NbkitError(f"{path}: the video stream holds no frames.")
        return frames


def read_video(path: str | Path, max_frames: int | None = None) -> np.ndarray:
    """Decode a video: uint8 (N, H, W, 3) RGB in presentation order; at most `max_frames`.

    Raises:
        NbkitError: the file is missing, empty, truncated, damaged or not a video.
    """
    container, stream = _open(path)
    frames: list[np.ndarray] = []
    with container:
        try:
            for frame in container.decode(stream):
                if max_frames is not None and len(frames) >= max_frames:
                    break
                frames.append(frame.to_ndarray(format="rgb24"))
        except (av.FFmpegError, OSError) as error:
            raise NbkitError(
                f"{path}: decoding failed after {len(frames)} frames ({error}). {AGAIN}"
            ) from error
    if not frames:
        raise NbkitError(f"{path}: not one frame could be decoded.")
    if any(frame.shape != frames[0].shape for frame in frames):
        raise NbkitError(f"{path}: the frame size changes inside the video; encode it at one size.")
    return np.stack(frames)


def _open(path: str | Path) -> tuple[InputContainer, VideoStream]:
    """An open PyAV container and its first video stream, decoding in one thread."""
    _check_file(path)
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise NbkitError(f"{path}: not a readable video ({error}). {AGAIN}") from error
    if not container.streams.video:
        container.close()
        raise NbkitError(f"{path}: the file has no video stream.")
    stream = container.streams.video[0]
    # several videos are decoded side by side
    stream.thread_count = 1
    return container, stream


def _check_file(path: str | Path) -> None:
    """Raise NbkitError where the file cannot be a whole video, before FFmpeg sees it."""
    if not Path(path).is_file():
        raise NbkitError(
            f"{path}: no such video file. Check the data folder, or run `nbkit check-data`."
        )
    size = os.path.getsize(path)
    if size == 0:
        raise NbkitError(f"{path}: the file is empty (0 bytes). {AGAIN}")
    declared = _declared_bytes(path, size)
    if declared > size:
        raise NbkitError(
            f"{path}: the file is truncated ({size} bytes of at least {declared} that its header "
            f"announces). {AGAIN}"
        )


def _declared_bytes(path: str | Path, size: int) -> int:
    """Bytes that the container itself declares (AVI, MP4, MOV); its size where it does not say.

    FFmpeg decodes what is left of a cut file without complaint: a copy that stopped half-way is
    seen only here.
    """
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and len(head) == 12:
            return struct.unpack("<I", head[4:8])[0] + 8
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return size
        # walk the top-level boxes: (length, name)
        end = 0
        while end + 8 <= size:
            file.seek(end)
            length, _ = struct.unpack(">I4s", file.read(8))
            if length == 1:  # a 64-bit length follows the name
                length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
            if length < 8:  # 0: the last box reaches to the end of the file
                return size
            end += length
        return end
