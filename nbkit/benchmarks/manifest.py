"""The schema of ``data_manifests/*.yaml``: a benchmark is described, never shipped.

docs/MANIFESTS.md says what every field means.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nbkit.errors import NbkitError
from nbkit.files import Name, read_yaml

MANIFEST_DIR = Path(__file__).resolve().parents[2] / "data_manifests"
Layout = Literal[
    "arid",
    "demo",
    "epic",
    "folders",
    "hmdb51",
    "jhmdb",
    "olympic",
    "ucf101",
    "ucf101_24",
    "ucfsports",
]
WITHOUT_LISTS = ("arid", "folders", "ucfsports")  # layouts of datasets that have no split lists


class Strict(BaseModel):
    """Base of every section: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoOptions(Strict):
    """Options of a layout with one folder per class.

    flow_images: folder of precomputed flow below the dataset folder.
    mark: keep only clips with a static ('nm') or a moving ('cm') camera (HMDB51 and J-HMDB).
    boxes: every video must have boxes.
    groups: which videos are of one recording; see `nbkit.benchmarks.split_lists`.
    """

    flow_images: str = ""
    mark: Literal["nm", "cm"] | None = None
    boxes: bool = False
    groups: str = ""

    @field_validator("groups")
    @classmethod
    def _file_or_pattern(cls, groups: str) -> str:
        if groups not in ("", "file") and not groups.endswith(".csv"):
            try:
                names = re.compile(groups).groupindex
            except re.error as error:
                raise ValueError(f"no regular expression: {error}") from error
            if "group" not in names:
                raise ValueError("expected file, a .csv file, or a pattern with (?P<group>...)")
        return groups


class EpicOptions(Strict):
    """Options of EPIC-Kitchens: D1, D2 or D3, and the folder names that are tried in order.

    An empty ``flow`` is for a copy without stored flow.
    """

    domain: str
    tables: tuple[str, ...] = ("Annotations", "MM_SADA_Domain_Adaptation_Splits", "tables", ".")
    rgb: tuple[str, ...] = ("frames_rgb_flow/rgb/train", "frames_rgb_flow/rgb", "rgb/train", "rgb")
    flow: tuple[str, ...] = (
        "frames_rgb_flow/flow/train",
        "frames_rgb_flow/flow",
        "flow/train",
        "flow",
    )


class SplitSpec(Strict):
    """Which videos are training and which are test videos.

    official: the published lists number ``number`` (1-based). grouped: whole recording groups are
    drawn by the split seed, jointly for all grouped domains, so that the test part comes close to
    ``test_fraction`` of the clips. all_train: every video is a training video.
    """

    rule: Literal["official", "grouped", "all_train"]
    number: int = Field(1, ge=1)
    test_fraction: float = Field(1 / 3, gt=0, lt=1)


class ExpectedCounts(Strict):
    """How many videos (EPIC: segments) the split ``split_number`` must give.

    The keys of both tables are splits, or 'all' for every split together. A difference from
    ``verified`` numbers is an error, from others it is only reported.
    """

    split_number: int = Field(1, ge=1)
    verified: bool = True
    source: str = ""
    counts: dict[str, int] = {}
    per_class: dict[str, dict[str, int]] = {}


class DomainSpec(Strict):
    """One side of the benchmark: a dataset, or a part of one.

    ``folder`` are names tried in this order below the benchmark root, '.' is the root itself.
    ``classes`` maps a common class to the dataset's own classes (folder names, or ids as text).
    """

    dataset: str
    layout: Layout
    folder: list[str] = Field(min_length=1)
    classes: dict[str, Annotated[list[str], Field(min_length=1)]]
    split: SplitSpec
    options: VideoOptions | EpicOptions = Field({}, validate_default=True)
    expected: list[ExpectedCounts] = []
    licence: str
    homepage: str
    citation: str

    @field_validator("options", mode="before")
    @classmethod
    def _options_of_layout(cls, options: Any, info: Any) -> VideoOptions | EpicOptions:
        model = EpicOptions if info.data.get("layout") == "epic" else VideoOptions
        try:
            return model.model_validate(options)
        except ValidationError as error:
            raise ValueError(_wrong_fields(error)) from error

    @model_validator(mode="after")
    def _consistent(self) -> DomainSpec:
        if len(self.common_class) != sum(map(len, self.classes.values())):
            raise ValueError("classes: a dataset class is used twice")
        if self.split.rule == "official" and self.layout in WITHOUT_LISTS:
            raise ValueError(
                f"{self.dataset} has no official split lists: set its split rule to 'grouped' or "
                "'all_train'"
            )
        for expected in self.expected:
            for split, numbers in expected.per_class.items():
                total = expected.counts.get(split, sum(numbers.values()))
                unknown = sorted(set(numbers) - set(self.classes))
                if unknown:
                    raise ValueError(f"expected.per_class.{split}: unknown classes {unknown}")
                if len(numbers) == len(self.classes) and sum(numbers.values()) != total:
                    raise ValueError(f"expected: per_class.{split} does not sum to counts.{split}")
        return self

    @property
    def common_class(self) -> dict[str, str]:
        """The dataset's own class -> common class."""
        return {own: common for common, members in self.classes.items() for own in members}

    def expected_now(self) -> ExpectedCounts | None:
        """Expected counts of the current split number, or None when the manifest states none."""
        return next((e for e in self.expected if e.split_number == self.split.number), None)


