"""The schema of ``data_manifests/*.yaml``: a benchmark is described, never shipped.

A manifest names the classes both domains share, how each dataset's own classes map onto them, which
official split is used and how many videos every split must hold. Unknown keys are refused.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nbkit.errors import NbkitError

MANIFEST_DIR = Path(__file__).resolve().parents[2] / "data_manifests"


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitSpec(Strict):
    """Which videos are training and which are test videos."""

    rule: Literal["official", "grouped", "all_train"] = Field(
        description="official: the dataset's published lists. grouped: whole recording groups are drawn into "
        "train or test by the split seed, jointly for all grouped domains of the benchmark. "
        "all_train: every video is a training video (a source that is never tested)."
    )
    number: int = Field(
        1, ge=1, description="Number of the official split (1-based). Unused by the other rules."
    )
    test_fraction: float = Field(
        1 / 3,
        gt=0,
        lt=1,
        description="grouped only: wanted share of the clips in the test part, in (0, 1).",
    )


class ExpectedCounts(Strict):
    """How many videos (EPIC: segments) one split number must give."""

    split_number: int = Field(1, ge=1, description="The split number these counts belong to.")
    verified: bool = Field(
        True,
        description="True: counted from the published lists, a difference is an error. False: only reported.",
    )
    source: str = Field("", description="Where the numbers come from.")
    counts: dict[str, int] = Field(
        default_factory=dict,
        description="Videos per split (train, test, val) or 'all' for every split together.",
    )
    per_class: dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description="Videos per split and common class, same split names as counts.",
    )


class DomainSpec(Strict):
    """One side of the benchmark: a dataset, or a part of one."""

    dataset: str = Field(description="Name of the dataset, as a reader knows it.")
    layout: str = Field(
        description="The official folder layout: a module name in nbkit/data/layouts."
    )
    folder: list[str] = Field(
        description="Folder names tried in this order below the benchmark root; '.' is the root itself.",
        min_length=1,
    )
    classes: dict[str, list[str]] = Field(
        description="Common class -> the dataset's own class names (folder names, or class ids as text)."
    )
    split: SplitSpec = Field(description="The split rule.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of the layout; checked against the layout's Options model.",
    )
    expected: list[ExpectedCounts] = Field(
        default_factory=list, description="Expected counts, one entry per split number."
    )
    licence: str = Field(description="Terms under which the dataset may be used.")
    homepage: str = Field(description="Where to read about and get the dataset.")
    citation: str = Field(description="The paper to cite for the dataset.")

    def expected_now(self) -> ExpectedCounts | None:
        """Expected counts of the current split number, or None when the manifest states none."""
        return next((e for e in self.expected if e.split_number == self.split.number), None)


class FlowSpec(Strict):
    """Which optical flow the benchmark is meant to be used with."""

    kind: Literal["dis", "tvl1", "raft", "precomputed"] = Field(
        description="The flow of the published protocol, for the reader: a run takes its own parameter `FLOW`. "
        "'precomputed': JPEG folders that come with the dataset."
    )
    rate: float = Field(
        1.0, gt=0, le=1, description="Flow frames per RGB frame; EPIC-Kitchens has 0.5."
    )
    clip: float = Field(
        20.0,
        gt=0,
        description="Pixels that map to +-1; larger displacements are clipped (TSN: 20).",
    )


class Manifest(Strict):
    """One benchmark: two or more domains over a common list of classes."""

    benchmark: str = Field(description="Short name; equals the file name without .yaml.")
    title: str = Field(description="One line for tables and plots.")
    task: Literal["recognition", "localization"] = Field(description="What is predicted.")
    classes: list[str] = Field(
        min_length=2, description="Common classes; the position is the label (0-based)."
    )
    domains: dict[str, DomainSpec] = Field(
        min_length=2, description="Domain name -> its description."
    )
    directions: list[tuple[str, str]] = Field(
        min_length=1, description="(source, target) pairs of the tables."
    )
    fps: float = Field(gt=0, description="Nominal frames per second of the videos.")
    frame_size: tuple[int, int] = Field(description="Nominal (height, width) in pixels.")
    mean_frames: float = Field(
        gt=0, description="Typical frames per video (segment); used to estimate cache sizes."
    )
    flow: FlowSpec = Field(description="Optical flow convention.")
    citation: str = Field(description="Where the benchmark (the pairing and mapping) comes from.")
    homepage: str = Field(description="Page of the benchmark or of its main dataset.")
    licence: str = Field(description="Summary of the terms; the domains have the details.")
    unverified: list[str] = Field(
        default_factory=list,
        description="Statements nobody has checked against the original files.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a class is listed twice")
        for name, spec in self.domains.items():
            if set(spec.classes) != set(self.classes):
                wrong = sorted(set(spec.classes) ^ set(self.classes))
                raise ValueError(
                    f"domains.{name}.classes: must map exactly the common classes; differs in {wrong}"
                )
            own = [c for members in spec.classes.values() for c in members]
            if len(set(own)) != len(own) or not all(spec.classes.values()):
                raise ValueError(
                    f"domains.{name}.classes: a dataset class is used twice, or a list is empty"
                )
            for expected in spec.expected:
                _check_expected(name, expected, self.classes)
        for pair in self.directions:
            if not set(pair) <= set(self.domains) or pair[0] == pair[1]:
                raise ValueError(
                    f"directions: {list(pair)} must be two different domains of {sorted(self.domains)}"
                )
        return self

    def label_of(self, class_name: str) -> int:
        """Label (0..C-1) of a common class."""
        return self.classes.index(class_name)

    def with_split_number(self, number: int) -> Manifest:
        """A copy that uses another official split in every domain (e.g. 2 or 3 of UCF101)."""
        data = self.model_dump()
        for spec in data["domains"].values():
            spec["split"]["number"] = number
        return Manifest.model_validate(data)


def _check_expected(domain: str, expected: ExpectedCounts, classes: list[str]) -> None:
    for split, table in expected.per_class.items():
        unknown = sorted(set(table) - set(classes))
        if unknown:
            raise ValueError(
                f"domains.{domain}.expected.per_class.{split}: unknown classes {unknown}"
            )
        if (
            split in expected.counts
            and set(table) == set(classes)
            and sum(table.values()) != expected.counts[split]
        ):
            raise ValueError(
                f"domains.{domain}.expected: per_class.{split} does not sum to counts.{split}"
            )


def available_manifests(folder: Path = MANIFEST_DIR) -> list[str]:
    """Names of the benchmarks that come with the project, sorted."""
    return sorted(p.stem for p in folder.glob("*.yaml"))


def load_manifest(name_or_path: str | Path) -> Manifest:
    """Read and check one manifest.

    Args:
        name_or_path: a benchmark name (``'ucf_hmdb_full'``) or the path of a .yaml file of your
            own.

    Raises:
        NbkitError: no such manifest, not YAML, or a field is missing, unknown or inconsistent.
    """
    from nbkit.benchmarks.layouts import LAYOUTS  # layouts import this module's classes

    path = _manifest_path(name_or_path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        manifest = Manifest.model_validate(data)
        for name, spec in manifest.domains.items():
            if spec.layout not in LAYOUTS:
                raise NbkitError(
                    f"{path}: domains.{name}.layout: '{spec.layout}' is none of {sorted(LAYOUTS)}"
                )
            LAYOUTS[spec.layout].Options.model_validate(spec.options)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NbkitError(f"{path}: not a readable YAML file: {error}") from error
    except ValidationError as error:
        fields = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()
        )
        raise NbkitError(f"{path}: {fields}. docs/MANIFESTS.md lists every field.") from error
    return manifest


def _manifest_path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise NbkitError(f"{path}: no such manifest file")
        return path
    inside = MANIFEST_DIR / f"{name_or_path}.yaml"
    if inside.is_file():
        return inside
    names = available_manifests()
    close = difflib.get_close_matches(str(name_or_path), names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise NbkitError(
        f"no benchmark '{name_or_path}'.{hint} Known: {', '.join(names)}; or give a path to a .yaml file."
    )
