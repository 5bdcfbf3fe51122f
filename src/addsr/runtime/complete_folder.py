"""Folders that are complete or absent: models, checkpoints, training pairs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def complete_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which gets the name `target` at the end; if there was an error, it is gone, and so
    are the folders that were made for it.

    Args:
        target: must not exist, or be empty, unless `replace`.
        replace: whatever has the name goes at the very end.

    Raises:
        OSError: if it cannot be written.
    """
    part, aside = (target.with_name(f".{target.name}.{what}") for what in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    if aside.exists() and not target.exists():
        aside.rename(target)
    missing = [folder for folder in part.parents if not folder.exists()]  # the innermost first
    try:
        part.mkdir(parents=True)
        yield part
        if replace and target.exists():
            _replace(target, part, aside)
        else:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):  # of one that holds something, such as `target`
            for folder in missing:
                folder.rmdir()


def _replace(target: Path, part: Path, aside: Path) -> None:
    """The old folder goes when the new one has its name, and comes back if that fails (Windows, where it is in use)."""
    _remove(aside)
    target.rename(aside)
    try:
        part.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    _remove(aside)


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # as which it had its name; what it leads to stays
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def settle_files(folder: Path) -> None:
    """Give all files of a folder the mode that any new file there has, and wait until they are on disk.

    safetensors writes for the owner alone; a name may outlive a power cut without its contents.
    """
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("r+b") as file:
                os.fsync(file.fileno())
