"""Freed memory kept for the next step: a training loop asks for the same large arrays again and
again.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of mallopt(3)
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; returns whether it listened (glibc only, nothing
    happens elsewhere).

    By default large arrays are mapped anew from the system, page by page, and given back when they
    are freed: a quarter of a training step of the demo network and a third of an evaluation pass
    (benchmarks/freed_memory.py).  The process grows to its largest size and stays there.  No number
    changes.  Calling it again is harmless.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, _LARGEST))
    except (OSError, AttributeError):  # another C library
        return False
