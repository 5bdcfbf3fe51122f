"""Fetching what the catalogue names from the Hugging Face hub: resumed where it broke off, verified at the end."""

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from addsr.checkpoints.catalogue import Entry
from addsr.checkpoints.hashes import file_sha256
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
        ModelError: if there is no such entry, no repository has it with the hashes that it should have, or what came is
            damaged.
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
            place = None if to is None else to / (entry.folder or name)
            # the default revision: by its commit, the cache would not know it as the newest
            folder = Path(hub.snapshot_download(repository, allow_patterns=list(wanted), local_dir=place))
        except Exception as error:  # the hub's errors, requests' and the file system's alike: try the next mirror
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failures.append(f"{repository}: {lines[0]}")
            continue
        _verify(folder, wanted, entry)  # a failure ends it: what this mirror left would be found before the next one's
        return folder
    raise ModelError(f"{name}: no repository could be fetched ({'; '.join(failures)})")


def _wanted(info: Any, entry: Entry) -> dict[str, Any]:
    """Files of a repository that the entry asks for, with what the hub says of each."""
    files = {file.rfilename: file for file in info.siblings}
    for pattern in (*entry.files, *entry.sha256):
        if not any(sign in pattern for sign in "*?[") and pattern not in files:
            raise ModelError(f"has no {pattern}")
    wanted = {name: file for name, file in files.items() if any(fnmatch(name, pattern) for pattern in entry.files)}
    if not wanted:
        raise ModelError(f"has none of {', '.join(entry.files)}")
    for name, pinned in entry.sha256.items():  # before gigabytes are fetched in vain
        if (stated := _stated_sha256(wanted.get(name))) not in (None, pinned):
            raise ModelError(f"its {name} has SHA-256 {stated} instead of {pinned}")
    return wanted


def _stated_sha256(file: Any) -> str | None:
    """What the hub says of a large file."""
    return getattr(getattr(file, "lfs", None), "sha256", None)


def _verify(folder: Path, wanted: Mapping[str, Any], entry: Entry) -> None:
    """Each file against its pinned SHA-256, else the hub's own, else the hub's git hash of small files."""
    for name, stated in wanted.items():
        path = folder / name
        expected = entry.sha256.get(name) or _stated_sha256(stated)
        if expected is not None:
            kind, found = "SHA-256", file_sha256(path)
        elif (expected := getattr(stated, "blob_id", None)) is not None:
            content = path.read_bytes()
            kind, found = "git hash", hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        else:
            continue
        if found != expected:
            path.resolve().unlink()  # what the cache keeps
            path.unlink(missing_ok=True)  # and its link to it
            raise ModelError(f"{path}: its {kind} is {found} instead of {expected}; the file was removed")
