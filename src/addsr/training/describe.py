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
from addsr.training.networks import DefaultSettings
from addsr.training.tasks.building import SETTINGS, task_settings

_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")  # name, name: description


def settings_lines(config: Mapping[str, Any]) -> Iterator[str]:
    """The settings of the tables `task`, `pairs`, `loop` and `defaults`: `table.key = value`, and below, indented, what it
    means, or what several together mean.

    Raises:
        TrainingError: for an unknown setting or a value out of its range.
    """
    kind = config.get("task", {}).get("kind", "student")
    yield f"task.kind = {json.dumps(kind)}"
    yield f"    what is trained: {', '.join(SETTINGS)}."
    tables: dict[str, Any] = {
        "task": task_settings(dict(config)),
        "pairs": make_settings(PairSettings, config.get("pairs", {}), "pairs"),
        "loop": make_settings(LoopSettings, config.get("loop", {}), "loop"),
    }
    for name, settings in tables.items():
        yield from _lines(name, settings)
    yield from _default_lines(config.get("defaults", {}))


def _default_lines(given: Mapping[str, Any]) -> Iterator[str]:
    """Of the table `defaults`, whose other values are those of the networks that the run starts from."""
    for name, meaning in attribute_docs(DefaultSettings).items():
        yield (
            f"defaults.{name} = {json.dumps(given[name])}" if name in given else f"defaults.{name}: as the start has it"
        )
        yield f"    {meaning}"


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
    """What the section `Attributes:` of its docstring, and of those that it inherits from, says of each name; names that
    share an entry share its text.
    """
    meanings: dict[str, str] = {}
    names: list[str] = []
    docs = [inspect.cleandoc(one.__doc__) for one in reversed(kind.__mro__) if is_dataclass(one) and one.__doc__]
    for line in "\n".join(doc.partition("Attributes:\n")[2] for doc in docs).splitlines():
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif line.startswith("        "):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return meanings
