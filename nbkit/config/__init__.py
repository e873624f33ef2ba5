"""What determines a run: nested sections, checked when they are made, hashed whole.

`nbkit.config.recognition` and `nbkit.config.localization` say what the two tasks have.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nbkit.errors import NbkitError
from nbkit.files import Name, read_yaml, user_path

# The checkout: relative folders start here, wherever a kernel runs.
ROOT = Path(__file__).resolve().parents[2]


def digest(value: Any, length: int = 12) -> str:
    """Hexadecimal hash of a JSON-able value: the same on every machine."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Section(BaseModel):
    """Fields that belong together.  Frozen; unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class Watch(Section):
    """Where a run's files go and how it is watched.  Nothing here changes a number."""

    profile: str = Field("demo", description="the named set of values that the run starts from")
    data_root: str = Field("data", description="folder of the data sets, one folder a benchmark")
    runs_dir: str = Field("runs", description="folder of checkpoints, results, executed notebooks")
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$")
    progress: bool = Field(False, description="a progress bar; one line per epoch otherwise")
    threads: int = Field(
        1, ge=1, le=1024, description="of a run on the CPU; another number makes another run"
    )

    @field_validator("data_root", "runs_dir")
    @classmethod
    def _from_checkout(cls, folder: str) -> str:
        return str(ROOT / user_path(folder))  # an absolute folder stays what it is


class Configuration(Section):
    """Base of both tasks' configurations: what every run has, and how one is made and named.

    Fields are sections or plain values.  The flat name of a field is unique over all sections.
    Class attributes of a task: `task`, its name; `profiles`, flat values by profile name;
    `version`, to be raised when a change of the code alters the numbers of finished runs.
    """

    task: ClassVar[str]
    profiles: ClassVar[dict[str, dict[str, Any]]]
    version: ClassVar[int] = 1

    benchmark: Name = Field("demo", description="a file of data_manifests/, without .yaml")
    source: Name = Field("studio", description="labelled domain")
    target: Name = Field("street", description="unlabelled domain")
    seed: int = Field(0, ge=0, lt=2**32)
    split_seed: int = Field(
        0, ge=0, lt=2**32, description="which split: a grouped draw, or official list 1+"
    )
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _two_domains(self) -> Self:
        if self.source == self.target:
            raise ValueError(f"source and target are both {self.source!r}; they must differ")
        return self

    # --- construction ----------------------------------------------------------------------------
    @classmethod
    def places(cls) -> dict[str, str]:
        """Section of every flat name; '' for a plain field of the configuration itself."""
        found = {}
        for name, field in cls.model_fields.items():
            section = field.annotation
            if isinstance(section, type) and issubclass(section, Section):
                found |= dict.fromkeys(section.model_fields, name)
            else:
                found[name] = ""
        return found

    @classmethod
    def make(cls, **flat: Any) -> Self:
        """The profile's values, then `flat` (None keeps the profile's value).

        Numbers of numpy and torch, their arrays, and paths count as what they stand for.  Raises
        NbkitError, which names the parameter and the way out.
        """
        places = cls.places()
        for name in flat:
            if name not in places:
                near = difflib.get_close_matches(name, places, n=1)
                hint = f"; did you mean {near[0].upper()}?" if near else ""
                raise NbkitError(
                    f"unknown parameter {name.upper()}{hint} (known: see docs/PARAMETERS.md)"
                )
        given = {name: _plain(name, v) for name, v in flat.items() if v is not None}
        profile = given.setdefault("profile", cls.model_fields["watch"].default.profile)
        if profile not in cls.profiles:
            known = ", ".join(cls.profiles)
            raise NbkitError(f"profile={profile!r} is not one of {known}")
        return cls._from_flat({**cls.profiles[profile], **given})

    @classmethod
    def _from_flat(cls, flat: dict[str, Any]) -> Self:
        nested: dict[str, Any] = {}
        places = cls.places()
        for name, value in flat.items():
            section = places[name]
            if section:
                nested.setdefault(section, {})[name] = value
            else:
                nested[name] = value
        try:
            return cls(**nested)
        except ValidationError as error:
            lines = [cls._problem(problem) for problem in error.errors()]
            raise NbkitError("the configuration is not valid\n  " + "\n  ".join(lines)) from None

    @classmethod
    def _problem(cls, problem: Any) -> str:
        """A problem that pydantic found, with the flat name of the field that has it."""
        named = [str(part) for part in problem["loc"] if part in cls.places()]
        name = named[-1].upper() if named else "configuration"
        return f"{name}: {problem['msg']}"

    @classmethod
    def from_parameters(cls, names: dict[str, Any], own: Iterable[str] = (), **more: Any) -> Self:
        """From a notebook's upper-case names: `RunConfig.from_parameters(globals())`.

        No name is left out in silence: NbkitError for one that the configuration does not have,
        and for a parameter in lower case.  `own` are upper-case names of the notebook alone.
        """
        found, injected = {}, _injected(names)
        for name, value in names.items():
            known, lower = name.lower() in cls.places(), name.lower()
            if name.isupper() and name not in own and not name.startswith("_"):
                if known or name in injected or _is_like_a_parameter(value):
                    found[lower] = value
            elif name not in own and (name in injected or known and _is_like_a_parameter(value)):
                raise NbkitError(
                    f"{name}: parameters have upper-case names; call it {name.upper()}"
                )
        return cls.make(**{**found, **more})

    def replace(self, **flat: Any) -> Self:
        """The same configuration with other values of some flat fields, checked anew."""
        given = {name: _plain(name, value) for name, value in flat.items()}
        return self._from_flat({**self.flat(), **given})

    # --- reading ---------------------------------------------------------------------------------
    def flat(self) -> dict[str, Any]:
        """Every field by its flat name."""
        found = {}
        for name, section in self.places().items():
            owner = self
            if section:
                owner = getattr(self, section)
            found[name] = getattr(owner, name)
        return found

    def changed(self) -> dict[str, Any]:
        """The flat fields that differ from the profile's."""
        start = self.make(profile=self.watch.profile).flat()
        return {name: value for name, value in self.flat().items() if value != start[name]}

    # --- identity --------------------------------------------------------------------------------
    def identity(self) -> dict[str, Any]:
        """All that determines the numbers of the run: every section but `watch`."""
        fields = self.model_dump(mode="json", exclude={"watch"})
        return {"task": self.task, "version": self.version, **self._threads(), **fields}

    def part(self, *sections: str) -> dict[str, Any]:
        """Data, seed and the named sections: what determines a stage that reads them."""
        common = ("benchmark", "source", "target", "seed", "split_seed")
        fields = self.model_dump(mode="json", include={*common, *sections})
        return {"task": self.task, "version": self.version, **self._threads(), **fields}

    def _threads(self) -> dict[str, int]:
        """Sums over several threads round otherwise: such a run is another one."""
        return {} if self.watch.threads == 1 else {"threads": self.watch.threads}


