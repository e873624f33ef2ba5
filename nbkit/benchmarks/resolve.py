"""Manifest and folder -> table of the videos (EPIC-Kitchens: segments) of all domains."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nbkit.benchmarks.layouts import LAYOUTS
from nbkit.benchmarks.listing import Listing, Problem
from nbkit.benchmarks.manifest import DomainSpec, ExpectedCounts, Manifest
from nbkit.errors import NbkitError

RESOLVED_COLUMNS = ["video", "path", "class_name", "label", "domain", "split", "group"]
SHOWN = 20  # problems in one error message
# a class without a test (or training) clip is worse than any imbalance
_EMPTY_PENALTY = 1e3
# how far a seed may prefer one group over a slightly better balanced one
_TASTE = 0.1


# --- the table -----------------------------------------------------------------------------------
def resolve(
    manifest: Manifest,
    root: str | Path,
    *,
    split_seed: int = 0,
    allow_partial: bool = False,
    domains: Sequence[str] | None = None,
) -> pd.DataFrame:
    """List every video of a benchmark with its label, domain, split and recording group.

    Args:
        root: the folder that holds the datasets.
        split_seed: draws the splits of the rule ``grouped``; official splits ignore it.
        allow_partial: leave out what is missing and accept other counts instead of raising; see
            :func:`shortfall`.
        domains: the ones that are needed (all when None). What the others lack does not matter,
            unless splits are drawn over all domains together (rule ``grouped``).

    Returns:
        A table with columns video (unique id), path (absolute), class_name, label (0..C-1), domain,
        split ('train' | 'val' | 'test') and group, sorted by video; some layouts add ``boxes`` (a
        path), or ``start_frame``, ``stop_frame``, ``flow_path``.

    Raises:
        NbkitError: nothing found, files or folders missing (all are named), or counts that differ.
    """
    table, problems = scan(manifest, root, split_seed=split_seed)
    if domains is not None:
        grouped = any(s.split.rule == "grouped" for s in manifest.domains.values())
        if not grouped:
            problems = {name: problems[name] for name in domains}
        needed = {name: manifest.domains[name] for name in domains}
        manifest = manifest.model_copy(update={"domains": needed})
        table = table[table["domain"].isin(domains)].reset_index(drop=True)
    _refuse_problems(manifest, table, problems, allow_partial)
    check_counts(manifest, table, allow_partial=allow_partial)
    return table


def _refuse_problems(
    manifest: Manifest, table: pd.DataFrame, problems: dict[str, list[Problem]], allow_partial: bool
) -> None:
    found = [(domain, item) for domain, items in problems.items() for item in items]
    told = _shown([pair for pair in found if pair[1].level == "warning"])
    if told:
        warnings.warn(f"{manifest.benchmark}:\n{told}", stacklevel=3)
    stopping = [pair for pair in found if pair[1].level in ("fatal", "blocking")]
    fatal = [pair for pair in found if pair[1].level == "fatal"]
    if table.empty:
        raise NbkitError(f"{manifest.benchmark}: no videos found.\n{_shown(stopping)}")
    if fatal:
        raise NbkitError(f"{manifest.benchmark}: no result would mean anything.\n{_shown(fatal)}")
    if stopping and not allow_partial:
        raise NbkitError(
            f"{manifest.benchmark}: {len(stopping)} problem(s); repair them, or pass "
            f"allow_partial=True to go on with what is there.\n{_shown(stopping)}"
        )


def _shown(found: list[tuple[str, Problem]]) -> str:
    lines = [f"[{domain}] {item}" for domain, item in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"... and {len(found) - SHOWN} more")
    return "\n".join(lines)


def scan(
    manifest: Manifest, root: str | Path, *, split_seed: int = 0
) -> tuple[pd.DataFrame, dict[str, list[Problem]]]:
    """Like :func:`resolve`, but never raises for missing data: (table, problems per domain)."""
    frames, problems = [], {}
    for name, spec in manifest.domains.items():
        listing = _list_domain(spec, Path(root).expanduser())
        problems[name] = listing.problems
        if listing.rows:
            frame = pd.DataFrame(listing.rows).assign(domain=name)
            if spec.split.rule == "all_train":
                frame["split"] = "train"
            frame["video"] = name + "/" + frame["video"]
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=RESOLVED_COLUMNS), problems
    table = pd.concat(frames, ignore_index=True)
    table["label"] = table["class_name"].map(manifest.classes.index).astype("int64")
    table = table.sort_values("video", kind="stable").reset_index(drop=True)
    twice = table.loc[table["video"].duplicated(), "video"].tolist()
    if twice:
        raise NbkitError(
            f"{manifest.benchmark}: listed twice: {', '.join(twice[:5])}; remove the second entry"
        )
    _apply_grouped(manifest, table, split_seed)
    _name_shared_files(table, problems)
    _name_gaps(manifest, table, problems)
    rest = [c for c in table.columns if c not in RESOLVED_COLUMNS]
    for column in rest:
        # domains of different layouts need not have the same extra columns
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].fillna("")
    return table[RESOLVED_COLUMNS + rest], problems


def _list_domain(spec: DomainSpec, root: Path) -> Listing:
    if not root.is_dir():
        advice = "give the folder that holds the datasets"
        return Listing(spec, root, problems=[Problem("folder missing", str(root), advice)])
    listing = Listing(spec, root)
    try:
        LAYOUTS[spec.layout](listing)
        listing.attach_flow()
    except (NbkitError, OSError) as error:
        # a broken list or annotation file: the rest of the benchmark can still be checked
        return Listing(spec, root, problems=[Problem("unreadable", str(error))])
    _name_empty_classes(spec, listing)
    return listing


def _name_empty_classes(spec: DomainSpec, listing: Listing) -> None:
    """A class without a video is a problem, unless one that is named already explains it."""
    named = [problem.name for problem in listing.problems]
    if named and not listing.rows:
        return
    present = {row["class_name"] for row in listing.rows}
    for common, members in spec.classes.items():
        explained = any(member in name for member in members for name in named)
        if common not in present and not explained:
            advice = f"the class '{common}' is empty; was the archive extracted?"
            listing.problem("no videos", ", ".join(members), advice)


def _apply_grouped(manifest: Manifest, table: pd.DataFrame, seed: int) -> None:
    """Draw train/test for all domains with the rule ``grouped`` together.

    So a film that gives clips to both is never in the training part of one and the test part of the
    other.
    """
    splits = {name: spec.split for name, spec in manifest.domains.items()}
    grouped = {name: split for name, split in splits.items() if split.rule == "grouped"}
    part = table[table["domain"].isin(grouped)]
    if part.empty:
        return
    fractions = {split.test_fraction for split in grouped.values()}
    if len(fractions) > 1:
        raise NbkitError(
            f"{manifest.benchmark}: grouped domains must share one test_fraction, found {fractions}"
        )
    strata = (part["domain"] + "/" + part["class_name"]).to_numpy()
    test = grouped_test_mask(part["group"].to_numpy(), strata, fractions.pop(), seed)
    table.loc[part.index, "split"] = "train"
    table.loc[part.index[test], "split"] = "test"


def _name_shared_files(table: pd.DataFrame, problems: dict[str, list[Problem]]) -> None:
    """One file under two names: in both domains, or on both sides of a split, all is in vain."""
    owners: dict[tuple, str] = {}
    shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in table.to_dict("records"):
        try:
            status = os.stat(row["path"])
        except OSError:
            continue  # reading it will name it
        file = (status.st_dev, status.st_ino, row.get("start_frame"), row.get("stop_frame"))
        first = owners.setdefault(file, row["video"])
        if first != row["video"]:
            pair = first.partition("/")[0], row["domain"]
            shared.setdefault(pair, []).append((first, row["video"]))
    for (first, second), pairs in shared.items():
        name = f"{len(pairs)} of {first} and {second}, as {pairs[0][0]} and {pairs[0][1]}"
        advice = "`folder` and the root must lead each domain to its own files; remove second links"
        problems[second].append(Problem("the same files", name, advice, "fatal"))


def _name_gaps(manifest: Manifest, table: pd.DataFrame, problems: dict[str, list[Problem]]) -> None:
    """Parts that a run needs, or that a grouped split should have, and that got no video."""
    sources = {source for source, _ in manifest.directions}
    targets = {target for _, target in manifest.directions}
    for domain, spec in manifest.domains.items():
        part = table[table["domain"] == domain]
        grouped = spec.split.rule == "grouped"
        each = needed = {"train"}
        if grouped:
            each = {"train", "test"}
        if grouped or domain in targets:
            needed = {"train", "test"}
        if len(part) and not needed <= set(part["split"]):
            lacking = " or ".join(sorted(needed - set(part["split"])))
            problems[domain].append(_gap(lacking, f"all {len(part)} videos", part, grouped))
            continue
        for name, videos in part.groupby("class_name"):
            lacking = sorted(each - set(videos["split"]))
            if lacking and (grouped or domain in sources):
                what = f"class {name} ({len(videos)} videos)"
                problems[domain].append(_gap(lacking[0], what, videos, grouped))


def _gap(split: str, what: str, videos: pd.DataFrame, grouped: bool) -> Problem:
    groups, advice = sorted(videos["group"].unique()), ""
    if grouped:
        shown = ", ".join(groups[:3])
        advice = (
            f"of {len(groups)} recording group(s): {shown}; a group is never divided. Where the "
            "names do not say the recording, set the domain's option `groups` (docs/MANIFESTS.md)"
        )
    return Problem(f"no {split} videos", what, advice, "blocking" if grouped else "gap")


# --- grouped splits: no recording group is on both sides, and classes stay balanced --------------
def grouped_test_mask(
    groups: np.ndarray, strata: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Choose the groups that form the test part.

    The cost of a choice is the sum over strata of (test clips - fraction * clips)^2 / clips, plus a
    large penalty for a stratum with an empty side, plus a small random preference of the seed for
    every group (else data with few groups would have one best split whatever the seed). A random
    start is improved by moving and swapping groups until nothing helps, so that different seeds
    give different, comparably balanced splits.

    Args:
        groups: (N,) group name of every clip.
        strata: (N,) stratum of every clip (domain and class).
        fraction: wanted share of test clips, in (0, 1).
        seed: non-negative integer.

    Returns:
        (N,) bool, True for test clips.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)  # (G,), (N,)
    _, stratum_of = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    table = np.zeros((len(names), stratum_of.max() + 1))  # (G, S) clips
    np.add.at(table, (group_of, stratum_of), 1)
    rng = np.random.default_rng([seed, len(names)])
    test = rng.random(len(names)) < fraction
    taste = _TASTE * rng.uniform(-1, 1, len(names)) * (table**2 / table.sum(0)).sum(1)  # (G,)
    total = table.sum(0)  # (S,)
    counts, liked = table[test].sum(0), taste[test].sum()
    best = _cost(counts, total, fraction) + liked
    improved = True
    while improved:
        improved = False
        for g in rng.permutation(len(table)):
            sign = -1 if test[g] else 1
            partners = np.flatnonzero(test != test[g])
            # (1+P, S): the group alone, or in exchange for a partner
            steps = np.vstack([np.zeros(len(total)), -sign * table[partners]])
            options = counts + sign * table[g] + steps
            exchanged = np.concatenate([[0.0], taste[partners]])
            likes = liked + sign * taste[g] - sign * exchanged  # (1+P,)
            costs = _cost(options, total, fraction) + likes
            k = int(costs.argmin())
            if costs[k] < best - 1e-9:
                best, counts, liked, improved = costs[k], options[k], likes[k], True
                changed = [g] if k == 0 else [g, partners[k - 1]]
                test[changed] = ~test[changed]
    return test[group_of]


def _cost(counts: np.ndarray, total: np.ndarray, fraction: float) -> np.ndarray:
    """Cost of test counts (..., S) given all clips (S,)."""
    off = (counts - fraction * total) ** 2 / total
    empty = (counts == 0) | (counts == total)
    return (off + _EMPTY_PENALTY * empty).sum(-1)


# --- counts --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CountRow:
    """One comparison with the manifest.

    ``class_name`` '' means all classes, ``split`` 'all' every split; ``expected`` may be None.
    """

    domain: str
    split: str
    class_name: str
    expected: int | None
    found: int
    verified: bool

    @property
    def name(self) -> str:
        """What was counted: split and class."""
        return f"{self.split} {self.class_name}".strip()

    @property
    def status(self) -> str:
        """'ok', 'mismatch' (verified number), 'differs' (unverified number) or 'not stated'."""
        if self.expected is None:
            return "not stated"
        if self.expected == self.found:
            return "ok"
        return "mismatch" if self.verified else "differs"


def check_counts(
    manifest: Manifest, table: pd.DataFrame, *, allow_partial: bool = False
) -> list[CountRow]:
    """Compare a resolved table with the manifest's expected counts.

    Returns:
        One row per domain and split, and per class where the manifest states per-class numbers.

    Raises:
        NbkitError: a verified number differs and ``allow_partial`` is False.
    """
    rows = []
    for name, spec in manifest.domains.items():
        expected = spec.expected_now() or ExpectedCounts(verified=False)
        rows += _domain_counts(name, expected, table[table["domain"] == name])
    bad = [row for row in rows if row.status == "mismatch"]
    if bad and not allow_partial:
        texts = [f"{r.domain} {r.name}: {r.found} instead of {r.expected}" for r in bad[:12]]
        raise NbkitError(
            f"{manifest.benchmark}: counts differ from the published lists ({'; '.join(texts)}): "
            "videos are missing"
        )
    return rows


def shortfall(manifest: Manifest, table: pd.DataFrame, domains: Sequence[str]) -> list[str]:
    """What a partial copy of `domains` lacks, e.g. 'ucf train: 4 of 482' per count not reached."""
    lacking = []
    for row in check_counts(manifest, table, allow_partial=True):
        wanted = row.domain in domains and not row.class_name
        if wanted and row.expected and row.found < row.expected:
            lacking.append(f"{row.domain} {row.split}: {row.found} of {row.expected}")
    return lacking


def _domain_counts(name: str, expected: ExpectedCounts, part: pd.DataFrame) -> list[CountRow]:
    rows, stated, verified = [], expected.counts, expected.verified
    for split in sorted({*stated, *part["split"].unique()}):
        found = len(_of_split(part, split))
        rows.append(CountRow(name, split, "", stated.get(split), found, verified))
    for split, numbers in expected.per_class.items():
        sizes = _of_split(part, split)["class_name"].value_counts()
        for class_name, number in numbers.items():
            found = int(sizes.get(class_name, 0))
            rows.append(CountRow(name, split, class_name, number, found, verified))
    return rows


def _of_split(part: pd.DataFrame, split: str) -> pd.DataFrame:
    return part if split == "all" else part[part["split"] == split]
