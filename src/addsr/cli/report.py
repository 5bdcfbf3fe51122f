"""What `addsr upscale` says: sentences on stderr and, with --json, one object a picture on stdout."""

import json
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from addsr.errors import AddSRError

if TYPE_CHECKING:
    from rich.console import Console

    from addsr.batch import Done
    from addsr.evaluation.plan import Expected
    from addsr.jobs import Job


class Report:
    """Tells what becomes of the pictures, and counts them.

    Args:
        as_json: print a JSON object a picture on stdout, in place of the sentences of those that went well.
        debug: show the tracebacks of errors.
    """

    def __init__(self, *, as_json: bool, debug: bool) -> None:
        self.as_json, self.debug = as_json, debug
        self.restored, self.skipped, self.failed = 0, 0, 0
        self._pixels, self._seconds = 0, 0.0

    @cached_property
    def console(self) -> "Console":
        """Standard error; made when first used, as rich is slow to import."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    def status(self, text: str) -> AbstractContextManager[Any]:
        """A line (on a terminal) for as long as something without a measure lasts."""
        return self.console.status(text)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Python's warnings are said in our way."""
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_args, **_more: self.warn(str(message))
            yield

    def warn(self, text: str) -> None:
        """What the user may want to know, and nothing fails by."""
        self.console.print(f"warning: {text}", style="yellow", markup=False)

    def wrong(self, error: Exception, job: "Job | None" = None) -> None:
        """One sentence."""
        self.console.print(f"error: {_sentence(error, job)}", style="red", markup=False)
        if self.debug:
            self.console.print("".join(traceback.format_exception(error)), markup=False)

    def planned(self, job: "Job", expected: "Expected") -> None:
        """What a picture would take."""
        if self.as_json:
            _print_row({"input": str(job.source), **expected.row()})
        else:
            print(f"{job.source}: {expected.text()}", flush=True)

    def unplanned(self, job: "Job", error: Exception) -> None:
        """Why a picture would fail."""
        self.failed += 1
        self.wrong(error, job)
        if self.as_json:
            _print_row(_failure(job, error))

    def progress(self, total: int) -> "Bar":
        """A progress bar of `total` pictures, on a terminal."""
        return Bar(self.console, total)

    def done(self, done: "Done") -> None:
        """What became of a picture."""
        job = done.job
        if done.error is not None:
            self.failed += 1
            self.wrong(done.error, job)
        elif job.skipped:
            self.skipped += 1
        else:
            self.restored += 1
            self._pixels += done.size[0] * done.size[1]
            self._seconds += done.seconds
        if self.as_json:
            _print_row(_row(done))
        elif done.error is None:
            was_there = " (exists already: skipped)" if job.skipped else ""
            self.console.print(f"{job.source} -> {job.target}{was_there}", markup=False)

    def interrupted(self) -> None:
        """The last line of a run that was broken off."""
        more = f" after {_counted(self.restored)}; --skip-existing goes on from there" if self.restored else ""
        self.console.print(f"interrupted{more}", style="red")

    def close(self) -> None:
        """The last line of a run."""
        counts = ((self.skipped, "skipped"), (self.failed, "failed"))
        others = "".join(f", {count} {what}" for count, what in counts if count)
        work = f"{self._pixels / 1e6:.2f} megapixels in {self._seconds:.2f} s"
        self.console.print(f"{_counted(self.restored)}{others}, {work}")


class Bar:
    """A context in which a line shows the pictures done and the tiles of the one at work.

    Args:
        console: where it is shown, if that is a terminal.
        total: pictures.
    """

    def __init__(self, console: "Console", total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # else rows for a file or pipe would go to the console's stderr
        )
        self._pictures = self._bar.add_task("pictures", total=total)
        self._tiles = self._bar.add_task("tiles", visible=False)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def on_tile(self, job: "Job", done: int, total: int) -> None:
        """Some of a picture's tiles are done."""
        self._bar.update(self._tiles, description=job.source.name, completed=done, total=total, visible=total > 1)

    def advance(self) -> None:
        """A picture is done."""
        self._bar.advance(self._pictures)


def _counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _print_row(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def _row(done: "Done") -> dict[str, Any]:
    """One picture as --json prints it."""
    output = {} if done.job.target is None else {"output": str(done.job.target)}
    if done.error is not None:
        return _failure(done.job, done.error) | output
    if done.job.skipped:
        return {"input": str(done.job.source), "status": "skipped", **output}
    return {
        "input": str(done.job.source),
        "status": "ok",
        **output,
        "width": done.size[1],
        "height": done.size[0],
        "seconds": round(done.seconds, 3),
        **(done.made_by or {}),
    }


def _failure(job: "Job", error: Exception) -> dict[str, Any]:
    return {"input": str(job.source), "status": "error", "error": _sentence(error, job)}


def _sentence(error: Exception, job: "Job | None") -> str:
    """What went wrong, and with which picture; where the error is none of ours, its kind and first line."""
    text = str(error) if isinstance(error, AddSRError) else f"{type(error).__name__}: {error}".splitlines()[0]
    if job is None or str(job.source) in text or str(job.target) in text:
        return text
    return f"{job.source}: {text}"
