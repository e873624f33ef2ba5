"""Whether a video file is whole, by what its container says about itself.

FFmpeg plays what is left of a cut or zero-filled copy without complaint. Here the parts of AVI, MP4
(MOV) and Matroska (WebM) files are walked by their lengths, which costs no decoding.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

BOXES = set(
    "ftyp moov mdat free skip wide moof mfra sidx styp uuid meta udta pnot PICT emsg prft".split()
)
# of a chunk among the frames of an AVI file
CHUNK = re.compile(rb"[0-9A-Fa-f]{2}[a-z]{2}|ix[0-9]{2}|JUNK|idx1|LIST|RIFF")
# what a writer to a pipe leaves for a length it cannot know
UNKNOWN = (0, 0xFFFFFFFF)
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def fault_of(path: str | Path) -> str:
    """What shows that a part of the file is missing; '' where nothing does."""
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
