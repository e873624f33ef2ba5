"""`nbkit check-data`: what of a benchmark is there, missing or broken, and what a cache costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from nbkit.benchmarks.listing import Problem
from nbkit.benchmarks.manifest import Manifest, load_manifest
from nbkit.benchmarks.resolve import CountRow, check_counts, scan
from nbkit.config import RECOGNITION
from nbkit.data.boxes import clean_boxes, fitting_tubes, tubes_of
from nbkit.data.cache import require_usable
from nbkit.data.decode import require_file
from nbkit.data.flow import compute_flow
from nbkit.data.sources import look, read_flow, read_frames, source_of
from nbkit.errors import NbkitError

CACHED_BYTES = 5  # three of RGB, two of flow
SAMPLE_FRAMES = 9  # frames of one video per domain that are decoded and timed
LISTED = 10  # names per kind of problem in a report


@dataclass
class DataReport:
    """Everything the check found; ``table`` holds the usable videos with their number of frames."""

    manifest: Manifest
    root: str
    size: int
    table: pd.DataFrame
    problems: dict[str, list[Problem]]
    counts: list[CountRow]
    samples: list[str] = field(default_factory=list)
    seconds_per_frame: float | None = None

    @property
    def frames(self) -> int:
        """Frames of all usable videos."""
        return int(self.table["frames"].sum())

    @property
    def blocking(self) -> list[Problem]:
        """The problems that keep a run from starting: all but warnings and notes."""
        told = ("warning", "note")
        return [p for items in self.problems.values() for p in items if p.level not in told]

    @property
    def mismatches(self) -> int:
        """How many verified counts are off."""
        return sum(row.status == "mismatch" for row in self.counts)

    @property
    def ok(self) -> bool:
        """Nothing missing, nothing broken, no verified count off."""
        return not self.blocking and not self.mismatches


# --- looking -------------------------------------------------------------------------------------
def check_data(
    benchmark: str,
    root: str | Path,
    *,
    size: int = RECOGNITION["paper"]["cache_size"],
    split_seed: int = 0,
    quick: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look at a benchmark's data (name or manifest path) without changing anything.

    Args:
        root: folder that holds the datasets.
        size: side of the cached pictures in pixels, for the estimate.
        quick: look at file sizes only, instead of walking through every video's packets and boxes.
        watch: called with (done, total) while the files are looked at.

    Raises:
        NbkitError: no such benchmark or root. What is wrong inside the root is reported.
    """
    manifest = load_manifest(benchmark)
    if not Path(root).is_dir():
        raise NbkitError(
            f"{root}: no such folder; give the folder that holds the datasets with --root"
        )
    if size < 1:
        raise NbkitError(f"size={size}: the side of the cached pictures must be at least 1 pixel")
    table, problems = scan(manifest, root, split_seed=split_seed)
    frames = []
    for done, row in enumerate(table.to_dict("records"), start=1):
        try:
            frames.append(_count_frames(row, manifest, quick))
        except (NbkitError, OSError) as error:
            frames.append(0)
            problems[row["domain"]].append(Problem("broken", row["video"], str(error)))
        if watch:
            watch(done, len(table))
    table = table.assign(frames=np.array(frames, dtype=int))
    table = table[table["frames"] > 0].reset_index(drop=True)
    counts = check_counts(manifest, table, allow_partial=True)
    report = DataReport(manifest, str(root), size, table, problems, counts)
    _decode_samples(report)
    return report


def _count_frames(row: dict, manifest: Manifest, quick: bool) -> int:
    source = source_of(row)
    if quick and not source.is_folder:
        require_file(source.path)
        return int(manifest.mean_frames)
    found = look(source)
    if manifest.task == "recognition":
        require_usable(source.path, found)
    elif row.get("boxes"):
        for tube in fitting_tubes(row, found.frames).tubes:
            clean_boxes(tube.boxes, found.height, found.width, row["video"])
    return found.frames


