"""What a run tells while it goes on: `stats.jsonl`, TensorBoard where it is installed, progress on stderr."""

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self


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
        self._progress: Any = None
        self._board: Any = None

    def __enter__(self) -> Self:
        if not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("images, {task.fields[speed]:.1f}/s, left"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[losses]}"),
                console=Console(stderr=True),
            )
            self._bar = self._progress.add_task("", total=self.images, speed=0.0, losses="")
            self._progress.start()
        if self.main and find_spec("tensorboard") is not None:
            self._board = import_module("torch.utils.tensorboard").SummaryWriter(self.out / "tensorboard")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._board is not None:
            self._board.close()

    def advance(self, images: int) -> None:
        """The clock went on."""
        if self._progress is not None:
            speed = self._progress.tasks[0].speed or 0.0
            self._progress.update(self._bar, completed=images, speed=speed)

    def rewind(self, images: int) -> None:
        """Drop the rows after a checkpoint that a resumed run starts from: it will write them again."""
        for name in ("stats.jsonl", "held.jsonl"):
            path = self.out / name
            if self.main and path.is_file():
                lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
                kept = [line for line in lines if json.loads(line)["images"] <= images]
                path.write_text("".join(line + "\n" for line in kept))

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
            losses = " ".join(f"{name.split('/')[1]} {value:.3g}" for name, value in list(means.items())[:4])
            self._progress.update(self._bar, losses=losses)
