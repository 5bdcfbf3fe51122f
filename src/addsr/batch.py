"""A run over many files: no failure stops the rest."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from addsr.image.read import read_picture
from addsr.image.write import check_target, write_picture
from addsr.jobs import Job

if TYPE_CHECKING:
    from pathlib import Path

    from addsr.options import RestoreOptions
    from addsr.upscaler import Upscaler


@dataclass(frozen=True)
class Done:
    """What became of a job: `error`, or the size of the result and the seconds it took, reading and writing included."""

    job: Job
    error: Exception | None = None
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    made_by: dict[str, Any] | None = None


def run(
    jobs: Sequence[Job],
    upscaler: "Upscaler | None",
    options: "RestoreOptions",
    version: str,
    overwrite: bool,
    on_tile: Callable[[Job, int, int], None],
) -> Iterator[Done]:
    """Do the jobs; a failed one is reported and the others go on.

    Args:
        jobs: from `addsr.jobs.plan`.
        upscaler: the loaded model; None where every job has failed already.
        options: how to restore.
        version: of the package, for the metadata.
        overwrite: replace existing targets.
        on_tile: called with the job, tiles done and tiles in all.
    """
    made_by: dict[str, Any] = {}
    if upscaler is not None:  # before the clock starts: the hash of gigabytes belongs to no picture
        made_by = {"version": version, **upscaler.made_by(options)}

    def one(job: Job, upscaler: "Upscaler", target: "Path") -> tuple[tuple[int, int], dict[str, Any]]:
        picture = read_picture(job.source)  # locals of this function: no picture outlives its turn
        size = upscaler.output_size(picture, options.scale)
        check_target(target, size, picture.alpha is not None)
        restored = upscaler.restore(picture, options, lambda done, total: on_tile(job, done, total))
        made = {**made_by, **restored.words}
        write_picture(restored.to_pil(), target, made, overwrite=overwrite)
        return size, made

    for job in jobs:
        begun = time.monotonic()
        if not job.to_do or job.target is None or upscaler is None:
            yield Done(job, job.error)
            continue
        try:
            size, made = one(job, upscaler, job.target)
        except Exception as error:
            yield Done(job, error, seconds=time.monotonic() - begun)
            _forget_frames(error)
        else:
            yield Done(job, None, size, time.monotonic() - begun, made)


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an error that has been told: their frames hold pictures, and a run may keep all its errors."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
