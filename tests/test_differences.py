"""docs/DIFFERENCES.md against the code: every parameter exists and has the stated values."""

import importlib
import inspect
import re

import pytest

from nbkit.config import ROOT
from nbkit.config.localization import LocalizationConfig
from nbkit.config.recognition import RunConfig

PAGE = (ROOT / "docs" / "DIFFERENCES.md").read_text()
ROW = re.compile(
    r"^\| [^|]+ \| `([\w.]+)(?:\((\w+)\))?` \| `([^|]*)` \| `([^|]*)` \| [^|]+ \|[^|]*\|$", re.M
)
ROWS = ROW.findall(PAGE)


def values(path, parameter):
    """Values in the paper profile and in the demo profile."""
    task, name = path.rpartition(".")[0], path.split(".")[-1]
    for made in (RunConfig, LocalizationConfig):
        if task.startswith(f"config.{made.task}."):
            return [made.make(profile=profile).flat()[name] for profile in ("paper", "demo")]
    parts = path.split(".")
    found = importlib.import_module(".".join(["nbkit", *parts[:2]]))
    for name in parts[2:]:
        found = getattr(found, name)
    return [inspect.signature(found).parameters[parameter].default] * 2


@pytest.mark.parametrize("path, parameter, paper, demo", ROWS, ids=lambda v: str(v).split(".")[-1])
def test_every_stated_value_is_the_codes(path, parameter, paper, demo):
    assert [str(v) for v in values(path, parameter)] == [paper, demo]


def test_every_row_is_read():
    lines = [x for x in PAGE.splitlines() if x.startswith("| ") and not x.startswith("| point")]
    assert len(lines) == len(ROWS) > 50


def test_what_the_paper_and_demo_profiles_do_differently_is_listed_where_it_changes_a_method():
    """Sizes and schedules aside, no departure of the demo profile may be missing from the page."""
    paper, demo = RunConfig.make(profile="paper"), RunConfig.make(profile="demo")
    sizes = {"profile", "frames", "cache_size", "crop", "lr_steps", "lr_schedule", "grad_clip"}
    paper, demo = paper.flat(), demo.flat()
    differs = {name for name in paper if paper[name] != demo[name]} - sizes
    assert differs <= {path.split(".")[-1] for path, *_ in ROWS}, differs
