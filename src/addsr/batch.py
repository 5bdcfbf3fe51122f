"""A run over many files: which input becomes which output, and no failure stops the rest."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addsr.errors import AddSRError, InputImageError, OutputError
from addsr.image.read import ENDINGS, read_picture
from addsr.image.write import FORMATS, check_target, write_picture

if TYPE_CHECKING:
    from addsr.options import RestoreOptions
    from addsr.upscaler import Upscaler


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


def plan(
    inputs: Sequence[Path], out: Path | None, suffix: str, ext: str, overwrite: bool, *, written: bool = True
) -> list[Job]:
    """The jobs of a run, in order.

    Args:
        inputs: files and folders (their pictures, not those of subfolders).
        out: a file if there is one input file and `out` has a picture's ending, else a folder; None: beside each input.
        suffix: goes between the stem and the ending.
        ext: `auto` (tif for TIFF, else png), or `png`, `jpg`, `webp`, `tif`.
        overwrite: allow existing targets (never the input itself).
        written: else nothing will be, so no folder is made and whether a target may be written is not asked.

    Raises:
        OutputError: if the output folder cannot be made or written to, or `out` has an ending that cannot be written.
    """
    single = None
    if out is not None and len(inputs) == 1 and not inputs[0].is_dir() and not out.is_dir():
        if out.suffix.lower() in FORMATS:
            single = out
        elif out.suffix.lower() in ENDINGS:
            raise OutputError(f"{out}: cannot write {out.suffix}; use {', '.join(FORMATS)}")
    into_inputs = out is None or any(path.is_dir() and path.resolve() == out.resolve() for path in inputs)
    jobs = list(_sources(inputs, suffix if into_inputs else ""))
    if out is not None and written:
        _make_folder(out if single is None else out.parent)
    inputs_taken = _files(job.source for job in jobs if job.error is None)
    planned, taken = [], set[str]()
    for job in jobs:
        if job.error is None:
            target = single or _target(job.source, out, suffix, ext, taken)
            taken.add(str(target).casefold())
            job = Job(job.source, target, _conflict(target, inputs_taken, overwrite) if written else None)
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
                    files = [p for p in files if stems.isdisjoint(_sources_of(p.stem, made_suffix))]
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


def _sources_of(stem: str, suffix: str) -> set[str]:
    """The stems of inputs whose result `_target` may have given this stem, with the suffix or the one of another scale."""
    ends = r"_x\d+(\.\d+)?" if re.fullmatch(r"_x\d+(\.\d+)?", suffix) else re.escape(suffix)
    found = re.fullmatch(rf"(.+?){ends}", stem)
    told_apart = "|".join([r"\d+", *(ending[1:] for ending in ENDINGS)])
    return set() if found is None else {found[1], re.sub(rf"_({told_apart})$", "", found[1])}


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
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: the folder cannot be written to")


def _files(paths: Iterable[Path]) -> set[Path | tuple[int, int]]:
    """What files these are: by resolved path and, where they can be asked, by device and number (hard links)."""
    files = set[Path | tuple[int, int]]()
    for path in paths:
        files.add(path.resolve())
        with contextlib.suppress(OSError):
            status = path.stat()
            files.add((status.st_dev, status.st_ino))
    return files


def _conflict(target: Path, inputs: set[Path | tuple[int, int]], overwrite: bool) -> OutputError | None:
    """Why `target` may not be written, or None; no input of the run is ever replaced, whichever picture it belongs to."""
    try:
        if not inputs.isdisjoint(_files([target])):
            return OutputError(f"{target}: the output would be an input itself; choose another name or folder")
        if target.is_dir():
            return OutputError(f"{target}: is a folder")
        if target.exists() and not overwrite:
            return OutputError(f"{target}: exists already; use --overwrite to replace it")
        if not os.access(target.parent, os.W_OK):
            return OutputError(f"{target.parent}: the folder cannot be written to")
    except OSError as error:
        return OutputError(f"{target}: cannot be written ({error.strerror or error})")
    return None


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
        jobs: from `plan`.
        upscaler: the loaded model; None where every job has failed already.
        options: how to restore.
        version: of the package, for the metadata.
        overwrite: replace existing targets.
        on_tile: called with the job, tiles done and tiles in all.
    """
    made_by: dict[str, Any] = {}
    if upscaler is not None:  # before the clock starts: the hash of gigabytes belongs to no picture
        made_by = {"version": version, **upscaler.made_by(options)}

    def one(job: Job, upscaler: "Upscaler", target: Path) -> tuple[tuple[int, int], dict[str, Any]]:
        picture = read_picture(job.source)  # locals of this function: no picture outlives its turn
        size = upscaler.output_size(picture, options.scale)
        check_target(target, size, picture.alpha is not None)
        restored = upscaler.restore(picture, options, lambda done, total: on_tile(job, done, total))
        made = {**made_by, **restored.words}
        write_picture(restored.to_pil(), target, made, overwrite=overwrite)
        return size, made

    for job in jobs:
        begun = time.monotonic()
        if job.error is not None or job.target is None or upscaler is None:
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
