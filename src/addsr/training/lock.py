"""One training at a time in a run's folder: two would delete each other's checkpoints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from addsr.errors import TrainingError

_NAME = ".lock"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when the process ends, however it ends.

    Raises:
        TrainingError: if another process holds it.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / _NAME).open("a") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise TrainingError(f"{run}: another training is at work in this folder") from None
        except OSError:
            pass  # a file system that cannot lock
        yield


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.register_at_fork(after_in_child=file.close)  # those that make pairs outlive a killed training by seconds
