"""Reading video files with PyAV (which bundles FFmpeg), with errors that name the file."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from nbkit.errors import NbkitError

AGAIN = "Fetch or extract it again."
# Codecs whose data never holds long runs of zeros: such a run is a hole in the file.
NO_ZEROS = {"h264", "hevc", "mpeg4", "msmpeg4v3", "h263", "vp8", "vp9", "av1"}
HOLE = bytes(256)
# Containers that `fault_of` walks; J-HMDB's AVI headers announce more time than the videos last.
WALKED = ("avi", "mov,mp4,m4a,3gp,3g2,mj2")
SEEN = ("video", "audio", "subtitle")
COVER = Disposition.attached_pic
# seconds, and part of the whole, by which a header's duration may be off
HEADER_SLACK = 0.25, 0.02
# frames that one picture may stand for; more is a broken time stamp
LONGEST_HOLD = 10_000


# top-level boxes of MP4 and MOV
BOXES = set(
    "ftyp moov mdat free skip wide moof mfra sidx styp uuid meta udta pnot PICT emsg prft".split()
)
# of a chunk among the frames of an AVI file
CHUNK = re.compile(rb"[0-9A-Fa-f]{2}[a-z]{2}|ix[0-9]{2}|JUNK|idx1|LIST|RIFF")
# what a writer to a pipe leaves for a length it cannot know
UNKNOWN = (0, 0xFFFFFFFF)
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


class Look(NamedTuple):
    """What is known of a video before it is decoded: size in pixels, as a player shows it."""

    frames: int
    height: int
    width: int


def look_at(path: str | Path, by_time: bool = False) -> Look:
    """Walk through all packets of a video, and decode its first frame only.

    Packets are counted, because headers often announce more frames than there are. A codec may hand
    out fewer frames still, where a packet means "nothing changed".

    Args:
        by_time: count as `video_frames` does.

    Raises:
        NbkitError: the file is missing, empty, truncated, damaged or not a video.
    """
    shape, count, last = None, 0, -1
    with _opened(path) as (container, stream):
        for packet in _packets(path, container, stream):
            if packet.size:
                count += 1
                last = max(last, _number(packet, stream))
            if shape is None:
                for frame in packet.decode():
                    shape = _upright(frame, _turn_of(frame, path)).shape
        if shape is None:
            raise NbkitError(f"{path}: not one frame could be decoded. {AGAIN}")
        if by_time:
            count = max(last + 1, stream.frames)
    return Look(count, *shape[:2])


def video_frames(path: str | Path, by_time: bool = False) -> Iterator[np.ndarray]:
    """Decode a video: uint8 (H, W, 3) RGB, one after the other, as a player shows them.

    Args:
        by_time: frames are numbered by their time stamps. UCF101's files hold "nothing changed"
            frames that FFmpeg does not hand out, and UCF101-24's boxes count them: the frame before
            is repeated there.

    Raises:
        NbkitError: the file is missing, empty, truncated, damaged or not a video.
    """
    before, count, turn = None, 0, None
    with _opened(path) as (container, stream):
        for packet in _packets(path, container, stream):
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise NbkitError(f"{path}: frame {count} is damaged. {AGAIN}")
                turn = turn or _turn_of(frame, path)
                picture = _upright(frame, turn)
                if before is not None and picture.shape != before.shape:
                    raise NbkitError(
                        f"{path}: the frame size changes inside the video; encode it at one size."
                    )
                before = picture if before is None else before
                held = _number(frame, stream) - count if by_time else 0
                yield from _repeated(before, held, path)
                yield picture
                before, count = picture, count + held + 1
        if before is None:
            raise NbkitError(f"{path}: not one frame could be decoded. {AGAIN}")
        if by_time:
            yield from _repeated(before, max(stream.frames - count, 0), path)


def read_video(path: str | Path, max_frames: int | None = None) -> np.ndarray:
    """`video_frames` a video as one array, (N, H, W, 3); at most `max_frames`."""
    return np.stack(list(itertools.islice(video_frames(path), max_frames)))


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A PyAV container and its video, decoding in one thread; what PyAV raises is explained."""
    require_file(path)
    try:
        fault = fault_of(path)
        if fault:
            raise NbkitError(f"{path}: the file {fault}. {AGAIN}")
        # a playlist in disguise may name files of this machine only
        options = {"protocol_whitelist": "file"}
        with av.open(str(path), options=options, metadata_errors="replace") as container:
            # a song's cover is a video stream of one picture
            videos = [s for s in container.streams.video if s.disposition & COVER != COVER]
            if not videos:
                raise NbkitError(f"{path}: the file has no video stream.")
            stream = videos[0]
            # several videos are decoded side by side
            stream.thread_count = 1
            # FFmpeg would paint over what it cannot read
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise NbkitError(f"{path}: not a readable video, or damaged ({error}). {AGAIN}") from error


def require_file(path: str | Path) -> None:
    """Raise NbkitError where there is no file, or nothing in it."""
    if os.path.islink(path) and not os.path.exists(path):
        raise NbkitError(
            f"{path}: a link to {os.readlink(path)}, which is not there. Mount or fetch what it "
            "points to."
        )
    if not os.path.isfile(path):
        raise NbkitError(
            f"{path}: no such video file. Check the data folder, or run `nbkit check-data`."
        )
    if os.path.getsize(path) == 0:
        raise NbkitError(f"{path}: the file is empty (0 bytes). {AGAIN}")


