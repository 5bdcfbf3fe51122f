"""Which pictures a run restores, and which file each becomes; what cannot be done is known before anything is computed."""

import contextlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from addsr.errors import AddSRError, InputImageError, OutputError
from addsr.image.read import ENDINGS, OTHER_ENDINGS
from addsr.image.write import FORMATS


@dataclass(frozen=True)
class Job:
    """One input and where its result goes.

    Attributes:
        source, target: the two files; no target where the input cannot be read.
        error: why it cannot be done.
        skipped: the result is there.
        below: the input's folder, from the one that was given.
    """

    source: Path
    target: Path | None
    error: AddSRError | None = None
    skipped: bool = False
    below: Path = Path()

    @property
    def to_do(self) -> bool:
        """Whether there is something to restore."""
        return self.error is None and not self.skipped


def plan(
    inputs: Sequence[Path],
    out: Path | None,
    suffix: str,
    ext: str,
    overwrite: bool,
    skip_existing: bool = False,
    *,
    recursive: bool = False,
    written: bool = True,
) -> list[Job]:
    """The jobs of a run, in order. What a folder holds that looks like a picture and gets no job is said by a warning.

    Args:
        inputs: files and folders.
        out: a file if there is one input file and `out` has a picture's ending, else a folder, which gets the inputs'
            subfolders; None: beside each input.
        suffix: goes between the stem and the ending.
        ext: `auto` (tif for TIFF, else png), or `png`, `jpg`, `webp`, `tif`.
        overwrite: allow existing targets (never the input itself).
        skip_existing: leave out inputs whose target is there.
        recursive: take the pictures of subfolders too, but for hidden and linked ones.
        written: else nothing will be, so no folder is made and whether a target may be written is not asked.

    Raises:
        OutputError: if the output folder cannot be made or written to, or `out` has an ending that cannot be written.
    """
    single = None
    if out is not None and not out.is_dir():
        if out.suffix.lower() in FORMATS and len(inputs) == 1 and not inputs[0].is_dir():
            single = out
        else:
            _check_folder_name(out)
    into_inputs = out is None or any(path.is_dir() and _same(path, out) for path in inputs)
    jobs = list(_sources(inputs, out, suffix if into_inputs else "", recursive))
    if out is not None and written:
        _make_folder(out if single is None else out.parent)
    inputs_taken = _files(job.source for job in jobs if job.error is None)
    planned, taken = [], set[str]()
    for job in jobs:
        if job.error is None:
            folder = job.source.parent if out is None else out / job.below
            target = single or _target(job.source, folder, suffix, ext, taken)
            taken.add(str(target).casefold())
            skipped = skip_existing and target.is_file() and inputs_taken.isdisjoint(_files([target]))
            asked = written and not skipped
            error = _conflict(target, inputs_taken, overwrite) if asked else None
            job = replace(job, target=target, error=error, skipped=skipped)
        planned.append(job)
    return planned


def _check_folder_name(out: Path) -> None:
    """Raises OutputError for what is meant to be a file, as its ending says, but cannot be one."""
    if str(out) == "-":
        raise OutputError("-: results go to files, not to standard output")
    if out.suffix.lower() in (ENDINGS | OTHER_ENDINGS) - set(FORMATS):
        raise OutputError(f"{out}: cannot write {out.suffix}; use {', '.join(FORMATS)}")


def _sources(inputs: Sequence[Path], out: Path | None, made_suffix: str, recursive: bool) -> Iterator[Job]:
    """A job without target for each picture, each once; folders leave out results of an earlier run beside them."""
    seen = set[Path]()
    for path in inputs:
        for job in _jobs_of(path, out, made_suffix, recursive):
            if job.error is not None:
                yield job
            elif job.source.resolve() not in seen:
                seen.add(job.source.resolve())
                yield job


def _jobs_of(path: Path, out: Path | None, made_suffix: str, recursive: bool) -> list[Job]:
    """Of one input: its pictures, and what cannot be read."""
    try:
        if not path.is_dir():
            return [Job(path, None) if path.exists() else _no_job(path, "no such file or folder")]
    except OSError as error:
        return [_unreadable(path, error)]
    jobs = list[Job]()
    for name, below, _ in os.walk(path, onerror=lambda error: jobs.append(_unreadable(path, error))):
        folder = Path(name)
        try:
            files = _pictures(folder, out, made_suffix, entered=recursive)
            jobs.extend(Job(file, None, below=folder.relative_to(path)) for file in files)
        except OSError as error:
            jobs.append(_unreadable(folder, error))
        below[:] = sorted(n for n in below if recursive and not n.startswith(".") and not _same(folder / n, out))
    return jobs or [_no_job(path, "no picture in the folder")]


