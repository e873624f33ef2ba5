"""The page docs/PARAMETERS.md, made from the configurations so that it cannot drift: `python -m
nbkit.parameters`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from nbkit.config import ROOT
from nbkit.config.localization import PRESETS
from nbkit.config.profiles import PROFILES
from nbkit.config.recognition import RunConfig
from nbkit.files import atomically
from nbkit.train.localization_cells import LocalizationCell

SHOWN = ("demo", "laptop", "paper")


def page() -> str:
    """Markdown: every field with its allowed values, its value in the main profiles (or sizes), and
    what it means.
    """
    cells = {size: LocalizationCell.make(size) for size in PRESETS}
    parts = [
        "# Parameters",
        "",
        "Every field of a run's configuration. In a notebook's parameters cell the name is written in upper case; `None` keeps",
        "the profile's value. Made by `python -m nbkit.parameters`.",
        "",
        "## Recognition (notebooks 01 to 04, 06 to 08)",
        "",
        *_table({p: RunConfig.make(profile=p) for p in SHOWN}),
        "",
        "Profiles: " + ", ".join(f"`{p}`" for p in PROFILES) + "; see nbkit/profiles.py.",
        "",
        "## Localization (notebook 05)",
        "",
        "`SIZE` sets what the columns show. `LAM`, `BETA` and `GAMMA` are of Eqs. (2) to (7) of the localization paper.",
        "",
        *_table(cells, leave_out=("model",)),
        "",
        "The detector and its training:",
        "",
        *_table({size: cell.model for size, cell in cells.items()}),
        "",
    ]
    return "\n".join(parts)


def _table(configs: Mapping[str, BaseModel], leave_out: tuple[str, ...] = ()) -> list[str]:
    lines = [
        "| field | values | " + " | ".join(configs) + " | meaning |",
        "|---|---|" + "---|" * len(configs) + "---|",
    ]
    for name, field in type(next(iter(configs.values()))).model_fields.items():
        if name not in leave_out:
            values = [_short(getattr(config, name)) for config in configs.values()]
            lines.append(
                f"| `{name}` | {_kind(field.annotation)} | "
                + " | ".join(values)
                + f" | {field.description or ''} |"
            )
    return lines


def _short(value: object) -> str:
    text = str(value)
    return "" if value is None or text.startswith(str(ROOT)) else text


def _kind(annotation: object) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{v}`" for v in typing.get_args(annotation))
    return str(getattr(annotation, "__name__", annotation)).replace("|", "or")


if __name__ == "__main__":
    atomically(Path(ROOT) / "docs" / "PARAMETERS.md", lambda p: p.write_text(page()))
