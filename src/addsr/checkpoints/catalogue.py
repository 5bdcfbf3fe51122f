"""Where published checkpoints can be had: a list of mirrors that anyone can replace."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from addsr.checkpoints.hub_cache import cached_snapshot
from addsr.errors import ModelError

VARIABLE = "ADDSR_CATALOGUE"


@dataclass(frozen=True)
class Entry:
    """One thing to download.

    Attributes:
        about, licence: for people.
        repositories: hub ids, the first that has it is taken.
        files: patterns of what is needed.
        sha256: pinned hashes by file name.
        folder: what it is called below `addsr download --to`; its own name where nothing is said.
    """

    about: str = ""
    licence: str = "not stated"
    repositories: Sequence[str] = ()
    files: Sequence[str] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None


def read_catalogue(path: Path | None = None) -> dict[str, Entry]:
    """The entries of `path`, of the file that ADDSR_CATALOGUE names, or of the package.

    Raises:
        ModelError: if the file cannot be read or has keys that an entry does not.
    """
    named = path or os.environ.get(VARIABLE)
    try:
        text = (
            Path(named).read_text("utf-8")
            if named
            else files("addsr.checkpoints").joinpath("catalogue.toml").read_text("utf-8")
        )
        entries = {name: Entry(**table) for name, table in tomllib.loads(text).items()}
        for name, entry in entries.items():
            if (
                not isinstance(entry.sha256, dict)
                or isinstance(entry.repositories, str)
                or isinstance(entry.files, str)
            ):
                raise TypeError(f"{name}: repositories and files are lists, sha256 is a table")
        return entries
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{named or 'catalogue'}: the catalogue cannot be read ({error})") from error


def cached_folders(names: Sequence[str], catalogue: Mapping[str, Entry]) -> list[Path]:
    """Folders of the local hub cache that hold something of these entries; nothing is downloaded."""
    repositories = [repository for name in names if name in catalogue for repository in catalogue[name].repositories]
    return [folder for repository in repositories if (folder := cached_snapshot(repository)) is not None]
