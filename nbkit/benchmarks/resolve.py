"""Manifest + folder -> table: one row a video (EPIC-Kitchens: a segment), for all domains of the
benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nbkit.benchmarks.grouped_split import grouped_test_mask
from nbkit.benchmarks.layouts import LAYOUTS
from nbkit.benchmarks.layouts.common import Listing, attach_flow
from nbkit.benchmarks.manifest import DomainSpec, Manifest
from nbkit.errors import NbkitError

COLUMNS = ["video", "path", "class_name", "label", "domain", "split", "group"]


@dataclass(frozen=True)
class CountRow:
    """One comparison; ``class_name`` '' means all classes, ``split`` 'all' every split;
    ``expected`` may be None.
    """

    domain: str
    split: str
    class_name: str
    expected: int | None
    found: int
    verified: bool

    @property
    def status(self) -> str:
        """'ok', 'mismatch' (against a verified number), 'differs' (unverified number) or 'not
        stated'.
        """
        if self.expected is None:
            return "not stated"
        if self.expected == self.found:
            return "ok"
        return "mismatch" if self.verified else "differs"


def resolve(
    manifest: Manifest,
    root: str | Path | Mapping[str, str | Path],
    *,
    split_seed: int = 0,
    allow_partial: bool = False,
    domains: Sequence[str] | None = None,
) -> pd.DataFrame:
    """List every video of a benchmark with its label, domain, split and recording group.

    Args:
        manifest: from :func:`nbkit.benchmarks.manifest.load_manifest`.
        root: the folder that holds the datasets, or one folder per domain name.
        split_seed: draws the grouped splits (rule ``grouped``); official splits ignore it.
        allow_partial: leave out what is missing and accept other counts instead of raising; see
            :func:`shortfall`.
        domains: the ones that are needed (all when None); what others lack is no matter then,
            unless splits are drawn
            over all domains together (rule ``grouped``).

    Returns:
        A table with columns video (unique id), path (absolute), class_name, label (0..C-1), domain,
        split ('train' | 'val' | 'test') and group, sorted by video; some layouts add ``boxes`` (a
        path), or ``start_frame``, ``stop_frame``, ``flow_path``.

    Raises:
        NbkitError: nothing found, files or folders missing (all are named), or counts that differ.
    """
    table, problems = scan(manifest, root, split_seed=split_seed)
    if domains is not None:
        if not any(s.split.rule == "grouped" for s in manifest.domains.values()):
            problems = {d: problems[d] for d in domains}
        manifest = manifest.model_copy(
            update={"domains": {d: manifest.domains[d] for d in domains}}
        )
        table = table[table["domain"].isin(domains)].reset_index(drop=True)
    flat = [
        f"[{domain}] {p}" for domain, items in problems.items() for p in items if not p.expected
    ]
    if table.empty:
        raise NbkitError(f"{manifest.benchmark}: no videos found.\n" + "\n".join(flat[:20]))
    if flat and not allow_partial:
        more = f"\n... and {len(flat) - 20} more" if len(flat) > 20 else ""
        raise NbkitError(
            f"{manifest.benchmark}: {len(flat)} problem(s); repair them, or pass allow_partial=True to go on with "
            "what is there.\n" + "\n".join(flat[:20]) + more
        )
    check_counts(manifest, table, allow_partial=allow_partial)
    return table


def scan(manifest: Manifest, root, *, split_seed: int = 0) -> tuple[pd.DataFrame, dict[str, list]]:
    """Like :func:`resolve`, but never raises for missing data: (table, problems per domain)."""
    frames, problems = [], {}
    for name in manifest.domains:
        listing = _list_domain(manifest, name, root)
        problems[name] = listing.problems
        if listing.rows:
            frame = pd.DataFrame(listing.rows).assign(domain=name)
            if manifest.domains[name].split.rule == "all_train":
                frame["split"] = "train"
            frame["video"] = name + "/" + frame["video"]
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=COLUMNS), problems
    table = pd.concat(frames, ignore_index=True)
    table["label"] = (
        table["class_name"].map({c: i for i, c in enumerate(manifest.classes)}).astype("int64")
    )
    table = table.sort_values("video", kind="stable").reset_index(drop=True)
    if table["video"].duplicated().any():
        twice = table.loc[table["video"].duplicated(), "video"].tolist()
        raise NbkitError(
            f"{manifest.benchmark}: listed twice: {', '.join(twice[:5])}; remove the second entry"
        )
    _apply_grouped(manifest, table, split_seed)
    rest = [c for c in table.columns if c not in COLUMNS]
    for column in rest:  # domains of different layouts need not have the same extra columns
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].fillna("")
    return table[COLUMNS + rest], problems


def _list_domain(manifest: Manifest, name: str, root) -> Listing:
    if isinstance(root, Mapping):
        if name not in root:
            raise NbkitError(f"{manifest.benchmark}: root names no folder for the domain '{name}'")
        root = root[name]
    root = Path(root).expanduser()
    spec = manifest.domains[name]
    if not root.is_dir():
        listing = Listing()
        listing.problem("folder missing", root, "give the folder that holds the datasets")
        return listing
    try:
        listing = LAYOUTS[spec.layout].list_videos(spec, root)
        attach_flow(spec, root, listing)
        _name_empty_classes(spec, listing)
        return listing
    except (
        NbkitError
    ) as error:  # a broken list or annotation file: the rest of the benchmark can still be checked
        listing = Listing()
        listing.problem("unreadable", error)
        return listing


def _name_empty_classes(spec: DomainSpec, listing: Listing) -> None:
    """A class without a video is a problem, unless one that is named already explains it."""
    present, named = {row["class_name"] for row in listing.rows}, [p.name for p in listing.problems]
    if not listing.rows and named:
        return
    for common, members in spec.classes.items():
        if common not in present and not any(
            member in name for member in members for name in named
        ):
            listing.problem(
                "no videos",
                ", ".join(members),
                f"the class '{common}' is empty; was the archive extracted?",
            )


def _apply_grouped(manifest: Manifest, table: pd.DataFrame, seed: int) -> None:
    """Draw train/test for all domains with the rule ``grouped`` together.

    A group is on the same side in every domain. A film that gives clips to both domains is
    therefore never in the training part of one and the test part of the other, in either direction,
    and no clip has to be dropped later.
    """
    specs = {n: s.split for n, s in manifest.domains.items() if s.split.rule == "grouped"}
    rows = table.index[table["domain"].isin(specs)]
    if rows.empty:
        return
    fractions = {s.test_fraction for s in specs.values()}
    if len(fractions) > 1:
        raise NbkitError(
            f"{manifest.benchmark}: grouped domains must share one test_fraction, found {fractions}"
        )
    part = table.loc[rows]
    strata = (part["domain"] + "/" + part["class_name"]).to_numpy()
    test = grouped_test_mask(part["group"].to_numpy(), strata, fractions.pop(), seed)
    table.loc[rows, "split"] = ["test" if t else "train" for t in test]


def check_counts(
    manifest: Manifest, table: pd.DataFrame, *, allow_partial: bool = False
) -> list[CountRow]:
    """Compare a resolved table with the manifest's expected counts.

    Returns:
        One row per domain and split, and per class where the manifest states per-class numbers.

    Raises:
        NbkitError: a verified number differs and ``allow_partial`` is False.
    """
    rows = [
        r
        for name in manifest.domains
        for r in _domain_counts(manifest, name, table[table["domain"] == name])
    ]
    bad = [r for r in rows if r.status == "mismatch"]
    if bad and not allow_partial:
        text = "; ".join(
            f"{r.domain} {r.split} {r.class_name}: {r.found} instead of {r.expected}"
            for r in bad[:12]
        )
        raise NbkitError(
            f"{manifest.benchmark}: counts differ from the published lists ({text}): videos are missing"
        )
    return rows


def shortfall(manifest: Manifest, table: pd.DataFrame, domains: tuple[str, ...]) -> list[str]:
    """What a partial copy lacks: 'ucf train: 4 of 482' for every stated count of `domains` that is
    not reached.
    """
    rows = [
        r
        for r in check_counts(manifest, table, allow_partial=True)
        if r.domain in domains and not r.class_name
    ]
    return [
        f"{r.domain} {r.split}: {r.found} of {r.expected}"
        for r in rows
        if r.expected and r.found < r.expected
    ]


def _domain_counts(manifest: Manifest, name: str, part: pd.DataFrame) -> list[CountRow]:
    expected = manifest.domains[name].expected_now()
    verified = expected.verified if expected else False
    counts = dict(expected.counts) if expected else {}
    splits = sorted({*counts, *part["split"].unique()})
    rows = []
    for split in splits:
        here = part if split == "all" else part[part["split"] == split]
        rows.append(CountRow(name, split, "", counts.get(split), len(here), verified))
    for split, table in (expected.per_class if expected else {}).items():
        here = part if split == "all" else part[part["split"] == split]
        found = here["class_name"].value_counts()
        rows += [
            CountRow(name, split, c, n, int(found.get(c, 0)), verified) for c, n in table.items()
        ]
    return rows
