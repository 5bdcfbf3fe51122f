"""A task's discriminator: when it trains, what the generator loses by its scores, and what it learns itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from addsr.losses.adversarial import adaptive_weight
from addsr.training.task import Moment, Player

HEAD_START = 0.05  # progress by which the discriminator begins before it counts


class AdversarialSettings(Protocol):
    """What the settings of every task with an adversary have."""

    @property
    def adversarial(self) -> float: ...
    @property
    def adversarial_weight(self) -> str: ...
    @property
    def adversarial_from(self) -> float: ...


@dataclass(frozen=True)
class Adversary:
    """A discriminator and how it counts.

    Attributes:
        discriminator: whose parameters with a gradient train.
        weight: lambda.
        adaptive: lambda is the norm of the adversarial gradient in units of the other losses', else a plain factor.
        begins: progress of the run (0..1) from which it counts.
        generator_loss: of the scores of the generator's pictures.
        discriminator_loss: of the scores of real and generated ones.
    """

    discriminator: nn.Module
    weight: float
    adaptive: bool
    begins: float
    generator_loss: Callable[[torch.Tensor], torch.Tensor]
    discriminator_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    @classmethod
    def of(
        cls,
        discriminator: nn.Module | None,
        settings: AdversarialSettings,
        generator_loss: Callable[[torch.Tensor], torch.Tensor],
        discriminator_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> "Adversary | None":
        """As a task's settings have it; None without a discriminator."""
        if discriminator is None:
            return None
        adaptive = settings.adversarial_weight == "adaptive"
        return cls(
            discriminator, settings.adversarial, adaptive, settings.adversarial_from, generator_loss, discriminator_loss
        )

    def player(self, rate_factor: float, betas: tuple[float, float] | None = None) -> Player:
        """What trains of it; see Player."""
        return Player(self._parameters(), rate_factor, betas)

    def trains(self, progress: float) -> bool:
        """Whether it learns by now."""
        return progress >= self.begins - HEAD_START

    def counts(self, progress: float) -> bool:
        """Whether the generator has to please it by now."""
        return progress >= self.begins

    def against(
        self, score: Callable[[], torch.Tensor], at: torch.Tensor, others: torch.Tensor, moment: Moment
    ) -> dict[str, torch.Tensor]:
        """The generator's losses with the adversarial one in their `total`; no gradient reaches the discriminator.

        Args:
            score: evaluates the discriminator on what the generator made.
            at: what the generator made, where the gradients are compared.
            others: the other losses' total.
            moment: of the batch.
        """
        trained = self._parameters()
        for parameter in trained:
            parameter.requires_grad_(False)
        loss = self.generator_loss(score().float())  # under autocast scores are coarse
        for parameter in trained:
            parameter.requires_grad_(True)
        weight = torch.tensor(self.weight, device=loss.device)
        if self.adaptive:
            weight = adaptive_weight(others, loss, at, self.weight, moment.mean)
        return {"adversarial": loss, "adversarial_weight": weight, "total": others + weight * loss}

    def learns(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """The discriminator's losses from its scores."""
        real, fake = real.float(), fake.float()
        return {"total": self.discriminator_loss(real, fake), "real": real.mean(), "fake": fake.mean()}

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad]
