"""D³SR's discriminator: a diffusion model's encoder looks at latents noised to a random timestep."""

import torch
from torch import nn

from addsr.data.draws import Draws
from addsr.diffusion.schedule import add_noise
from addsr.models.diffusion_encoder import DiffusionEncoder
from addsr.models.sdxl_encoder import SDXLEncoder


class DiffusionDiscriminator(nn.Module):
    """Scores each position after the mid block as real or fake.

    It is given clean latents, the generator's x0 or those of HR, and nothing else of the picture: what its networks see is
    always noised, to a timestep drawn uniformly from 0 to `highest`.

    Args:
        encoder: of a pretrained U-Net, or of one with random weights (the paper's ablation).
        alphas_cumprod: of the encoder's schedule.
        prompt_embeds: (1, L, D) for an encoder with text attention: the empty prompt.
        highest: T of t ~ U[0, T].
        latent_map: from the generator's latents to the encoder's, where those are another autoencoder's.
    """

    prompt_embeds: torch.Tensor | None

    def __init__(
        self,
        encoder: DiffusionEncoder | SDXLEncoder,
        alphas_cumprod: torch.Tensor,
        prompt_embeds: torch.Tensor | None = None,
        highest: int = 999,
        latent_map: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.highest, self.latent_map = encoder, highest, latent_map
        self.head = nn.Sequential(  # an MLP of each position
            nn.Conv2d(encoder.width, encoder.width, 1), nn.SiLU(), nn.Conv2d(encoder.width, 1, 1)
        )
        self.register_buffer("alphas_cumprod", alphas_cumprod.clone(), persistent=False)
        self.register_buffer("prompt_embeds", prompt_embeds, persistent=False)

    def forward(self, latents: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Clean latents (N, C, H, W) -> logits (N, patches), one for each position after the mid block."""
        if self.latent_map is not None:
            latents = self.latent_map(latents)
        timestep, noise = draws.integers(self.highest + 1), draws.normal(*latents.shape[1:])
        noised = add_noise(latents, noise.to(latents), timestep, self.get_buffer("alphas_cumprod"))
        embeds: torch.Tensor | None = self.prompt_embeds
        embeds = None if embeds is None else embeds.expand(len(latents), -1, -1)
        return self.head(self.encoder(noised, timestep, embeds)).flatten(1)