def _no_job(path: Path, why: str) -> Job:
    return Job(path, None, InputImageError(f"{path}: {why}"))


def _unreadable(path: Path, error: OSError) -> Job:
    return _no_job(Path(error.filename or path), f"cannot be read ({error.strerror or error})")


def _pictures(folder: Path, out: Path | None, made_suffix: str, *, entered: bool) -> list[Path]:
    """What is to be restored of a folder; what else looks like a picture is said.

    Raises:
        OSError: if the folder cannot be read.
    """
    found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    files = _without_aliases([p for p in found if p.suffix.lower() in ENDINGS and p.is_file()])
    files, results = _without_results(files, made_suffix)
    others = [p for p in found if p.suffix.lower() in OTHER_ENDINGS and p.is_file()]
    closed = [
        p for p in found if p.is_dir() and (p.is_symlink() or not entered) and not _same(p, out) and _has_pictures(p)
    ]
    _say_left_out(
        folder,
        {
            "named like results of an earlier run": results,
            "of a kind that is not read": others,
            "in linked folders, which are not entered": [p for p in closed if p.is_symlink()],
            "in subfolders, which --recursive enters": [p for p in closed if not p.is_symlink()],
        },
    )
    return files


def _without_aliases(files: list[Path]) -> list[Path]:
    """Without links to others of them, whose results would bear the link's name."""
    real = {path.resolve() for path in files if not path.is_symlink()}
    return [path for path in files if not path.is_symlink() or path.resolve() not in real]


def _without_results(files: list[Path], made_suffix: str) -> tuple[list[Path], list[Path]]:
    """Those to restore, and what an earlier run has made of them, by their names."""
    stems = {path.stem for path in files}
    kept, results = list[Path](), list[Path]()
    for path in files:
        made = bool(made_suffix) and not stems.isdisjoint(_sources_of(path.stem, made_suffix))
        (results if made else kept).append(path)
    return kept, results


def _same(folder: Path, out: Path | None) -> bool:
    return out is not None and folder.resolve() == out.resolve()


def _has_pictures(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in ENDINGS for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return False


def _say_left_out(folder: Path, pictures: dict[str, list[Path]]) -> None:
    """A warning for each reason for which some stay as they are; it names the first."""
    for why, left_out in pictures.items():
        if left_out:
            more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
            warnings.warn(f"{folder}: pictures left out, {why}: {left_out[0].name}{more}", stacklevel=2)


def _sources_of(stem: str, suffix: str) -> set[str]:
    """The stems of inputs whose result `_target` may have given this stem, with the suffix or the one of another scale."""
    ends = r"_x\d+(\.\d+)?" if re.fullmatch(r"_x\d+(\.\d+)?", suffix) else re.escape(suffix)
    found = re.fullmatch(rf"(.+?){ends}", stem)
    told_apart = "|".join([r"\d+", *(ending[1:] for ending in ENDINGS)])
    return set() if found is None else {found[1], re.sub(rf"_({told_apart})$", "", found[1])}


def _target(source: Path, folder: Path, suffix: str, ext: str, taken: set[str]) -> Path:
    """`{stem}{suffix}.{ext}`; where another input has taken that, the input's own ending joins the stem."""
    if ext == "auto":
        ext = "tif" if source.suffix.lower() in (".tif", ".tiff") else "png"
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
    """Why `target` may not be written, or None: then its folder is there.

    No input of the run is ever replaced, whichever picture it belongs to.
    """
    try:
        if not inputs.isdisjoint(_files([target])):
            return OutputError(f"{target}: the output would be an input itself; choose another name or folder")
        if target.is_dir():
            return OutputError(f"{target}: is a folder")
        if target.exists() and not overwrite:
            return OutputError(f"{target}: exists already; use --overwrite to replace it, or --skip-existing")
        _make_folder(target.parent)
    except OutputError as error:
        return error
    except OSError as error:
        return OutputError(f"{target}: cannot be written ({error.strerror or error})")
    return None
