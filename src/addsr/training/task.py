"""What the loop knows of a training task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from addsr.data.draws import Draws

Batch = Mapping[str, Any]  # tensors `hr`, `lr`, `place`; a list of strings `prompt`


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


@dataclass(frozen=True)
class Moment:
    """What the losses of a batch depend on beside the batch.

    Attributes:
        progress: of the run, 0 to 1, for what sets in or fades out.
        draws: the random numbers.
        mean: the mean of a tensor over all processes, for what must be equal on all.
    """

    progress: float
    draws: Draws
    mean: Callable[[torch.Tensor], torch.Tensor] = lambda value: value


class Task(Protocol):
    """A task owns its networks and says what each *player* (an optimiser's side: generator, discriminator) minimises.

    Attributes:
        networks: every network that a checkpoint needs, by name.
        averaged: names of the networks of which the loop keeps an EMA.
    """

    networks: dict[str, nn.Module]
    averaged: tuple[str, ...]

    def players(self) -> dict[str, Player]:
        """The players by name, in the order in which their losses are asked for on each batch."""
        ...

    def losses(self, player: str, batch: Batch, moment: Moment) -> dict[str, torch.Tensor] | None:
        """Named scalars; `total` is what the player minimises, the others are logged. None skips the player.

        All players' losses of a batch are asked for, in order, before any of them is updated.
        """
        ...
