"""What the loop knows of a training task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Player:
    """An optimiser's side.

    Attributes:
        parameters: what it trains.
        rate_factor: its learning rate in units of the loop's.
        betas: of its AdamW; None for the loop's.
    """

    parameters: list[nn.Parameter]
    rate_factor: float = 1.0
    betas: tuple[float, float] | None = None


class Task(Protocol):
    """A task owns its networks and says what each *player* (an optimiser's side: generator, discriminator) minimises.

    Attributes:
        networks: every network that a checkpoint needs, by name.
        averaged: names of the networks of which the loop keeps an EMA.
    """

    networks: dict[str, nn.Module]
    averaged: tuple[str, ...]

    def players(self) -> dict[str, Player]:
        """The players by name, in the order of their updates within an iteration."""
        ...

    def losses(
        self, player: str, batch: Batch, progress: float, generator: torch.Generator
    ) -> dict[str, torch.Tensor] | None:
        """Named scalars; `total` is what the player minimises, the others are logged. None skips the player.

        `progress` of the run, 0 to 1, is for what sets in or fades out.
        """
        ...
