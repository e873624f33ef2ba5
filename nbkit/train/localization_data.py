"""The videos of a localization benchmark, with their boxes: one call, whatever the benchmark."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nbkit.benchmarks.manifest import load_manifest
from nbkit.benchmarks.resolve import resolve
from nbkit.data.locks import one_at_a_time
from nbkit.demo.write import write_demo
from nbkit.errors import NbkitError

#: the demo domains with untrimmed videos among them; the manifest is that of the trimmed ones
DEMO = "demo_untrimmed"
DEMO_COUNTS = {"train": 40, "val": 10, "test": 20}  # videos a class and domain
# over street: each of its videos loses 30 to 60 % of its contrast, so that proposals are lost, too
HAZE = 0.6
# of the videos of each split: two performances, with standing and empty stretches around them
UNTRIMMED = 0.25
#: benchmarks that lie in another benchmark's folder
SAME_FOLDER = {"jhmdb_camera_boxes": "jhmdb_camera"}


def benchmark_root(benchmark: str, data_root: str | Path) -> Path:
    """The folder below `data_root` that holds a benchmark: its own, or the one it shares where that
    is there instead.
    """
    places = [Path(data_root) / name for name in (benchmark, SAME_FOLDER.get(benchmark)) if name]
    return next((place for place in places if place.exists()), places[0])


def write_untrimmed_demo(
    data_root: str | Path, *, counts: dict[str, int] | None = None, seed: int = 0, workers: int = 2
) -> Path:
    """Render `data_root/demo_untrimmed` unless it is there: both demo domains, a quarter of the
    videos untrimmed, street in haze.

    An untrimmed video is three times as long and holds its action twice; between and around the two
    performances the actor stands still or is gone. Those frames are background: they have no box.
    Returns the folder. About two minutes of one core for the default counts.
    """
    counts = DEMO_COUNTS if counts is None else counts
    name = (
        DEMO
        if (counts, seed) == (DEMO_COUNTS, 0)
        else f"{DEMO}_{'_'.join(map(str, counts.values()))}_s{seed}"
    )
    with one_at_a_time(data_root, DEMO):
        return write_demo(
            Path(data_root) / name,
            videos_per_class=counts,
            seed=seed,
            workers=workers,
            untrimmed_fraction=UNTRIMMED,
            haze=HAZE,
        )


def localization_table(
    benchmark: str,
    data_root: str | Path = "data",
    *,
    split_seed: int = 0,
    counts: dict[str, int] | None = None,
    workers: int = 2,
    allow_partial: bool = False,
    domains: tuple[str, str] | None = None,
) -> tuple[list[str], pd.DataFrame]:
    """Class names and the resolved table of a benchmark: columns video, path, class_name, label,
    domain, split, boxes.

    benchmark: 'demo_untrimmed' (rendered when absent, `counts` videos a class by split), or a
    manifest of a localization task whose official folder lies at `data_root/<benchmark>`.
    split_seed: draws grouped splits. allow_partial, domains: as in `resolve`. Raises NbkitError for
    a benchmark without boxes, and what `resolve` raises.
    """
    if benchmark == DEMO:
        manifest = load_manifest("demo")
        table = resolve(
            manifest,
            write_untrimmed_demo(data_root, counts=counts, workers=workers),
            allow_partial=True,
        )
        return list(manifest.classes), table
    manifest = load_manifest(benchmark)
    if manifest.task != "localization":
        raise NbkitError(
            f"BENCHMARK={benchmark!r} has no boxes (its task is {manifest.task}); "
            f"take {DEMO}, jhmdb_camera_boxes, ucfsports_ucf101 or jhmdb_ucf101"
        )
    return list(manifest.classes), resolve(
        manifest,
        benchmark_root(benchmark, data_root),
        split_seed=split_seed,
        allow_partial=allow_partial,
        domains=domains,
    )
