"""Training presets: TOML files inside the package, and the objects that they describe."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from addsr.data.pairs import PairSettings
from addsr.errors import DataError
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.unet import AddSRUNet
from addsr.training.loop import LoopSettings

PRESETS = Path(__file__).resolve().parent / "presets"
Settings = TypeVar("Settings")


def preset_names() -> list[str]:
    """The presets inside the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(name: str) -> dict[str, Any]:
    """A preset by name, or a TOML file by path.

    `extends = "NAME"` starts from another preset, whose tables its own then override key by key. The string "none" as
    `cross_attention_dim` stands for None, which TOML lacks.

    Raises:
        DataError: if there is none, or it is not TOML.
    """
    path = PRESETS / f"{name}.toml" if name in preset_names() else Path(name)
    try:
        preset = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"unknown preset {name!r}; there are {', '.join(preset_names())}") from error
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not valid TOML ({error})") from error
    if (base := preset.pop("extends", None)) is not None:
        tables = load_preset(base)
        preset = tables | {name: tables.get(name, {}) | table for name, table in preset.items()}
    if preset.get("unet", {}).get("cross_attention_dim") == "none":
        preset["unet"]["cross_attention_dim"] = None
    return preset


def make_settings(kind: type[Settings], table: dict[str, Any]) -> Settings:
    """A settings dataclass from a table.

    Raises:
        DataError: for a key that it does not have.
    """
    known = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := set(table) - known:
        raise DataError(f"unknown setting {', '.join(sorted(unknown))}; {kind.__name__} has {', '.join(sorted(known))}")
    return kind(**table)


def pair_settings(preset: dict[str, Any]) -> PairSettings:
    """The table `pairs`."""
    return make_settings(PairSettings, preset.get("pairs", {}))


def loop_settings(preset: dict[str, Any], **overrides: Any) -> LoopSettings:
    """The table `loop`; overrides that are None do not count."""
    given = {key: value for key, value in overrides.items() if value is not None}
    return make_settings(LoopSettings, preset["loop"] | given)


def make_vae(preset: dict[str, Any]) -> PixelShuffleAutoencoder:
    """The autoencoder of the table `vae`, with random weights."""
    return PixelShuffleAutoencoder(**preset["vae"])


def make_unet(preset: dict[str, Any]) -> AddSRUNet:
    """The U-Net of the table `unet`, with random weights."""
    return AddSRUNet(**preset["unet"])
