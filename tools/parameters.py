"""Write docs/PARAMETERS.md, every parameter of a run: `python tools/parameters.py`."""

from __future__ import annotations

import typing

from nbkit.config import ROOT, Configuration, Watch
from nbkit.config.localization import LocalizationConfig
from nbkit.config.recognition import RunConfig
from nbkit.files import atomically

PAGE = ROOT / "docs" / "PARAMETERS.md"
SHOWN = ("demo", "laptop", "paper")
HEAD = """# Parameters

Every field of a run's configuration. In a notebook's parameters cell the name is written in upper
case; `None` keeps the profile's value. `PROFILE` sets what the columns show; see
nbkit/config/profiles.yaml. Made by `python tools/parameters.py`.
"""
TASKS = {
    "Recognition (notebooks 01 to 04, 06 to 08)": RunConfig,
    "Localization (notebook 05)": LocalizationConfig,
}


def page() -> str:
    """Markdown: every field with its allowed values, its value in each profile, its meaning."""
    parts = [HEAD]
    for title, task in TASKS.items():
        profiles = ", ".join(f"`{name}`" for name in task.profiles)
        parts += [f"## {title}", f"Profiles: {profiles}."]
        sections = dict.fromkeys(task.places().values())
        for section in sections:
            fields = task.model_fields[section].annotation.model_fields if section else None
            parts.append(_heading(task, section))
            parts.append(_table(task, section, fields or task.model_fields))
    return "\n\n".join(parts) + "\n"


def _heading(task: type[Configuration], section: str) -> str:
    if not section:
        return "### The run"
    meaning = task.model_fields[section].annotation.__doc__
    if section == "watch":
        meaning = Watch.__doc__
    return f"### `{section}`\n\n{' '.join(meaning.split())}"


def _table(task: type[Configuration], section: str, fields: dict[str, typing.Any]) -> str:
    configs = [task.make(profile=name) for name in SHOWN]
    lines = [
        f"| field | values | {' | '.join(SHOWN)} | meaning |",
        "|---" * (len(SHOWN) + 3) + "|",
    ]
    for name, field in fields.items():
        if name not in task.places() or task.places()[name] != section:
            continue  # a section itself
        values = " | ".join(_short(config.flat()[name]) for config in configs)
        meaning = field.description or ""
        lines.append(f"| `{name}` | {_kind(field.annotation)} | {values} | {meaning} |")
    return "\n".join(lines)


def _short(value: object) -> str:
    text = str(value)
    return "" if value is None or text.startswith(str(ROOT)) else text


def _kind(annotation: object) -> str:
    values = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in values)
    if typing.get_origin(annotation) is tuple:
        return "numbers" if ... in values else f"{len(values)} numbers"
    if values:
        return str(annotation).replace("|", "or")
    return getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    atomically(PAGE, lambda part: part.write_text(page()))
