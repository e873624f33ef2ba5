"""One module per official folder layout; each has ``Options`` and ``list_videos(spec, root) -> Listing``."""

from __future__ import annotations

from nbkit.data.layouts import arid, demo, jhmdb

LAYOUTS = {"arid": arid, "demo": demo, "jhmdb": jhmdb}
