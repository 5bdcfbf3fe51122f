"""The training loop: one for all tasks. Its clock counts images; it knows players and losses, not what they mean."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset, Subset

from addsr.training.ema import EMA
from addsr.training.task import Batch, Task


@dataclass(frozen=True)
class LoopSettings:
    """Length, optimiser and rhythm.

    Attributes:
        images: length of the run.
        batch: images an iteration.
        rate: peak learning rate: linear warm-up over `warmup` images, then a cosine down to `final_rate` of it.
        weight_decay, betas: of AdamW.
        clip: largest norm of a player's gradient.
        ema: decay of the averaged weights.
        report, save: images between reports and between checkpoints.
        seed: of data, noise and everything else random.
        minutes: the run must end within this time: progress, and with it the learning rate, follows whichever of
            images and minutes is further on, so that the run anneals fully; 0 for no limit.
    """

    images: int
    batch: int = 16
    rate: float = 6e-4
    final_rate: float = 0.02
    warmup: int = 1600
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999
    report: int = 800
    save: int = 8000
    seed: int = 0
    minutes: float = 0


def rate_at(images: int, progress: float, settings: LoopSettings) -> float:
    """Learning rate after `images` images, at `progress` 0..1."""
    warm = min(1.0, (images + settings.batch) / max(settings.warmup, 1))
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress))
    return settings.rate * warm * (settings.final_rate + (1 - settings.final_rate) * cosine)


def batches(pairs: Dataset[dict[str, torch.Tensor]], settings: LoopSettings) -> Iterator[Batch]:
    """The first `images` pairs in batches, made by one worker beside the trainer."""
    wanted = Subset(pairs, range(settings.images))
    yield from DataLoader(wanted, settings.batch, num_workers=1, prefetch_factor=4, drop_last=True)


class Loop:
    """Trains `task` on `pairs` and writes `stats.jsonl` and the networks' weights to the folder `out`.

    Args:
        task, pairs, settings, out: what to train, on what, how, and where to.
        on_save: called after each checkpoint with the images seen and the averages of the networks.
    """

    def __init__(
        self,
        task: Task,
        pairs: Dataset[dict[str, torch.Tensor]],
        settings: LoopSettings,
        out: Path,
        on_save: Callable[[int, dict[str, EMA]], None] | None = None,
    ) -> None:
        self.task, self.pairs, self.settings, self.out, self.on_save = task, pairs, settings, out, on_save
        self.players = task.players()
        self.optimizers = {
            name: torch.optim.AdamW(
                player.parameters,
                betas=player.betas or settings.betas,
                weight_decay=settings.weight_decay,
                fused=True,
            )
            for name, player in self.players.items()
        }
        self.averages = {name: EMA(task.networks[name], settings.ema) for name in task.averaged}
        out.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Raises FloatingPointError at the first loss that is not finite; the last checkpoint stays."""
        settings, begun = self.settings, time.monotonic()
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        images = 0
        for batch in batches(self.pairs, settings):
            progress = images / settings.images
            if settings.minutes:
                progress = max(progress, (time.monotonic() - begun) / 60 / settings.minutes)
            for name, value in self.step(batch, images, min(progress, 1.0)).items():
                sums[name] += value
                counts[name] += 1
            images += settings.batch
            spent = (time.monotonic() - begun) / 60
            stop = bool(settings.minutes) and spent >= settings.minutes
            if images % settings.report < settings.batch or stop:
                means = {name: round(sums[name] / counts[name], 5) for name in sums}
                self.report({"images": images, "minutes": round(spent, 2), **means})
                sums.clear()
                counts.clear()
            if images % settings.save < settings.batch or stop:
                self.save(images)
            if stop:
                return
        self.save(images)

    def step(self, batch: Batch, images: int, progress: float) -> dict[str, float]:
        """One update of every player."""
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + images)
        values: dict[str, float] = {}
        for player, optimizer in self.optimizers.items():
            losses = self.task.losses(player, batch, progress, generator)
            if losses is None:
                continue
            if not torch.isfinite(losses["total"]):
                raise FloatingPointError(f"{player}: the loss is {losses['total'].item()} after {images} images")
            for group in optimizer.param_groups:
                group["lr"] = rate_at(images, progress, self.settings) * self.players[player].rate_factor
            optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.settings.clip)
            optimizer.step()
            values |= {f"{player}/{name}": loss.item() for name, loss in losses.items()}
            values[f"{player}/gradient"] = norm.item()
        for name, average in self.averages.items():
            average.update(self.task.networks[name])
        return values

    def report(self, row: dict[str, float]) -> None:
        with (self.out / "stats.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def save(self, images: int) -> None:
        """All networks, and the averages as NAME_ema, each replaced atomically."""
        weights = {name: network.state_dict() for name, network in self.task.networks.items()}
        weights |= {f"{name}_ema": average.module.state_dict() for name, average in self.averages.items()}
        for name, state in weights.items():
            part = self.out / f".{name}.part"
            save_file({k: v.contiguous() for k, v in state.items()}, part, {"images": str(images)})
            part.replace(self.out / f"{name}.safetensors")
        if self.on_save is not None:
            self.on_save(images, self.averages)
