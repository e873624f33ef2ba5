"""Profiles: named starting points of a configuration, from profiles.yaml beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbkit.files import read_yaml

_FILE = read_yaml(Path(__file__).with_suffix(".yaml"))


def _values(task: str, name: str) -> dict[str, Any]:
    own = dict(_FILE[task][name])
    like = own.pop("like", None)
    if like is None:
        return own
    return {**_values(task, like), **own}


RECOGNITION = {name: _values("recognition", name) for name in _FILE["recognition"]}
LOCALIZATION = {name: _values("localization", name) for name in _FILE["localization"]}
