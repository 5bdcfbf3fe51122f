"""The first half of a diffusion U-Net, down and mid blocks, as features of noised latents."""

from typing import Self

import torch
from torch import nn

from addsr.models.encoder import UNetEncoder
from addsr.models.unet import AddSRUNet


class DiffusionEncoder(UNetEncoder, nn.Module):
    """The encoder half of an AddSRUNet, with its weights; what the condition picture and the decoder half add is left out.

    Attributes:
        width: channels after the mid block.
    """

    width: int

    @classmethod
    def from_unet(cls, unet: AddSRUNet) -> Self:
        """Takes the U-Net's own modules, not copies."""
        encoder = cls()
        for name in ("conv_in", "time_proj", "time_embedding", "down_blocks", "mid_block"):
            setattr(encoder, name, getattr(unet, name))
        encoder.width = unet.config["block_out_channels"][-1]
        return encoder

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor | int, encoder_hidden_states: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Noised latents (N, C, H, W) at a timestep, an int or (N,) -> features after the mid block (N, width, h, w)."""
        temb = self.embed_time(timestep, latents)
        return self.encode(self.conv_in(latents), temb, encoder_hidden_states, None)[0]