def _decode_samples(report: DataReport) -> None:
    times = []
    for domain in report.manifest.domains:
        part = report.table[report.table["domain"] == domain]
        if part.empty:
            continue
        row = part.iloc[0].to_dict()
        try:
            # processor time, not the clock: other programs of the machine do not count
            start = time.process_time()
            frames, flow_kind = _sample(row, report.manifest)
            times.append((time.process_time() - start) / len(frames))
            boxes = ""
            if row.get("boxes"):
                tubes = tubes_of(row).tubes
                count = sum(len(tube.boxes) for tube in tubes)
                boxes = f", {count} boxes in {len(tubes)} tube{'s' * (len(tubes) != 1)}"
        except NbkitError as error:
            report.problems[domain].append(Problem("broken", row["video"], str(error)))
            continue
        n, height, width = frames.shape[:3]
        report.samples.append(
            f"{row['video']}: {row['frames']} frames of {width}x{height}, first {n} decoded, "
            f"{flow_kind} flow, mean brightness {frames.mean():.0f} of 255{boxes}"
        )
    if times:
        report.seconds_per_frame = sum(times) / len(times)


def _sample(row: dict, manifest: Manifest) -> tuple[np.ndarray, str]:
    source = source_of(row)
    frames = read_frames(source, SAMPLE_FRAMES)
    if source.flow_path:
        read_flow(source, frames.shape, manifest.flow.rate, manifest.flow.clip)
        return frames, "stored"
    if len(frames) > 1:
        compute_flow(frames, "dis")
    return frames, "dis"


# --- telling -------------------------------------------------------------------------------------
def format_report(report: DataReport, *, listed: int = LISTED) -> str:
    """The report as text, with at most ``listed`` names per kind of problem."""
    manifest = report.manifest
    lines = [f"{manifest.benchmark}: {manifest.title}", f"root: {report.root}", ""]
    for domain in manifest.domains:
        lines += _domain_lines(report, domain)
        lines += _problem_lines(report.problems[domain], listed)
    if report.samples:
        lines += ["", "decoded:", *(f"  {sample}" for sample in report.samples)]
    lines += ["", _cost(report)]
    lines += [f"not verified: {note}" for note in manifest.unverified]
    if report.ok:
        lines += ["", "everything is there"]
    else:
        lines += ["", f"{len(report.blocking) + report.mismatches} problem(s) found"]
    return "\n".join(lines)


def _domain_lines(report: DataReport, domain: str) -> list[str]:
    part = report.table[report.table["domain"] == domain]
    dataset, groups = report.manifest.domains[domain].dataset, part["group"].nunique()
    lines = [f"{domain} ({dataset}): {len(part)} usable videos, {groups} recording groups"]
    off = []
    for row in report.counts:
        if row.domain != domain:
            continue
        if not row.class_name:
            told = {
                "ok": " (as expected)",
                "mismatch": f" (EXPECTED {row.expected})",
                "differs": f" (stated, unverified: {row.expected})",
                "not stated": "",
            }
            lines.append(f"  {row.name}: {row.found}{told[row.status]}")
        elif row.status != "ok":
            off.append(f"{row.name} {row.found}/{row.expected}")
    if off and len(part):
        lines.append(f"  classes that differ: {', '.join(off)}")
    return lines


def _problem_lines(problems: list[Problem], listed: int) -> list[str]:
    lines = []
    for kind, count in Counter(p.kind for p in problems).items():
        for problem in [p for p in problems if p.kind == kind][:listed]:
            sign = {"warning": "-", "note": "note,"}.get(problem.level, "!")
            lines.append(f"  {sign} {problem}")
        if count > listed:
            lines.append(f"  ! {kind}: {count - listed} more (--all names them)")
    return lines


def _cost(report: DataReport) -> str:
    if report.frames == 0:
        return "no usable video, so no cache can be built"
    side, size = report.size, report.frames * report.size**2 * CACHED_BYTES
    text = f"a cache at {side}x{side} pixels needs {_bytes(size)} for {report.frames} frames"
    if report.seconds_per_frame is not None:
        duration = _duration(report.frames * report.seconds_per_frame)
        text += f"; about {duration} on one core with stored or DIS flow"
    if len(report.manifest.domains) > 2:
        text += ". That is for all domains at once; each pair that is run has a cache of its own"
    return text


def _bytes(count: float) -> str:
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
