"""The page docs/PARAMETERS.md, made from `RunConfig` so that it cannot drift: `python -m nbkit.parameters`."""

from __future__ import annotations

import typing
from pathlib import Path

from nbkit.config import ROOT, RunConfig
from nbkit.profiles import PROFILES
from nbkit.train.record import atomically

SHOWN = ("demo", "laptop", "paper")


def page() -> str:
    """Markdown: every field with its allowed values, its value in the main profiles, and what it means."""
    configs = {p: RunConfig.make(profile=p) for p in SHOWN}
    head = ["# Parameters", "",
            "Every field of a run's configuration. In a notebook's parameters cell the name is written in upper case; `None` keeps",
            "the profile's value. Made by `python -m nbkit.parameters`.", "",
            "| field | values | " + " | ".join(SHOWN) + " | meaning |", "|---|---|" + "---|" * len(SHOWN) + "---|"]
    rows = []
    for name, field in RunConfig.model_fields.items():
        values = [_short(getattr(configs[p], name)) for p in SHOWN]
        rows.append(f"| `{name}` | {_kind(field.annotation)} | " + " | ".join(values) + f" | {field.description or ''} |")
    return "\n".join(head + rows + ["", "Profiles: " + ", ".join(f"`{p}`" for p in PROFILES) + "; see nbkit/profiles.py.", ""])


def _short(value: object) -> str:
    text = str(value)
    return "" if value is None or text.startswith(str(ROOT)) else text


def _kind(annotation: object) -> str:
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{v}`" for v in typing.get_args(annotation))
    return str(getattr(annotation, "__name__", annotation)).replace("|", "or")


if __name__ == "__main__":
    atomically(Path(ROOT) / "docs" / "PARAMETERS.md", lambda p: p.write_text(page()))