class FlowSpec(Strict):
    """Optical flow of the published protocol; a run takes its own parameter `FLOW`.

    rate: flow frames per RGB frame. clip: pixels that map to +-1; larger displacements are clipped.
    """

    kind: Literal["dis", "tvl1", "raft", "precomputed"]
    rate: float = Field(1.0, gt=0, le=1)
    clip: float = Field(20.0, gt=0)


class Manifest(Strict):
    """One benchmark: two or more domains over a common list of classes (label = position).

    ``directions`` are (source, target) pairs, ``frame_size`` (height, width) in pixels.
    ``mean_frames`` per video or segment serves to estimate the size of a cache.
    """

    benchmark: Name
    title: str
    task: Literal["recognition", "localization"]
    classes: list[str] = Field(min_length=2)
    domains: dict[Name, DomainSpec] = Field(min_length=2)
    directions: list[tuple[str, str]] = Field(min_length=1)
    fps: float = Field(gt=0)
    frame_size: tuple[int, int]
    mean_frames: float = Field(gt=0)
    flow: FlowSpec
    citation: str
    homepage: str
    licence: str
    unverified: list[str] = []

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a class is listed twice")
        for name, spec in self.domains.items():
            wrong = sorted(set(spec.classes) ^ set(self.classes))
            if wrong:
                raise ValueError(
                    f"domains.{name}.classes: must map exactly the common classes; differs in "
                    f"{wrong}"
                )
        for source, target in self.directions:
            if source == target or not {source, target} <= set(self.domains):
                raise ValueError(
                    f"directions: {[source, target]} must be two different domains of "
                    f"{sorted(self.domains)}"
                )
        return self

    def with_split_number(self, number: int) -> Manifest:
        """A copy that uses another of the official splits (e.g. 2 or 3 of UCF101) where it can."""
        data = self.model_dump()
        for spec in data["domains"].values():
            if spec["split"]["rule"] == "official":
                spec["split"]["number"] = number
        return Manifest.model_validate(data)


# --- reading -------------------------------------------------------------------------------------
def available_manifests() -> list[str]:
    """Names of the benchmarks that come with the project, sorted."""
    return sorted(p.stem for p in MANIFEST_DIR.glob("*.yaml"))


def load_manifest(name_or_path: str | Path) -> Manifest:
    """Read and check one manifest.

    Args:
        name_or_path: a benchmark name (``'ucf_hmdb_full'``) or the path of your own .yaml file.

    Raises:
        NbkitError: no such manifest, not YAML, or a field is missing, unknown or inconsistent.
    """
    path = _manifest_path(name_or_path)
    try:
        return Manifest.model_validate(read_yaml(path))
    except ValidationError as error:
        raise NbkitError(
            f"{path}: {_wrong_fields(error)}. docs/MANIFESTS.md lists every field."
        ) from error


def _wrong_fields(error: ValidationError) -> str:
    """Every wrong field, what is wrong about it and a text that was found there, on one line."""
    texts = []
    for item in error.errors():
        place = ".".join(map(str, item["loc"])) or "manifest"
        found = f", found {item['input']!r}" if isinstance(item["input"], str) else ""
        texts.append(f"{place}: {item['msg']}{found}")
    return "; ".join(texts)


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
    hint = "".join(f" Did you mean '{name}'?" for name in close)
    raise NbkitError(
        f"no benchmark '{name_or_path}'.{hint} Known: {', '.join(names)}; "
        "or give a path to a .yaml file."
    )
