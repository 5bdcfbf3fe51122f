"""Task: the compact autoencoder, with noise-augmented latents so that the decoder forgives an imperfect x0."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from addsr.losses.lpips import SqueezeLPIPS
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.training.task import Batch


@dataclass(frozen=True)
class AutoencoderSettings:
    """Weights of the losses, and the noise.

    Attributes:
        lpips: weight of LPIPS beside L1 in [0, 1].
        latent_noise: the largest standard deviation of noise added to latents of unit variance.
        variance: weight of the penalty that holds the latents at unit variance.
    """

    lpips: float = 0.1
    latent_noise: float = 0.15
    variance: float = 0.01


class AutoencoderTask:
    """Reconstruct HR crops."""

    averaged: tuple[str, ...] = ("vae",)

    def __init__(self, vae: PixelShuffleAutoencoder, settings: AutoencoderSettings, lpips_weights: Path) -> None:
        self.networks: dict[str, nn.Module] = {"vae": vae}
        self.vae, self.settings = vae, settings
        self.lpips = SqueezeLPIPS(lpips_weights)

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"autoencoder": list(self.vae.parameters())}

    def losses(self, player: str, batch: Batch, progress: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
        hr = batch["hr"]
        latents = self.vae.encode(hr * 2 - 1).latent_dist.mode()
        spread = torch.rand((hr.shape[0], 1, 1, 1), generator=generator) * self.settings.latent_noise
        noisy = latents + spread * torch.randn(latents.shape, generator=generator)
        picture = self.vae.decode(noisy).sample / 2 + 0.5
        l1 = (picture - hr).abs().mean()
        lpips = self.lpips(picture, hr).mean()
        variance = (latents.var((0, 2, 3)) - 1).square().mean() + latents.mean((0, 2, 3)).square().mean()
        total = l1 + self.settings.lpips * lpips + self.settings.variance * variance
        psnr = -10 * (picture - hr).detach().square().mean((1, 2, 3)).log10().mean()
        return {"total": total, "l1": l1, "lpips": lpips, "variance": variance, "psnr": psnr}
