"""Task: D³SR. One step from the latents of LR, against a diffusion discriminator on noised latents, without a teacher.

L = MSE + lambda_2 · perceptual distance (edge-aware) + lambda_1 · non-saturating cross-entropy (D³SR).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from addsr.data.draws import Draws
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import predict_x0
from addsr.losses.adversarial import bce_discriminator_loss, bce_generator_loss, clamped
from addsr.losses.edge_aware import Distance
from addsr.losses.reconstruction import balanced, shifted
from addsr.training.adversary import Adversary
from addsr.training.settings import one_of, ranged
from addsr.training.task import Batch, Moment, Player
from addsr.training.trainable import trained_networks

PERCEPTUAL = ("none", "lpips", "ea-lpips", "dists", "ea-dists")
DISCRIMINATORS = ("none", "cnn", "random", "diffusion")


@dataclass(frozen=True)
class D3SRSettings:
    """The switches of the paper's ablations, and the weights that it leaves to its supplement.

    Attributes:
        mse: weight of the squared distance to HR in [0, 1], per colour value.
        perceptual: distance beside it: `none`, `lpips`, `ea-lpips`, `dists` or `ea-dists` (edge-aware).
        perceptual_weight: lambda_2. 1: with DISTS and MSE as they come, the weight of an independent re-implementation of
            OSDFace, which has the same loss.
        discriminator: `none`; `cnn`, on pixels; `random`, a U-Net's encoder with random weights; `diffusion`, a pretrained
            one: that of the model which `--discriminator` names (of the generator's own size, or larger), else of `--init`.
        adversarial: lambda_1; see `adversarial_weight`.
        adversarial_weight: `fixed`, or `adaptive`: lambda_1 is the norm of the adversarial gradient at x0 in units of the
            other losses', which needs no tuning when the losses change.
        adversarial_from: progress before the adversarial loss; the discriminator alone starts a twentieth earlier.
        discriminator_rate: the discriminator's learning rate in units of the loop's (the paper: equal).
        highest: T of t ~ U[0, T], of the discriminator's noise.
        balance: see `addsr.losses.reconstruction.balanced`; 0 as in the paper.
        autoencoder: weight of L1 of encoded and decoded HR, where the autoencoder trains (compact).
        lora_rank, lora_alpha: of adapters on the U-Nets of generator and discriminator; rank 0 trains what `trainable` says.
        trainable: name patterns of the generator's parameters that train without LoRA.
    """

    mse: float = 1.0
    perceptual: str = "ea-dists"
    perceptual_weight: float = 1.0
    discriminator: str = "diffusion"
    adversarial: float = 0.5
    adversarial_weight: str = "fixed"
    adversarial_from: float = 0.0
    discriminator_rate: float = 1.0
    highest: int = 999
    balance: float = 0.0
    autoencoder: float = 0.0
    lora_rank: int = 0
    lora_alpha: int = 16
    trainable: Sequence[str] = ("*",)

    def __post_init__(self) -> None:
        one_of("task.perceptual", self.perceptual, PERCEPTUAL)
        one_of("task.discriminator", self.discriminator, DISCRIMINATORS)
        one_of("task.adversarial_weight", self.adversarial_weight, ("fixed", "adaptive"))
        for name in ("mse", "perceptual_weight", "adversarial", "discriminator_rate", "balance", "autoencoder"):
            ranged(f"task.{name}", getattr(self, name), 0, None)
        ranged("task.adversarial_from", self.adversarial_from, 0, 1)
        ranged("task.highest", self.highest, 0, 999)
        ranged("task.lora_rank", self.lora_rank, 0, None)


@dataclass(frozen=True)
class Restored:
    """What the generator made: x0 (N, C, h, w), pictures (N, 3, H, W) in about [0, 1], HR and LR."""

    x0: torch.Tensor
    pictures: torch.Tensor
    hr: torch.Tensor
    lr: torch.Tensor


@dataclass
class D3SRTask:
    """The generator's player trains the U-Net (its adapters at SD size), the discriminator's the discriminator.

    Args:
        generator: whose sampler is `d3sr`.
        settings: see there.
        distance: the perceptual distance that the settings name; None for `none`.
        discriminator: of latents, called with (latents, draws); or, for `cnn`, of pictures, called with (pictures, LR,
            draws).
        adapters: the generator's LoRA parameters, where it has any; else `settings.trainable` chooses.
    """

    generator: Restorer
    settings: D3SRSettings
    distance: Distance | None = None
    discriminator: nn.Module | None = None
    adapters: list[nn.Parameter] = field(default_factory=list)
    networks: dict[str, nn.Module] = field(init=False)
    averaged: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.adapters:
            self._trained, self.networks = self.adapters, {"unet": self.generator.unet}
        else:
            self._trained, self.networks = trained_networks(self.generator, self.settings.trainable)
        self.averaged = tuple(self.networks)
        self._adversary = Adversary.of(self.discriminator, self.settings, bce_generator_loss, bce_discriminator_loss)
        if self.discriminator is not None:
            self.networks["discriminator"] = self.discriminator
        self._judged: Restored | None = None

    def players(self) -> dict[str, Player]:
        players = {"generator": Player(self._trained)}
        if self._adversary is not None:
            players["discriminator"] = self._adversary.player(self.settings.discriminator_rate)
        return players

    def losses(self, player: str, batch: Batch, moment: Moment) -> dict[str, torch.Tensor] | None:
        if player == "discriminator":
            return self._discriminator_losses(moment)
        settings = self.settings
        restored = self._restore(batch)
        squares = (restored.pictures - restored.hr).square().mean((1, 2, 3))
        named, total = {"mse": squares.mean()}, settings.mse * squares
        if self.distance is not None and settings.perceptual_weight:
            distances = self.distance(*shifted(restored.pictures, restored.hr, moment.draws))
            named["perceptual"] = distances.mean()
            total = total + settings.perceptual_weight * distances
        losses = {"total": balanced(total, settings.balance).mean(), **named}
        adversary = self._adversary
        if adversary is not None and adversary.counts(moment.progress):
            judged = restored.x0, clamped(restored.pictures), restored.lr, moment.draws
            at = restored.pictures if self._sees_pictures else restored.x0
            losses |= adversary.against(partial(self._judge, *judged), at, losses["total"], moment)
        if settings.autoencoder:
            losses["autoencoder"] = self._autoencoder(restored.hr)
            losses["total"] = losses["total"] + settings.autoencoder * losses["autoencoder"]
        self._judged = restored if adversary is not None and adversary.trains(moment.progress) else None
        return losses

    def _restore(self, batch: Batch) -> Restored:
        hr, lr = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("hr", "lr"))
        x0, pictures = self._step(lr)
        return Restored(x0, pictures, hr, lr)

    def _step(self, lr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x0 and its picture, as inference makes them."""
        model = self.generator
        latents, timestep = model.encode_latents(lr, None), model.timesteps(1)[0]
        embeds = None if model.fixed_prompt is None else model.fixed_prompt(len(lr))
        prediction = model.predict(latents, timestep, lr, embeds)
        x0 = predict_x0(prediction, latents, timestep, model.schedule.alphas_cumprod, model.schedule.prediction_type)
        return x0, model.decode_latents(x0)

    def _autoencoder(self, hr: torch.Tensor) -> torch.Tensor:
        restored = self.generator.decode_latents(self.generator.encode_latents(hr, None))
        return (restored - hr).abs().mean()

    def _discriminator_losses(self, moment: Moment) -> dict[str, torch.Tensor] | None:
        restored, self._judged = self._judged, None
        if restored is None or self._adversary is None:
            return None
        with torch.no_grad():
            hr_latents = None if self._sees_pictures else self.generator.encode_latents(restored.hr, None)
        real = self._judge(hr_latents, restored.hr, restored.lr, moment.draws)
        fake = self._judge(restored.x0.detach(), restored.pictures.detach().clamp(0, 1), restored.lr, moment.draws)
        return self._adversary.learns(real, fake)

    @property
    def _sees_pictures(self) -> bool:
        """Whether the discriminator looks at pictures, not at latents."""
        return self.settings.discriminator == "cnn"

    def _judge(
        self, latents: torch.Tensor | None, pictures: torch.Tensor, lr: torch.Tensor, draws: Draws
    ) -> torch.Tensor:
        assert self.discriminator is not None
        return self.discriminator(pictures, lr, draws) if self._sees_pictures else self.discriminator(latents, draws)
