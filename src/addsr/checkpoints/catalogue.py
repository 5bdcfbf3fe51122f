"""Where published checkpoints can be had: a list of mirrors that anyone can replace."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

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
    """

    about: str = ""
    licence: str = "not stated"
    repositories: Sequence[str] = ()
    files: Sequence[str] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


def read_catalogue(path: Path | None = None) -> dict[str, Entry]:
    """The entries of `path`, of the file that ADDSR_CATALOGUE names, or of the package.

    Raises:
        ModelError: if the file cannot be read or has keys that an entry does not.
    """
    named = path or os.environ.get(VARIABLE)
    try:
        text = Path(named).read_text("utf-8") if named else files(__package__).joinpath("catalogue.toml").read_text()
        return {name: Entry(**table) for name, table in tomllib.loads(text).items()}
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{named or 'catalogue'}: the catalogue cannot be read ({error})") from error


def cached_folders(names: Sequence[str], catalogue: Mapping[str, Entry]) -> list[Path]:
    """Folders of the local hub cache that hold something of these entries; nothing is downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    found = []
    for name in names:
        for repository in catalogue[name].repositories if name in catalogue else ():
            try:
                found.append(Path(snapshot_download(repository, local_files_only=True)))
            except (LocalEntryNotFoundError, HFValidationError):
                continue
    return found
