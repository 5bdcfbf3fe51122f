"""Task: a student for the four timesteps, trained on pixels through the decoder, with prediction-based self-refinement.

The first step starts from pure noise at t = 999 under the LR picture. A share of each batch then takes a second step, as
inference does (AddSR, section 3.3): its own x0 is noised to a later timestep, and its condition is its own picture mixed
with LR, in [0, 1]. Both steps are trained towards HR.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from addsr.diffusion.schedule import STUDENT_TIMESTEPS, add_noise, predict_x0, scaled_linear_alphas_cumprod
from addsr.discriminators.patch import PatchDiscriminator
from addsr.losses.adversarial import adaptive_weight, hinge_discriminator_loss, hinge_generator_loss
from addsr.losses.lpips import SqueezeLPIPS
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.unet import AddSRUNet
from addsr.training.task import Batch, Player

SHIFT = 8  # pixels that the pictures are shifted by at most before LPIPS


@dataclass(frozen=True)
class StudentSettings:
    """Weights of the losses and the shares of what is trained.

    Attributes:
        lpips, lpips_final: weight of LPIPS beside L1 in [0, 1], at the start and at the end of the run. Large at the
            start it is pleased with a texture of PixelShuffle's grid long before anything is restored.
        autoencoder: weight of L1 of encoded and decoded HR, which keeps the latents meaningful while the decoder trains.
        refine: share of the iterations that take the second step too.
        refine_from: progress of the run (0..1) before the second step is trained at all.
        hr_latents: share of the second steps that start from noised HR latents instead of the student's own x0.
        adversarial: norm of the adversarial gradient in units of the reconstruction gradient; 0 for none.
        adversarial_from: progress before the adversarial loss; the discriminator alone starts a twentieth earlier.
        prediction_type: of the U-Net.
        compile: fuse the networks by torch.compile (a few minutes at the start, a quarter faster on a CPU).
    """

    lpips: float = 0.15
    lpips_final: float = 0.3
    autoencoder: float = 0.5
    refine: float = 0.5
    refine_from: float = 0.4
    hr_latents: float = 0.2
    adversarial: float = 0.03
    adversarial_from: float = 0.55
    prediction_type: str = "sample"
    compile: bool = False


class StudentTask:
    """The generator's player trains the U-Net and the decoder, the discriminator's a small patch network."""

    averaged: tuple[str, ...] = ("unet", "vae")

    def __init__(
        self, unet: AddSRUNet, vae: PixelShuffleAutoencoder, settings: StudentSettings, lpips_weights: Path
    ) -> None:
        self.unet, self.vae, self.settings = unet, vae, settings
        self.discriminator = PatchDiscriminator()
        self.networks: dict[str, nn.Module] = {"unet": unet, "vae": vae, "discriminator": self.discriminator}
        self.lpips = SqueezeLPIPS(lpips_weights)
        self.alphas_cumprod = scaled_linear_alphas_cumprod()
        self.restore = torch.compile(self._restore, dynamic=False) if settings.compile else self._restore
        self._judged: tuple[torch.Tensor, torch.Tensor] | None = None  # the generator's last targets and pictures

    def players(self) -> dict[str, Player]:
        players = {"generator": Player([*self.unet.parameters(), *self.vae.parameters()])}
        if self.settings.adversarial:
            players["discriminator"] = Player(list(self.discriminator.parameters()), rate_factor=0.5, betas=(0.0, 0.99))
        return players

    def losses(
        self, player: str, batch: Batch, progress: float, generator: torch.Generator
    ) -> dict[str, torch.Tensor] | None:
        if player == "discriminator":
            return self._discriminator_losses(progress)
        hr, lr = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("hr", "lr"))
        drawn = torch.rand((), generator=generator).item()
        refined = progress >= self.settings.refine_from and drawn < self.settings.refine
        size = (
            self.unet.config["in_channels"],
            hr.shape[2] // self.vae.config["factor"],
            hr.shape[3] // self.vae.config["factor"],
        )
        noise = self._noise((len(hr), *size), generator)
        x0, pictures = self.restore(noise, torch.full((len(hr),), STUDENT_TIMESTEPS[0]), lr)
        targets = hr
        if refined:
            with torch.no_grad():
                hr_latents = self.vae.encode(hr * 2 - 1).latent_dist.mode() * self.vae.config["scaling_factor"]
            pictures = torch.cat([pictures, self._second_step(x0, pictures, lr, hr_latents, generator)])
            targets = torch.cat([hr, hr])

        l1 = (pictures - targets).abs().mean((1, 2, 3))
        lpips = self._lpips(pictures, targets, generator)
        autoencoder = self._autoencoder_loss(hr, generator)
        weight = self.settings.lpips + progress * (self.settings.lpips_final - self.settings.lpips)
        reconstruction = (l1 + weight * lpips).mean()
        losses = {
            "total": reconstruction + self.settings.autoencoder * autoencoder,
            "l1": l1[: len(hr)].mean(),
            "lpips": lpips[: len(hr)].mean(),
            "autoencoder": autoencoder,
        }
        if refined:
            losses |= {"l1_later": l1[len(hr) :].mean(), "lpips_later": lpips[len(hr) :].mean()}
        if self._adversary_trains(progress):
            self._judged = targets, pictures.detach()
        if self.settings.adversarial and progress >= self.settings.adversarial_from:
            self.discriminator.requires_grad_(False)
            adversarial = hinge_generator_loss(self.discriminator(pictures))
            self.discriminator.requires_grad_(True)
            weight = adaptive_weight(reconstruction, adversarial, pictures, self.settings.adversarial)
            losses["total"] = losses["total"] + weight * adversarial
            losses |= {"adversarial": adversarial, "adversarial_weight": weight}
        return losses

    def _restore(
        self, latents: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x0 and its picture in [0, 1] (not clamped: a clamp would kill the gradient outside)."""
        prediction = self.unet(latents, timestep, controlnet_cond=condition)
        x0 = predict_x0(prediction, latents, timestep, self.alphas_cumprod, self.settings.prediction_type)
        return x0, self.vae.decode(x0 / self.vae.config["scaling_factor"]).sample / 2 + 0.5

    def _second_step(
        self,
        x0: torch.Tensor,
        picture: torch.Tensor,
        lr: torch.Tensor,
        hr_latents: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The picture after one of the later timesteps, from the first step's result; no gradient reaches that."""
        count = len(x0)
        later = torch.tensor(STUDENT_TIMESTEPS[1:])
        timestep = later[torch.randint(len(later), (count,), generator=generator)]
        from_hr = torch.rand((count, 1, 1, 1), generator=generator) < self.settings.hr_latents
        clean = torch.where(from_hr, hr_latents, x0.detach())
        latents = add_noise(clean, self._noise(clean.shape, generator), timestep, self.alphas_cumprod)
        weight = torch.rand((count, 1, 1, 1), generator=generator)
        condition = weight * picture.detach().clamp(0, 1) + (1 - weight) * lr
        memory_format = torch.channels_last
        return self.restore(
            latents.contiguous(memory_format=memory_format), timestep, condition.contiguous(memory_format=memory_format)
        )[1]

    def _lpips(self, pictures: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """At a random offset: at a fixed one, the strides of the features would meet PixelShuffle's grid always alike,
        and a pattern of that grid could please them.
        """
        side = pictures.shape[2] - SHIFT
        top, left = torch.randint(SHIFT, (2,), generator=generator).tolist()
        a, b = (x[:, :, top : top + side, left : left + side] for x in (pictures, targets))
        return self.lpips(a, b)

    def _autoencoder_loss(self, hr: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """L1 of a quarter of the batch through the autoencoder, with some noise on the latents."""
        few = hr[: max(1, len(hr) // 4)]
        latents = self.vae.encode(few * 2 - 1).latent_dist.mode()
        spread = 0.1 * torch.rand((len(few), 1, 1, 1), generator=generator)
        noisy = latents + spread * self._noise(latents.shape, generator)
        return (self.vae.decode(noisy).sample / 2 + 0.5 - few).abs().mean()

    def _adversary_trains(self, progress: float) -> bool:
        return self.settings.adversarial > 0 and progress >= self.settings.adversarial_from - 0.05

    def _discriminator_losses(self, progress: float) -> dict[str, torch.Tensor] | None:
        if not self._adversary_trains(progress) or self._judged is None:
            return None
        real, fake = self._judged
        scores = self.discriminator(torch.cat([real, fake])).chunk(2)
        total = hinge_discriminator_loss(*scores)
        return {"total": total, "real": scores[0].mean(), "fake": scores[1].mean()}

    @staticmethod
    def _noise(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        return torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
