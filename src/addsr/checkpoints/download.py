"""Fetching what the catalogue names from the Hugging Face hub: resumed where it broke off, verified at the end."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from addsr.checkpoints.catalogue import Entry
from addsr.errors import ModelError


def fetch(name: str, entries: Mapping[str, Entry], to: Path | None = None, hub: Any = None) -> Path:
    """Download an entry from the first of its repositories that has it.

    Args:
        name: of the entry.
        entries: the catalogue.
        to: folder; None for the hub cache.
        hub: what does it: `huggingface_hub`, or a stand-in with its `HfApi` and `snapshot_download`.

    Returns:
        The folder with the files.

    Raises:
        ModelError: if there is no such entry, no repository answers, or a file's hash is not what it should be.
    """
    if name not in entries:
        raise ModelError(f"nothing is called {name!r} in the catalogue; it has {', '.join(entries)}")
    entry = entries[name]
    if not entry.repositories:
        raise ModelError(f"{name}: {entry.about}; nothing to download")
    if hub is None:
        import huggingface_hub as hub
    failures = []
    for repository in entry.repositories:
        try:
            info = hub.HfApi().model_info(repository, files_metadata=True)
            wanted = _wanted(info, entry)
            folder = Path(
                hub.snapshot_download(
                    repository,
                    revision=info.sha,
                    allow_patterns=list(wanted),
                    local_dir=None if to is None else to / name,
                )
            )
        except Exception as error:  # the hub's errors, requests' and the file system's alike: try the next mirror
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failures.append(f"{repository}: {lines[0]}")
            continue
        _verify(folder, wanted, entry)
        return folder
    raise ModelError(f"{name}: no repository could be fetched ({'; '.join(failures)})")


def _wanted(info: Any, entry: Entry) -> dict[str, str | None]:
    """Files of a repository that the entry asks for, and the hub's own hash of each, where it states one."""
    wanted = {
        file.rfilename: getattr(getattr(file, "lfs", None), "sha256", None)
        for file in info.siblings
        if any(fnmatch(file.rfilename, pattern) for pattern in entry.files)
    }
    if not wanted:
        raise ModelError(f"has none of {', '.join(entry.files)}")
    return wanted


def _verify(folder: Path, wanted: Mapping[str, str | None], entry: Entry) -> None:
    for file, stated in wanted.items():
        expected = entry.sha256.get(file) or stated
        if expected is None:
            continue
        found = file_sha256(folder / file)
        if found != expected:
            (folder / file).unlink()
            raise ModelError(f"{folder / file}: its SHA-256 is {found} instead of {expected}; the file was removed")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
