"""The training loop: one for all tasks. Its clock counts images; it knows players and losses, not what they mean."""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from addsr.data.draws import Draws
from addsr.errors import DataError, TrainingError
from addsr.runtime.device import is_out_of_memory
from addsr.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    remove_checkpoint,
    save_checkpoint,
)
from addsr.training.ema import EMA
from addsr.training.processes import Processes, make_accelerator
from addsr.training.report import Reporter
from addsr.training.settings import one_of, ranged
from addsr.training.task import Batch, Moment, Player, Task

PRECISIONS = ("fp32", "bf16")
# what torch says of processes that it started to load data
_LOST_WORKER = ("DataLoader worker (pid", "unable to allocate shared memory", "out of shared memory")


@dataclass(frozen=True)
class LoopSettings:
    """Length, optimiser and rhythm.

    Attributes:
        images: length of the run.
        batch: images an update, over all processes.
        accumulate: parts that the batch is taken in, at least (as far as it has pictures), to spare memory; processes
            share them.
        rate, final_rate, warmup: peak learning rate, after a linear warm-up over `warmup` images; then a cosine down to
            `final_rate` of it.
        weight_decay, betas: of AdamW; AddSR's discriminator has 0 and 0.99.
        clip: largest norm of a player's gradient; 0 for no limit.
        ema: decay of the averaged weights.
        report, save: images between reports and between checkpoints.
        keep: checkpoints kept.
        seed: of data, noise and everything else random.
        minutes: the run must end within this time, fully annealed: progress, and with it the learning rate, follows
            whichever of images and minutes is further on; 0 for no limit. A run with it does not repeat bit by bit.
        max_minutes: the run is broken off after this time, to be resumed; 0 for never.
        precision: `fp32`, or autocast to `bf16`.
        gradient_checkpointing: compute the activations of the networks' blocks anew in the backward pass instead of keeping
            them (but for a discriminator's): about a third more time, a fraction of the memory.
        workers: processes that make pairs.
    """

    images: int
    batch: int = 16
    accumulate: int = 1
    rate: float = 6e-4
    final_rate: float = 0.02
    warmup: int = 1600
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999
    report: int = 800
    save: int = 8000
    keep: int = 2
    seed: int = 0
    minutes: float = 0.0
    max_minutes: float = 0.0
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        one_of("loop.precision", self.precision, PRECISIONS)
        for name in ("images", "batch", "accumulate", "report", "save", "keep"):
            ranged(f"loop.{name}", getattr(self, name), 1, None)
        ranged("loop.seed", self.seed, 0, 2**63 - 1)
        for name in ("rate", "warmup", "weight_decay", "clip", "minutes", "max_minutes", "workers"):
            ranged(f"loop.{name}", getattr(self, name), 0, None)
        for name in ("final_rate", "ema"):
            ranged(f"loop.{name}", getattr(self, name), 0, 1)
        for beta in self.betas:
            ranged("loop.betas", beta, 0, 0.999999)


class Measure(Protocol):
    """Looks at the networks' averages after each checkpoint, as `addsr.training.validation.HeldOut` does."""

    def __call__(self, images: int, averages: dict[str, EMA]) -> dict[str, float]:
        """Measures by name; a checkpoint is kept only if they are finite."""
        ...

    def has(self, images: int) -> bool:
        """Whether it looked at the checkpoint after so many images."""
        ...


def rate_at(images: int, progress: float, settings: LoopSettings) -> float:
    """Learning rate after `images` images, at `progress` 0..1."""
    warm = min(1.0, (images + settings.batch) / max(settings.warmup, 1))
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))
    return settings.rate * warm * (settings.final_rate + (1 - settings.final_rate) * cosine)


def parts_of(settings: LoopSettings, processes: int) -> int:
    """In how many parts each process takes its share of the batch: the fewest, equal ones that make `accumulate` of all.

    Raises:
        TrainingError: if the batch cannot be shared out equally.
    """
    share, rest = divmod(settings.batch, processes)
    if rest:
        raise TrainingError(f"loop.batch is {settings.batch}; it must be divisible by the {processes} processes")
    wanted = min(settings.accumulate, settings.batch)
    return next(parts for parts in range(1, share + 1) if share % parts == 0 and parts * processes >= wanted)


