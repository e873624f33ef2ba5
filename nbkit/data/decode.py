"""Reading video files with PyAV (which bundles FFmpeg), one thread each, with errors that name the
file.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from nbkit.errors import NbkitError


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: number of decodable frames, size in pixels, frames per second (0 where
    unknown).
    """

    frames: int
    height: int
    width: int
    fps: float


def _declared_bytes(path):
    """Size in bytes that the container itself declares (RIFF/AVI, MP4/MOV), or None where it does
    not say.

    FFmpeg decodes what is left of a cut file without complaint, so a copy that stopped half-way is
    seen only here.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and len(head) == 12:
            return struct.unpack("<I", head[4:8])[0] + 8
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return None
        end = 0
        while end + 8 <= size:  # walk the top-level boxes: (length, name)
            file.seek(end)
            length, _ = struct.unpack(">I4s", file.read(8))
            if length == 1:  # a 64-bit length follows the name
                length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
            if length < 8:  # 0: the last box reaches to the end of the file
                return size
            end += length
        return end


def _check_file(path):
    """Raise NbkitError where the file cannot be a whole video, before FFmpeg sees it."""
    if not Path(path).is_file():
        raise NbkitError(f"{path}: no such video file. Check the data folder, or run `nbkit check-data`.")
    size = os.path.getsize(path)
    if size == 0:
        raise NbkitError(f"{path}: the file is empty (0 bytes). Fetch or extract it again.")
    declared = _declared_bytes(path)
    if declared is not None and declared > size:
        raise NbkitError(
            f"{path}: the file is truncated ({size} bytes of at least {declared} that its header announces). "
            "Fetch or extract it again."
        )


def _open(path):
    """An open PyAV container and its first video stream, decoding in one thread."""
    _check_file(path)
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise NbkitError(f"{path}: not a readable video ({error}). Fetch or extract it again.") from error
    if not container.streams.video:
        container.close()
        raise NbkitError(f"{path}: the file has no video stream.")
    stream = container.streams.video[0]
    stream.thread_count = 1  # the worker processes are the parallelism
    return container, stream


def probe(path):
    """Count the frames and read the size of a video without decoding it.

    Headers of AVI files often announce more frames than there are; the packets are counted instead.
    Returns VideoInfo.  Raises NbkitError naming the file where it is missing, empty, truncated or
    not a video.
    """
    container, stream = _open(path)
    with container:
        try:
            frames = sum(1 for packet in container.demux(stream) if packet.size)
        except (av.FFmpegError, OSError) as error:
            raise NbkitError(f"{path}: damaged video ({error}). Fetch or extract it again.") from error
        context = stream.codec_context
        if frames == 0 or context.height == 0:
            raise NbkitError(f"{path}: the video stream holds no frames.")
        return VideoInfo(frames, context.height, context.width, float(stream.average_rate or 0))


def read_video(path, max_frames=None):
    """Decode a video.

    path        a file that FFmpeg can read
    max_frames  stop after so many frames (None: all)
    Returns uint8 (N, H, W, 3), RGB, in presentation order.
    Raises NbkitError naming the file where it is missing, empty, truncated, damaged or not a video.
    """
    container, stream = _open(path)
    frames = []
    with container:
        try:
            for frame in container.decode(stream):
                if max_frames is not None and len(frames) >= max_frames:
                    break
                frames.append(frame.to_ndarray(format="rgb24"))
        except (av.FFmpegError, OSError) as error:
            raise NbkitError(
                f"{path}: decoding failed after {len(frames)} frames ({error}). Fetch or extract it again."
            ) from error
    if not frames:
        raise NbkitError(f"{path}: not one frame could be decoded.")
    if any(frame.shape != frames[0].shape for frame in frames):
        raise NbkitError(f"{path}: the frame size changes inside the video. Re-encode it at one size.")
    return np.stack(frames)  # (N, H, W, 3)
