"""What the loop knows of a training task."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

Batch = Mapping[str, torch.Tensor]


class Task(Protocol):
    """A task owns its networks and says what each *player* (an optimiser's side: generator, discriminator) minimises.

    Attributes:
        networks: every network that a checkpoint needs, by name.
        averaged: names of the networks of which the loop keeps an EMA.
    """

    networks: dict[str, nn.Module]
    averaged: tuple[str, ...]

    def players(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each player, in the order of their updates within an iteration."""
        ...

    def losses(
        self, player: str, batch: Batch, progress: float, generator: torch.Generator
    ) -> dict[str, torch.Tensor] | None:
        """Named scalars; `total` is what the player minimises, the others are logged. None skips the player.

        `progress` of the run, 0 to 1, is for what sets in or fades out.
        """
        ...
