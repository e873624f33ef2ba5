"""`nbkit check-data`: what of a benchmark is there, what is missing or broken, and what a cache
will cost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nbkit.benchmarks.layouts.common import Problem
from nbkit.benchmarks.manifest import Manifest, load_manifest
from nbkit.benchmarks.resolve import CountRow, check_counts, scan
from nbkit.config.profiles import PROFILES
from nbkit.data.boxes import clean_boxes, tubes_of
from nbkit.data.flow import compute_flow
from nbkit.data.sources import count_frames, read_flow, read_frames, source_of
from nbkit.errors import NbkitError

BYTES_PER_PIXEL = 5  # three of RGB, two of flow
SAMPLE_FRAMES = 9  # frames of one video per domain that are decoded and timed
LISTED = 10


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
        return int(self.table["frames"].sum()) if len(self.table) else 0

    @property
    def cache_bytes(self) -> int:
        """Disk space of a cache of squares of side ``size`` pixels."""
        return self.frames * self.size**2 * BYTES_PER_PIXEL

    @property
    def ok(self) -> bool:
        """Nothing missing, nothing broken, no verified count off."""
        return not self.blocking and not any(r.status == "mismatch" for r in self.counts)

    @property
    def blocking(self) -> list[Problem]:
        """The problems that keep a run from starting: all but the faults of the published data."""
        return [p for items in self.problems.values() for p in items if not p.expected]


def check_data(
    benchmark: str,
    root: str | Path,
    *,
    size: int = PROFILES["paper"]["cache_size"],
    split_seed: int = 0,
    quick: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Look at a benchmark's data without changing anything.

    Args:
        benchmark: name or manifest path.
        root: folder that holds the datasets.
        size: side of the cached pictures in pixels, for the estimate.
        split_seed: seed of grouped splits.
        quick: look at file sizes only, instead of walking through every video's packets.
        watch: called with (done, total) while the files are looked at.

    Raises:
        NbkitError: no such benchmark or root folder. What is wrong inside the root is reported,
            not raised.
    """
    manifest = load_manifest(benchmark)
    if not Path(root).is_dir():
        raise NbkitError(
            f"{root}: no such folder; give the folder that holds the datasets with --root"
        )
    if size < 1:
        raise NbkitError(f"size={size}: the side of the cached pictures must be at least 1 pixel")
    table, problems = scan(manifest, root, split_seed=split_seed)
    frames, broken = _look_at_files(manifest, table, quick, watch)
    for position, problem in broken.items():
        problems[table["domain"].iloc[position]].append(problem)
    table = table.assign(frames=frames)
    table = table.drop(index=list(broken)).reset_index(drop=True)
    report = DataReport(
        manifest,
        str(root),
        size,
        table,
        problems,
        check_counts(manifest, table, allow_partial=True),
    )
    _decode_samples(report)
    return report


def _look_at_files(
    manifest: Manifest, table: pd.DataFrame, quick: bool, watch
) -> tuple[list, dict[int, Problem]]:
    frames, broken = [], {}
    for i, row in enumerate(table.to_dict("records")):
        try:
            frames.append(_frames_of(row, manifest, quick))
        except NbkitError as error:
            frames.append(0)
            broken[i] = Problem("broken", row["video"], str(error))
        if watch:
            watch(i + 1, len(table))
    return frames, broken


def _frames_of(row: dict, manifest: Manifest, quick: bool) -> int:
    source = source_of(row)
    if not quick or source.is_folder:
        return count_frames(source)
    if Path(source.path).stat().st_size == 0:
        raise NbkitError(f"{source.path}: the file is empty (0 bytes). Fetch or extract it again.")
    return int(manifest.mean_frames)


def _decode_samples(report: DataReport) -> None:
    """Decode the start of one video per domain, compute its flow, and take the processor time of
    both.
    """
    times = []
    for domain in report.manifest.domains:
        part = report.table[report.table["domain"] == domain]
        if part.empty:
            continue
        row = part.iloc[0].to_dict()
        try:
            start = time.process_time()  # not the clock: other programs of the machine do not count
            frames, flow_kind = _sample(row, report.manifest)
            times.append((time.process_time() - start) / len(frames))
            boxes = _sample_boxes(row, *frames.shape[1:3])
        except NbkitError as error:
            report.problems[domain].append(Problem("broken", row["video"], str(error)))
            continue
        n, height, width = frames.shape[:3]
        report.samples.append(
            f"{row['video']}: {row['frames']} frames of {width}x{height}, first {n} decoded, {flow_kind} flow, "
            f"mean brightness {frames.mean():.0f} of 255{boxes}"
        )
    report.seconds_per_frame = sum(times) / len(times) if times else None