class Loop:
    """Trains `task` on `pairs` and writes reports and checkpoints to the folder `out`.

    Args:
        task, pairs, settings, out: what to train, on what, how, and where to.
        accelerator: of `make_accelerator`; the task's networks are moved to its device.
        measure: called in the main process after each checkpoint with the images seen and the averages of the networks,
            and at a resume for what a killed run did not come to.
        quiet: no progress on stderr.

    Attributes:
        damaged: names of photos that turned out not to be decodable: what this process met, at the end what any did.
    """

    def __init__(
        self,
        task: Task,
        pairs: Dataset[dict[str, Any]],
        settings: LoopSettings,
        out: Path,
        *,
        accelerator: Any = None,
        measure: Measure | None = None,
        quiet: bool = True,
    ) -> None:
        self.task, self.pairs, self.settings, self.out, self.measure = task, pairs, settings, out, measure
        self.accelerator = accelerator or make_accelerator()
        self.processes = Processes(self.accelerator)
        self.parts = parts_of(settings, self.accelerator.num_processes)
        network: Any
        for network in task.networks.values():
            network.to(self.accelerator.device)
            # diffusers' models alone, and no discriminator: its parameters are frozen for the other player's turn, and no
            # longer when that goes backward
            if settings.gradient_checkpointing and getattr(network, "_supports_gradient_checkpointing", False):
                network.enable_gradient_checkpointing()
        self.processes.share(task.networks.values())
        self.players = task.players()
        self.optimizers = {name: self._optimizer(player) for name, player in self.players.items()}
        self.averages = {name: EMA(task.networks[name], settings.ema) for name in task.averaged}
        self.images, self.seconds = 0, 0.0
        self.damaged: set[str] = set()
        out.mkdir(parents=True, exist_ok=True)
        self.reporter = Reporter(out, settings.images, quiet=quiet, main=self.accelerator.is_main_process)

    def _optimizer(self, player: Player) -> Any:
        betas = player.betas or self.settings.betas
        fused = self.accelerator.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            player.parameters, betas=betas, weight_decay=self.settings.weight_decay, fused=fused
        )
        return self.accelerator.prepare(optimizer)

    def resume(self) -> int:
        """Continue from the last checkpoint of `out`, if there is one; the images that it had seen."""
        path = latest_checkpoint(self.out)
        if path is not None:
            state = load_checkpoint(path, self.task.networks, self.averages, self.optimizers)
            self.images, self.seconds = state["images"], state["seconds"]
            for name, player in self.players.items():  # what the settings say now, not what they were
                for group in self.optimizers[name].param_groups:
                    group["betas"] = player.betas or self.settings.betas
                    group["weight_decay"] = self.settings.weight_decay
        mean = self.processes.mean(float(self.images))
        if self.processes.agreed(abs(mean - self.images) > 0.5 + 1e-6 * self.images):  # float32 rounds
            raise TrainingError(f"{self.out}: the processes find different checkpoints in it; all must see one folder")
        return self.images

    def run(self) -> bool:
        """Train to the end; True if it was reached, False if `max_minutes` were over first.

        Raises:
            TrainingError: at the first loss, weight or measure that is not finite, where memory does not suffice, or where a
                process that makes pairs is lost; the last checkpoint stays.
        """
        try:
            finished = self._run()
            self.damaged = set().union(*self.processes.all_of(self.damaged))
            return finished
        except (RuntimeError, MemoryError) as error:
            if any(words in str(error) for words in _LOST_WORKER):
                message = (
                    "a process that makes pairs was lost, for want of memory (or of shared one: docker run --shm-size)"
                )
                advice = "take fewer (--set loop.workers=N, 0 for none) that keep less (--set pairs.memory=MEGABYTES)"
            elif is_out_of_memory(error):
                message, advice = "out of memory", "take each batch in more parts (--set loop.accumulate=N)"
                advice += (
                    ", keep less (--set loop.gradient_checkpointing=true), or take smaller crops (--set pairs.crop=N)"
                )
            else:
                raise
            kept = latest_checkpoint(self.out)
            raise TrainingError(f"{message}: {advice}; last good checkpoint: {kept or 'none yet'}") from error

    def _run(self) -> bool:
        settings, begun, before = self.settings, time.monotonic(), self.seconds
        over = self.images > 0 and 0 < settings.minutes <= self.seconds / 60  # resumed, to write its model
        if self.processes.agreed(over):
            return True
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        saved = self.images
        self.reporter.rewind(self.images)
        if self.images:
            self._measure()
        with self.reporter:
            for parts in self._iterations():
                progress = self.images / settings.images
                if settings.minutes:
                    # the processes' clocks differ, but what they compute must not
                    seconds = self.processes.mean(self.seconds)
                    progress = max(progress, seconds / 60 / settings.minutes)
                for name, value in self.step(parts, min(progress, 1.0)).items():
                    sums[name] += value
                    counts[name] += 1
                self.images += settings.batch
                spent = time.monotonic() - begun
                self.seconds = before + spent
                done = self.images >= settings.images or 0 < settings.minutes <= self.seconds / 60
                stop = done or 0 < settings.max_minutes <= spent / 60
                if settings.minutes or settings.max_minutes:  # the clocks of the processes differ
                    done, stop = self.processes.agreed(done), self.processes.agreed(stop)
                self.reporter.advance(self.images, spent, self._shares(spent))
                if self._due(settings.report) or stop:
                    self.reporter.report(self.images, self.seconds, self._means(sums, counts))
                    sums.clear()
                    counts.clear()
                if self._due(settings.save) or stop:
                    self.save()
                    saved = self.images
                if stop:
                    return done
            if saved < self.images:
                self.save()
        return True

    def _shares(self, spent: float) -> list[float]:
        """How much is over, 0..1, of what ends the run or breaks it off: images, `minutes` and `max_minutes`."""
        settings = self.settings
        shares = [self.images / settings.images]
        shares += [self.seconds / 60 / settings.minutes] if settings.minutes else []
        return shares + ([spent / 60 / settings.max_minutes] if settings.max_minutes else [])

    def step(self, parts: list[Batch], progress: float) -> dict[str, float]:
        """One update of every player from the accumulated parts of a batch: the scalars that the task named."""
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)  # a value may be of some parts only
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        active: set[str] = set()
        for part in parts:
            draws = Draws(self.settings.seed, self.images, part["place"].tolist(), self.accelerator.device)
            moment = Moment(progress, draws, self.processes.mean_of)
            for player in self.players:
                with self._autocast():
                    losses = self.task.losses(player, part, moment)
                if losses is None:
                    continue
                active.add(player)
                self.accelerator.backward(losses["total"] / len(parts))
                for name, loss in losses.items():
                    sums[f"{player}/{name}"] += loss.item()
                    counts[f"{player}/{name}"] += 1
        values = {name: total / counts[name] for name, total in sums.items()}
        for player in self.players:
            if player in active:
                parameters = self.players[player].parameters
                self.processes.average_gradients(parameters)
                norm = self.accelerator.clip_grad_norm_(parameters, self.settings.clip or math.inf)
                values[f"{player}/gradient"] = float(norm)
        self._check(values)  # before any weight moves
        for player in self.players:
            if player in active:
                for group in self.optimizers[player].param_groups:
                    group["lr"] = rate_at(self.images, progress, self.settings) * self.players[player].rate_factor
                self.optimizers[player].step()
        for name, average in self.averages.items():
            average.update(self.task.networks[name])
        return values

    def _means(self, sums: dict[str, float], counts: dict[str, int]) -> dict[str, float]:
        """Of each named value, over all processes."""
        total: dict[str, float] = defaultdict(float)
        count: dict[str, int] = defaultdict(int)
        for their_sums, their_counts in self.processes.all_of((dict(sums), dict(counts))):
            for name, value in their_sums.items():
                total[name] += value
                count[name] += their_counts[name]
        return {name: total[name] / count[name] for name in total}

    def _autocast(self) -> torch.autocast:
        # Remembered, weights that were cast where nothing needs a gradient would get none later (torch before 2.10).
        half = self.settings.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=half, cache_enabled=False)

    def _check(self, values: dict[str, float]) -> None:
        """A loss, gradient or weight that is not finite in one process stops all of them."""
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if self.processes.agreed(bool(bad)):
            what = f"{bad[0]} is {values[bad[0]]}" if bad else "a value of another process is not finite"
            kept = latest_checkpoint(self.out)
            raise TrainingError(
                f"training stopped after {self.images} images: {what}; last good checkpoint: {kept or 'none yet'}"
            )

    def _due(self, every: int) -> bool:
        return self.images % every < self.settings.batch

    def _iterations(self) -> Iterator[list[Batch]]:
        """From the current image on: the parts of this process's share of each batch, on the device."""
        settings, accelerator = self.settings, self.accelerator
        size = settings.batch // accelerator.num_processes // self.parts

        def places() -> Iterator[list[int]]:
            for start in range(self.images, settings.images, settings.batch):
                for part in range(self.parts):
                    first = start + (part * accelerator.num_processes + accelerator.process_index) * size
                    yield list(range(first, first + size))

        ahead, pinned = 4 if settings.workers else None, accelerator.device.type == "cuda"
        parts: list[Batch] = []
        sampler = _Places(places)
        loader = DataLoader(
            self.pairs,
            batch_sampler=sampler,
            num_workers=settings.workers,
            prefetch_factor=ahead,
            pin_memory=pinned,
        )
        for batch in _plainly(loader):
            self.damaged.update(name for names in batch.get("damaged", ()) for name in names.splitlines())
            parts.append(
                {  # without waiting from pinned memory alone: elsewhere it may be gone before it is read (MPS)
                    key: value.to(accelerator.device, non_blocking=pinned) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
            )
            if len(parts) == self.parts:
                yield parts
                parts = []

    def save(self) -> None:
        """A checkpoint, by the main process; of a ruined model none, so that the last good one stays."""
        networks, averages = self.task.networks, self.averages
        held = {**networks, **{f"averaged {name}": average.module for name, average in averages.items()}}
        self._check({f"a weight of {name}": _largest(network) for name, network in held.items()})
        if self.accelerator.is_main_process:  # one more than are kept, until this one is measured
            state, keep = {"seconds": self.seconds}, self.settings.keep + 1
            save_checkpoint(self.out, self.images, networks, averages, self.optimizers, state, keep)
        self._measure()
        self.accelerator.wait_for_everyone()

    def _measure(self) -> None:
        """Measure the newest checkpoint, unless it was; one of a ruined model goes."""
        measures = {}
        if self.accelerator.is_main_process:
            if self.measure is not None and not self.measure.has(self.images):
                measures = self.measure(self.images, self.averages)
            newest = latest_checkpoint(self.out)
            if all(map(math.isfinite, measures.values())):
                prune_checkpoints(self.out, self.settings.keep)
            elif newest is not None:
                remove_checkpoint(newest)
        self._check(measures)


@torch.no_grad()
def _largest(network: nn.Module) -> float:
    """Magnitude of a weight; not a number where any weight is none."""
    return torch.stack([parameter.abs().max().float() for parameter in network.parameters()]).max().item()


class _Places:
    """A batch sampler from a function that starts its iterator."""

    def __init__(self, start: Callable[[], Iterator[list[int]]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[list[int]]:
        return self._start()


def _plainly(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches; a worker's error about the data without the traceback that torch writes into its message."""
    try:
        yield from batches
    except DataError as error:
        last = str(error).strip().splitlines()[-1]
        raise DataError(re.sub(r"^[\w.]+Error: ", "", last)) from error
