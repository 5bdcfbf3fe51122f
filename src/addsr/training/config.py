"""Training presets: TOML files inside the package, changed by `--set`, checked, and kept with the run."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from addsr.errors import TrainingError

PRESETS = Path(__file__).resolve().parent / "presets"
NETWORKS = ("unet", "controlnet", "vae")  # that may train, and have a table of their own in a preset
TABLES = (*NETWORKS, "pairs", "task", "loop", "defaults")
WORDS = ("extends", "init", "teacher", "discriminator", "faithful", "description")  # beside the tables
Settings = TypeVar("Settings")


def preset_names() -> list[str]:
    """The presets inside the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name: str) -> dict[str, Any]:
    """A preset by name, or a TOML file by path.

    `extends = "NAME"` starts from another preset, whose tables its own then override key by key. The string "none" in a
    network's table stands for None, which TOML lacks.

    Raises:
        TrainingError: if there is none, it is not TOML, or has an unknown table.
    """
    path = PRESETS / f"{name}.toml" if name in preset_names() else Path(name)
    try:
        preset = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"unknown preset {name!r}; there are {', '.join(preset_names())}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not valid TOML ({error})") from error
    if unknown := set(preset) - {*TABLES, *WORDS}:
        raise TrainingError(f"{path}: unknown table {sorted(unknown)[0]}; there are {', '.join((*TABLES, *WORDS))}")
    for name, value in preset.items():
        wanted = dict if name in TABLES else str
        if not isinstance(value, wanted):
            raise TrainingError(f"{path}: {name} is {value!r}; it must be a {'table' if wanted is dict else 'text'}")
    if (base := preset.pop("extends", None)) is not None:
        preset = merged(load_preset(base), preset)
    return preset


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; tables are merged key by key."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def assignment(text: str) -> dict[str, Any]:
    """`first.sigma=0.5` -> {"first": {"sigma": 0.5}}; the value is TOML, or else a string.

    Raises:
        TrainingError: if it is no assignment.
    """
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise TrainingError(f"--set {text!r} is not of the form KEY=VALUE")
    try:
        result: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        result = value.strip()
    for name in reversed(names):
        result = {name: result}
    return result


def table_assignment(text: str) -> dict[str, Any]:
    """`task.lpips=0.5` -> {"task": {"lpips": 0.5}}.

    Raises:
        TrainingError: if it is no assignment to a key of a table.
    """
    key = text.partition("=")[0]
    if "=" not in text or "." not in key:
        raise TrainingError(f"--set {text!r} is not of the form TABLE.KEY=VALUE, such as loop.batch=8")
    if (table := key.split(".")[0].strip()) not in TABLES:
        raise TrainingError(f"--set {text!r}: unknown table {table!r}; there are {', '.join(TABLES)}")
    return assignment(text)


def make_settings(kind: type[Settings], table: Mapping[str, Any], name: str, base: Settings | None = None) -> Settings:
    """A settings dataclass from a table, nested ones from nested tables.

    Args:
        kind: the dataclass.
        table: its values.
        name: of the table, for messages.
        base: gives the values that the table lacks, instead of the dataclass's own defaults.

    Raises:
        TrainingError: for a key that it does not have or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise TrainingError(f"unknown setting {name}.{key}; {name} has {', '.join(sorted(known))}")
        default, factory = known[key].default, known[key].default_factory
        if base is not None:
            default = getattr(base, key)
        elif factory is not MISSING:
            default = factory()
        if is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise TrainingError(f"{name}.{key} is {value!r}; it must be a table")
            values[key] = make_settings(hints[key], value, f"{name}.{key}", default)  # pyright: ignore[reportArgumentType]
        else:
            values[key] = _checked(f"{name}.{key}", value, hints[key], default)
    try:
        return kind(**values) if base is None else replace(base, **values)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{name}: {error}") from error


def _checked(name: str, value: Any, hint: Any, default: Any) -> Any:
    """The value if it has the setting's type; whole numbers stand for floats, lists for tuples."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, int, float, str):
        if type(value) is not hint:
            raise TrainingError(f"{name} is {value!r}; it must be {hint.__name__}, such as {default!r}")
        return value
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TrainingError(f"{name} is {value!r}; it must be a list")
    fixed = get_origin(hint) is tuple and Ellipsis not in get_args(hint)
    if fixed and len(value) != len(get_args(hint)):
        raise TrainingError(f"{name} is {value!r}; it must have {len(get_args(hint))} values")
    types: tuple[type, ...] = tuple(set(get_args(hint)) - {Ellipsis})
    named = {(str,): "texts", (int,): "whole numbers"}.get(types, "numbers")
    wanted = (int, float) if named == "numbers" else types
    if wrong := [item for item in value if not isinstance(item, wanted) or isinstance(item, bool)]:
        raise TrainingError(f"{name} has {wrong[0]!r}; it must hold {named}")
    return tuple(value)


def write_run_config(run: Path, config: Mapping[str, Any]) -> None:
    """Keep the resolved config with the run."""
    run.mkdir(parents=True, exist_ok=True)
    part = run / ".config.json.part"
    part.write_text(json.dumps(config, indent=2))
    part.replace(run / "config.json")


def read_run_config(run: Path) -> dict[str, Any]:
    """The config that a run was started with.

    Raises:
        TrainingError: if the folder holds no run.
    """
    try:
        return json.loads((run / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run}: no run is in this folder (config.json is missing or damaged)") from error
