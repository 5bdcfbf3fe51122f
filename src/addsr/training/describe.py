"""A run's settings as text: each with its value and what the docstring of its dataclass says of it."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from addsr.data.pairs import PairSettings
from addsr.training.config import make_settings
from addsr.training.loop import LoopSettings
from addsr.training.tasks.building import task_settings

_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")  # name, name: description


def settings_lines(config: Mapping[str, Any]) -> Iterator[str]:
    """The settings of the tables `task`, `pairs` and `loop`: `table.key = value`, and below, indented, what it means, or
    what several together mean.

    Raises:
        TrainingError: for an unknown setting or a value out of its range.
    """
    tables = {
        "task": task_settings(dict(config)),
        "pairs": make_settings(PairSettings, config.get("pairs", {}), "pairs"),
        "loop": make_settings(LoopSettings, config.get("loop", {}), "loop"),
    }
    for name, settings in tables.items():
        yield from _lines(name, settings)


def _lines(name: str, settings: Any) -> Iterator[str]:
    meanings, said = attribute_docs(type(settings)), ""
    for field in fields(settings):
        value, meaning = getattr(settings, field.name), meanings.get(field.name, "")
        if said and meaning != said:
            yield f"    {said}"
        if is_dataclass(value):
            said = ""
            yield from _lines(f"{name}.{field.name}", value)
        else:
            said = meaning
            yield f"{name}.{field.name} = {json.dumps(value)}"
    if said:
        yield f"    {said}"


def attribute_docs(kind: type) -> dict[str, str]:
    """What a docstring's section `Attributes:` says of each name; names that share an entry share its text."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].splitlines():
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif line.startswith("        "):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings
