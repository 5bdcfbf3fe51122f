"""A run over many files: which input becomes which output, and no failure stops the rest."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addsr.errors import AddSRError, InputImageError, OutputError
from addsr.image.read import ENDINGS, read_picture
from addsr.image.write import FORMATS, check_target, write_picture


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; `error` says why it cannot be done."""

    source: Path
    target: Path | None
    error: AddSRError | None = None


@dataclass(frozen=True)
class Done:
    """What became of a job: `error`, or the size of the result and the seconds it took, reading and writing included."""

    job: Job
    error: Exception | None = None
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    made_by: dict[str, Any] | None = None


def plan(inputs: Sequence[Path], out: Path | None, suffix: str, ext: str, overwrite: bool) -> list[Job]:
    """The jobs of a run, in order.

    Args:
        inputs: files and folders (their pictures, not those of subfolders).
        out: a file if it has a picture's ending and there is one input file, else a folder; None: beside each input.
        suffix: goes between the stem and the ending.
        ext: `auto` (tif for TIFF, else png), or `png`, `jpg`, `webp`, `tif`.
        overwrite: allow existing targets (never the input itself).

    Raises:
        OutputError: if the output folder cannot be made.
    """
    single = out if out is not None and out.suffix.lower() in FORMATS and not out.is_dir() else None
    jobs = list(_sources(inputs, suffix if out is None else ""))
    if single is not None and len(jobs) != 1:
        raise OutputError(f"{out}: is one file, but there are {len(jobs)} inputs; give a folder")
    if out is not None:
        _make_folder(out if single is None else out.parent)
    planned, taken = [], set[str]()
    for job in jobs:
        if job.error is None:
            target = single or _target(job.source, out, suffix, ext, taken)
            taken.add(str(target).casefold())
            job = Job(job.source, target, _conflict(job.source, target, overwrite))
        planned.append(job)
    return planned


def _sources(inputs: Sequence[Path], made_suffix: str) -> Iterator[Job]:
    """A job without target for each picture, each once; folders leave out results of an earlier run beside them."""
    seen = set[Path]()
    for path in inputs:
        files = [path]
        try:
            if path.is_dir():
                files = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
                files = [p for p in files if not p.name.startswith(".")]
                stems = {p.stem for p in files}
                if made_suffix:
                    files = [p for p in files if p.stem.removesuffix(made_suffix) not in stems - {p.stem}]
                if not files:
                    yield Job(path, None, InputImageError(f"{path}: no picture in the folder"))
            elif not path.exists():
                files = []
                yield Job(path, None, InputImageError(f"{path}: no such file or folder"))
        except OSError as error:
            files = []
            yield Job(path, None, InputImageError(f"{path}: cannot be read ({error.strerror or error})"))
        for file in files:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield Job(file, None)


def _target(source: Path, folder: Path | None, suffix: str, ext: str, taken: set[str]) -> Path:
    """`{stem}{suffix}.{ext}`; where another input has taken that, the input's own ending joins the stem."""
    if ext == "auto":
        ext = "tif" if source.suffix.lower() in (".tif", ".tiff") else "png"
    folder = source.parent if folder is None else folder
    target = folder / f"{source.stem}{suffix}.{ext}"
    if str(target).casefold() in taken:
        target = folder / f"{source.stem}_{source.suffix[1:].lower()}{suffix}.{ext}"
    number = 2
    while str(target).casefold() in taken:
        target = folder / f"{source.stem}_{number}{suffix}.{ext}"
        number += 1
    return target


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made ({error.strerror or error})") from error


def _conflict(source: Path, target: Path, overwrite: bool) -> OutputError | None:
    if target.resolve() == source.resolve() or (target.exists() and target.samefile(source)):
        return OutputError(f"{target}: the output would be the input itself; choose another name or folder")
    if target.is_dir():
        return OutputError(f"{target}: is a folder")
    if not os.access(target.parent, os.W_OK):
        return OutputError(f"{target.parent}: the folder cannot be written to")
    if target.exists() and not overwrite:
        return OutputError(f"{target}: exists already; use --overwrite to replace it")
    return None


def run(
    jobs: Sequence[Job],
    load_upscaler: Callable[[], Any],
    options: Any,
    version: str,
    on_tile: Callable[[Job, int, int], None],
) -> Iterator[Done]:
    """Do the jobs; a failed one is reported and the others go on. The model is loaded only if there is something to do.

    Args:
        jobs: from `plan`.
        load_upscaler: gives the Upscaler.
        options: RestoreOptions.
        version: of the package, for the metadata.
        on_tile: called with the job, tiles done and tiles in all.
    """
    upscaler = load_upscaler() if any(job.error is None for job in jobs) else None
    for job in jobs:
        begun = time.monotonic()
        if job.error is not None or job.target is None or upscaler is None:
            yield Done(job, job.error)
            continue
        try:
            picture = read_picture(job.source)
            size = upscaler.output_size(picture, options.scale)
            check_target(job.target, size, picture.alpha is not None)
            restored = upscaler.restore(picture, options, lambda done, total, job=job: on_tile(job, done, total))
            made_by = {"version": version, **upscaler.made_by(options)}
            write_picture(restored.to_pil(), job.target, made_by)
            yield Done(job, None, size, time.monotonic() - begun, made_by)
        except (AddSRError, OSError, ValueError, RuntimeError, MemoryError) as error:
            yield Done(job, error, seconds=time.monotonic() - begun)
