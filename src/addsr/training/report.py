"""What a run tells while it goes on: `stats.jsonl`, TensorBoard where it is installed, progress on stderr."""

import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SHOWN = 4  # losses beside the bar


class Reporter:
    """A context manager around a run.

    Args:
        out: folder of the run.
        images: length of the run.
        quiet: no progress on stderr.
        main: whether this is the process that writes.
    """

    def __init__(self, out: Path, images: int, *, quiet: bool, main: bool) -> None:
        self.out, self.images, self.quiet, self.main = out, images, quiet or not main, main
        self._resumed = 0  # images
        self._first: tuple[int, float, Sequence[float]] | None = None  # what the first update was told
        self._pace = ""
        self._losses = ""
        self._progress: Any = None
        self._board: Any = None

    def __enter__(self) -> Self:
        if not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            console = Console(stderr=True)
            self._progress = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
            self._bar = self._progress.add_task("", total=1.0)
            if console.is_terminal:
                self._progress.start()
        if self.main and find_spec("tensorboard") is not None:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
            self._board = writer(self.out / "tensorboard", purge_step=self._resumed + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None and self._progress.console.is_terminal:
            self._progress.stop()
        if self._board is not None:
            self._board.close()

    def advance(self, images: int, seconds: float, shares: Sequence[float]) -> None:
        """The clock went on.

        Args:
            images: seen in all.
            seconds: since this process began.
            shares: how much is over, 0..1, of each thing that may end the run first.
        """
        if self._progress is None:
            return
        if self._first is None:
            self._first = (images, seconds, shares)
        first_images, first_seconds, first_shares = self._first
        self._pace = f"{images}/{self.images} images"
        if (passed := seconds - first_seconds) > 0:
            moved = [(share, share - first) for share, first in zip(shares, first_shares, strict=True) if share > first]
            left = min((max(0.0, 1 - share) * passed / way for share, way in moved), default=0.0)
            self._pace += f", {(images - first_images) / passed:.1f}/s, {_duration(left)} left"
        self._progress.update(self._bar, completed=max(shares), description=f"{self._pace} {self._losses}")

    def rewind(self, images: int) -> None:
        """Drop the rows after a checkpoint that a resumed run starts from: it will write them again."""
        self._resumed = images
        for name in ("stats.jsonl", "held.jsonl"):
            path = self.out / name
            if self.main and path.is_file():
                lines = path.read_text().splitlines()
                kept = [line for line in lines if line.endswith("}") and json.loads(line)["images"] <= images]
                if len(kept) < len(lines):
                    part = path.with_name(f".{name}.part")
                    part.write_text("".join(line + "\n" for line in kept))
                    part.replace(path)

    def report(self, images: int, seconds: float, means: dict[str, float]) -> None:
        """Mean values since the last report."""
        if not self.main:
            return
        row = {"images": images, "minutes": round(seconds / 60, 2)}
        row |= {name: round(value, 5) for name, value in means.items()}
        with (self.out / "stats.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in means.items():
                self._board.add_scalar(name, value, images)
        if self._progress is not None:
            shown = list(means.items())[:SHOWN]
            self._losses = " ".join(f"{name.split('/')[1]} {value:.3g}" for name, value in shown)
            if not self._progress.console.is_terminal:  # a log gets lines instead of a bar
                self._progress.console.print(f"{self._pace} {self._losses}", highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