def _plain(name: str, value: Any) -> Any:
    """A parameter as text, number, truth value, None, or a list of these."""
    if hasattr(value, "tolist"):  # of numpy, torch or pandas
        value = value.tolist()
    elif isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (list, tuple, range)):
        return [_plain(name, each) for each in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise NbkitError(
        f"{name.upper()} is a {type(value).__name__}; a parameter is a text, a number, True, "
        "False, None, or a list of these"
    )


def _is_like_a_parameter(value: Any) -> bool:
    """Whether a name may have been meant as a parameter; modules, functions and tables are not."""
    if type(value).__module__ == "numpy":
        return getattr(value, "ndim", 2) < 2
    return isinstance(value, (str, int, float, list, tuple, range, os.PathLike, type(None)))


def _injected(names: dict[str, Any]) -> set[str]:
    """Names in the cell that papermill puts in for its own parameters, where one was executed."""
    cells = [cell for cell in names.get("In", ()) if cell.startswith("# Parameters\n")]
    lines = [line.partition(" = ") for cell in cells for line in cell.splitlines()]
    return {name for name, equals, _ in lines if equals and name.isidentifier()}


# --- profiles ------------------------------------------------------------------------------------
_PROFILES = read_yaml(Path(__file__).with_name("profiles.yaml"))


def _profile(task: str, name: str) -> dict[str, Any]:
    own = dict(_PROFILES[task][name])
    like = own.pop("like", None)
    if like is None:
        return own
    return {**_profile(task, like), **own}


RECOGNITION = {name: _profile("recognition", name) for name in _PROFILES["recognition"]}
LOCALIZATION = {name: _profile("localization", name) for name in _PROFILES["localization"]}