def _packets(
    path: str | Path, container: InputContainer, stream: VideoStream
) -> Iterator[av.Packet]:
    """The packets of a video; at their end the header's duration is compared."""
    walked = container.format.name in WALKED
    # the longest of all streams ends with the file
    streams = [stream] if walked else [s for s in container.streams if s.type in SEEN]
    ends = dict.fromkeys((s.index for s in streams), 0.0)
    for found, packet in enumerate(container.demux(streams)):
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None:
            end = float((time + (packet.duration or 0)) * packet.time_base)
            ends[packet.stream.index] = max(ends[packet.stream.index], end)
        if packet.stream.index != stream.index:
            continue
        hole = stream.codec_context.name in NO_ZEROS and HOLE in bytes(packet)
        if packet.is_corrupt or hole:
            raise NbkitError(f"{path}: a part is missing (packet {found}). {AGAIN}")
        yield packet
    said, end = (container.duration or 0) / 1e6, max(ends.values())
    if not walked and end < said - max(HEADER_SLACK[0], HEADER_SLACK[1] * said):
        raise NbkitError(
            f"{path}: the file is truncated: it ends after {end:.2f} s of the {said:.2f} s that it "
            f"announces. {AGAIN}"
        )


def _number(timed: av.Packet | av.VideoFrame, stream: VideoStream) -> int:
    time = timed.dts if timed.pts is None else timed.pts
    if time is None or stream.base_rate is None:
        return -1
    return round((time - (stream.start_time or 0)) * stream.time_base * stream.base_rate)


def _repeated(picture: np.ndarray, times: int, path: str | Path) -> Iterator[np.ndarray]:
    if not 0 <= times <= LONGEST_HOLD:
        raise NbkitError(f"{path}: its time stamps jump by {times} frames. {AGAIN}")
    return itertools.repeat(picture, times)


def _turn_of(frame: av.VideoFrame, path: str | Path) -> tuple[bool, int, int]:
    """How a player turns a video: whether sides are swapped, and the steps down and right then.

    Asked of the first frame only: PyAV keeps a frame that was asked until the garbage is collected.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, 1, 1
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = map(int, np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]))
    if a and d and not (b or c):
        return False, d, a
    if b and c and not (a or d):
        return True, b, c
    raise NbkitError(f"{path}: turned by {frame.rotation} degrees; encode it upright.")


def _upright(frame: av.VideoFrame, turn: tuple[bool, int, int]) -> np.ndarray:
    """The picture (H, W, 3) as a player shows it: phones store portrait clips sideways."""
    swapped, down, right = turn
    picture = frame.to_ndarray(format="rgb24")
    if swapped:
        picture = picture.swapaxes(0, 1)
    return np.ascontiguousarray(picture[::down, ::right])


# --- whether a file is whole, by what its container says ------------------------------------------
def fault_of(path: str | Path) -> str:
    """What shows that a part of the file is missing; '' where nothing does.

    FFmpeg plays what is left of a cut or zero-filled copy without complaint.  Here the parts of
    AVI, MP4 (MOV) and Matroska (WebM) files are walked by their lengths, which costs no decoding.
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return _avi_fault(file, size)
        if head[4:8].decode("latin-1") in BOXES:
            return _mp4_fault(file, size)
        if head[:4] == EBML:
            return _matroska_fault(file, size)
    return ""


def _truncated(size: int, needed: int) -> str:
    return f"is truncated ({size} bytes of at least {needed} that it announces)"


def _avi_fault(file: BinaryIO, size: int) -> str:
    """Every chunk lies inside the file, and no chunk among the frames is made of zeros.

    The length in the header is not asked: pipes do not know it, and writers count it in three ways.
    """
    position, frames_end = 0, 0
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        among_frames, end = position < frames_end, position + 8 + length
        if name in (b"RIFF", b"LIST"):
            if name == b"LIST" and file.read(4) == b"movi":
                frames_end = size if length in UNKNOWN else end
                if frames_end > size:
                    return _truncated(size, frames_end)
            position += 12
            continue
        if among_frames and not any(name + file.read(512)):
            return f"holds zeros in place of frames from byte {position} on"
        if frames_end and not CHUNK.fullmatch(name):
            return ""  # padding, or what another program added
        if end > size:
            return _truncated(size, end)
        position = end + length % 2
    return _truncated(size, position + 8) if position < min(size, frames_end) else ""


def _mp4_fault(file: BinaryIO, size: int) -> str:
    """Every top-level box lies inside the file; a camera's trailer, which is no box, may follow."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:  # a 64-bit length follows the name
            length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
        # 0: the last box reaches to the end of the file
        if length < 8 or name.decode("latin-1") not in BOXES:
            return ""
        end += length
    return _truncated(size, end) if end > size else ""


def _matroska_fault(file: BinaryIO, size: int) -> str:
    """The segment, which holds everything, lies inside the file."""
    file.seek(4)
    header, _ = _matroska_length(file)
    file.seek(header, 1)
    if file.read(4) != SEGMENT:
        return ""
    length, unknown = _matroska_length(file)
    end = file.tell() + length
    return _truncated(size, end) if end > size and not unknown else ""


def _matroska_length(file: BinaryIO) -> tuple[int, bool]:
    """A length of as many bytes as its leading zeros say, and whether it means "unknown"."""
    first = file.read(1) or b"\xff"
    count = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(count - 1), "big") & ((1 << 7 * count) - 1)
    return value, value == (1 << 7 * count) - 1
