"""One module per official folder layout; each has ``Options`` and ``list_videos(spec, root) ->
Listing``.
"""

from __future__ import annotations

from nbkit.benchmarks.layouts import (
    arid,
    demo,
    epic,
    hmdb51,
    jhmdb,
    olympic,
    ucf101,
    ucf101_24,
    ucfsports,
)

LAYOUTS = {
    "arid": arid,
    "demo": demo,
    "epic": epic,
    "hmdb51": hmdb51,
    "jhmdb": jhmdb,
    "olympic": olympic,
    "ucf101": ucf101,
    "ucf101_24": ucf101_24,
    "ucfsports": ucfsports,
}