def _sample(row: dict, manifest: Manifest):
    """The first frames of a video, and which flow was read or computed for them."""
    source = source_of(row)
    frames = read_frames(source, SAMPLE_FRAMES)
    if source.flow_path:
        read_flow(source, frames.shape, manifest.flow.rate, manifest.flow.clip)
        return frames, "stored"
    if len(frames) > 1:
        compute_flow(frames, "dis")
    return frames, "dis"


def _sample_boxes(row: dict, height: int, width: int) -> str:
    """Read and check the boxes of one video; '' for a dataset without boxes."""
    if not row.get("boxes"):
        return ""
    tubes = tubes_of(row).tubes
    for tube in tubes:
        clean_boxes(tube.boxes, height, width, row["video"])
    return (
        f", {sum(len(t.boxes) for t in tubes)} boxes in {len(tubes)} tube{'s' * (len(tubes) != 1)}"
    )


def format_report(report: DataReport, *, listed: int = LISTED) -> str:
    """The report as text, for the terminal and the notebook; at most ``listed`` names per kind of
    problem.
    """
    m = report.manifest
    lines = [f"{m.benchmark}: {m.title}", f"root: {report.root}", ""]
    for domain, spec in m.domains.items():
        part = report.table[report.table["domain"] == domain]
        groups = part["group"].nunique()
        lines.append(
            f"{domain} ({spec.dataset}): {len(part)} usable videos, {groups} recording groups"
        )
        counts = [r for r in report.counts if r.domain == domain]
        lines += [f"  {_count_line(r)}" for r in counts if not r.class_name]
        off = [
            f"{r.split} {r.class_name} {r.found}/{r.expected}"
            for r in counts
            if r.class_name and r.status != "ok"
        ]
        lines += [f"  classes that differ: {', '.join(off)}"] if off and len(part) else []
        lines += _problem_lines(report.problems[domain], listed)
    if report.samples:
        lines += ["", "decoded:", *(f"  {s}" for s in report.samples)]
    lines += ["", _cost(report)]
    lines += [f"not verified: {note}" for note in m.unverified]
    total = len(report.blocking) + sum(r.status == "mismatch" for r in report.counts)
    lines += ["", "everything is there" if report.ok else f"{total} problem(s) found"]
    return "\n".join(lines)


def _problem_lines(problems: list[Problem], listed: int) -> list[str]:
    lines, seen = [], Counter()
    kinds = Counter(p.kind for p in problems)
    for problem in sorted(problems, key=lambda p: list(kinds).index(p.kind)):
        seen[problem.kind] += 1
        if seen[problem.kind] <= listed:
            lines.append(
                f"  {'-' if problem.expected else '!'} {problem}"
                + (": left out" if problem.expected else "")
            )
        elif seen[problem.kind] == kinds[problem.kind]:
            lines.append(
                f"  ! {problem.kind}: {kinds[problem.kind] - listed} more (--all names them)"
            )
    return lines


def _count_line(row: CountRow) -> str:
    name = f"{row.split} {row.class_name}".strip()
    if row.expected is None:
        return f"{name}: {row.found}"
    note = {"ok": "as expected", "mismatch": f"EXPECTED {row.expected}"}
    return f"{name}: {row.found} ({note.get(row.status, f'stated, unverified: {row.expected}')})"


def _cost(report: DataReport) -> str:
    if report.frames == 0:
        return "no usable video, so no cache can be built"
    side = f"{report.size}x{report.size}"
    text = f"a cache at {side} pixels needs {_bytes(report.cache_bytes)} for {report.frames} frames"
    if report.seconds_per_frame is not None:
        text += f"; about {_duration(report.frames * report.seconds_per_frame)} on one core with stored or DIS flow"
    if len(report.manifest.domains) > 2:
        text += ". That is for all domains at once; each pair of them that is run has a cache of its own"
    return text


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
