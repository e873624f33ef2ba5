"""What determines a run: nested sections, checked when they are made, hashed whole.

A notebook's parameters cell holds flat upper-case literals.  `Configuration.from_parameters` turns
them into sections, refuses names that it does not know, and fills the rest from a profile.  The
same object drives the batch.  `nbkit.config.recognition` and `nbkit.config.localization` say what
the two tasks have.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nbkit.errors import NbkitError

# The checkout: relative folders start here, wherever a kernel runs.
ROOT = Path(__file__).resolve().parents[2]


def digest(value: Any, length: int = 12) -> str:
    """Hexadecimal hash of a JSON-able value: the same on every machine."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Section(BaseModel):
    """Fields that belong together.  Frozen; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Watch(Section):
    """Where a run's files go and how it is watched.  Nothing here changes a number."""

    profile: str = Field("demo", description="the named set of values that the run starts from")
    data_root: str = Field("data", description="folder of the data sets, one folder a benchmark")
    runs_dir: str = Field("runs", description="folder of checkpoints, results, executed notebooks")
    device: str = Field("auto", pattern="^(auto|cpu|cuda)$")
    progress: bool = Field(False, description="a progress bar; one line per epoch otherwise")

    @field_validator("data_root", "runs_dir")
    @classmethod
    def _from_checkout(cls, folder: str) -> str:
        return str(ROOT / Path(folder).expanduser())  # an absolute folder stays what it is


class Configuration(Section):
    """Base of both tasks' configurations: what every run has, and how one is made and named.

    Fields are sections or plain values.  The flat name of a field is unique over all sections.
    Class attributes of a task: `task`, its name; `profiles`, flat values by profile name;
    `version`, to be raised when a change of the code alters the numbers of finished runs.
    """

    task: ClassVar[str]
    profiles: ClassVar[dict[str, dict[str, Any]]]
    version: ClassVar[int] = 1

    benchmark: str = Field("demo", description="a file of data_manifests/, without .yaml")
    source: str = Field("studio", description="labelled domain")
    target: str = Field("street", description="unlabelled domain")
    seed: int = Field(0, ge=0)
    split_seed: int = Field(0, ge=0, description="which split: a grouped draw, or official list 1+")
    watch: Watch = Watch()

    @field_validator("benchmark")
    @classmethod
    def _name_of_a_benchmark(cls, name: str) -> str:
        if Path(name).suffix in (".yaml", ".yml"):
            raise ValueError(
                f"benchmark={name!r}: put the file into data_manifests/ and give its name "
                "without .yaml"
            )
        return name

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

        Raises NbkitError, which names the parameter and the way out.
        """
        places = cls.places()
        for name in flat:
            if name not in places:
                near = difflib.get_close_matches(name, places, n=1)
                hint = f"; did you mean {near[0].upper()}?" if near else ""
                raise NbkitError(
                    f"unknown parameter {name.upper()}{hint} (known: see docs/PARAMETERS.md)"
                )
        given = {name: value for name, value in flat.items() if value is not None}
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
    def from_parameters(cls, names: dict[str, Any], **more: Any) -> Self:
        """From a notebook's upper-case names: `RunConfig.from_parameters(globals())`."""
        return cls.make(**{**notebook_parameters(names), **more})

    def replace(self, **flat: Any) -> Self:
        """The same configuration with other values of some flat fields, checked anew."""
        return self._from_flat({**self.flat(), **flat})

    # --- reading ---------------------------------------------------------------------------------
    def flat(self) -> dict[str, Any]:
        """Every field by its flat name."""
        found = {}
        for name, section in self.places().items():
            found[name] = getattr(getattr(self, section) if section else self, name)
        return found

    def changed(self) -> dict[str, Any]:
        """The flat fields that differ from the profile's."""
        start = self.make(profile=self.watch.profile).flat()
        return {name: value for name, value in self.flat().items() if value != start[name]}

    # --- identity --------------------------------------------------------------------------------
    def identity(self) -> dict[str, Any]:
        """All that determines the numbers of the run: every section but `watch`."""
        fields = self.model_dump(mode="json", exclude={"watch"})
        return {"task": self.task, "version": self.version, **fields}

    def part(self, *sections: str) -> dict[str, Any]:
        """Data, seed and the named sections: what determines a stage that reads them."""
        common = ("benchmark", "source", "target", "seed", "split_seed")
        fields = self.model_dump(mode="json", include={*common, *sections})
        return {"task": self.task, "version": self.version, **fields}


def notebook_parameters(names: dict[str, Any]) -> dict[str, Any]:
    """The plain values among a notebook's upper-case names, in lower case."""
    plain = (str, int, float, bool, list, tuple, type(None))
    return {
        name.lower(): value
        for name, value in names.items()
        if name.isupper() and not name.startswith("_") and isinstance(value, plain)
    }
