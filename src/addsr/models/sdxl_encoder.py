"""The first half of SDXL's U-Net, down and mid blocks, as features of noised latents: D³SR's larger discriminator.

Diffusers' own blocks, as SDXL is used as it is. Of its added conditions (Podell et al. 2023, sections 2.1 and 2.2) it is
told no words, which in SDXL are zeros for both embeddings, and that the picture has its own size and is not cropped.
"""

from typing import Any

import torch
from torch import nn

PIXELS = 8  # a latent, along a side
TOKENS = 77


class SDXLEncoder(nn.Module):
    """See above.

    Args:
        unet: a UNet2DConditionModel with `addition_embed_type` text_time, whose modules are taken, not copied.

    Attributes:
        width: channels after the mid block.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.conv_in: nn.Module = unet.conv_in
        self.time_proj: nn.Module = unet.time_proj
        self.time_embedding: nn.Module = unet.time_embedding
        self.add_time_proj: nn.Module = unet.add_time_proj
        self.add_embedding: nn.Module = unet.add_embedding
        self.down_blocks: nn.ModuleList = unet.down_blocks
        self.mid_block: nn.Module = unet.mid_block
        config = unet.config
        self.width: int = config["block_out_channels"][-1]
        self.text_channels: int = config["cross_attention_dim"]
        self.pooled_channels: int = (
            config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        )

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor | int, encoder_hidden_states: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Noised latents (N, C, H, W) at a timestep, an int or (N,) -> features after the mid block (N, width, h, w).

        Args:
            latents, timestep: see above.
            encoder_hidden_states: text embeddings (N, 77, text_channels); None for no words.
        """
        hidden_states = self.conv_in(latents)
        temb = self._embed(latents, timestep)
        if encoder_hidden_states is None:
            encoder_hidden_states = latents.new_zeros(len(latents), TOKENS, self.text_channels)
        for block in self.down_blocks:
            if getattr(block, "has_cross_attention", False):
                hidden_states, _ = block(hidden_states, temb, encoder_hidden_states=encoder_hidden_states)
            else:
                hidden_states, _ = block(hidden_states, temb)
        return self.mid_block(hidden_states, temb, encoder_hidden_states=encoder_hidden_states)

    def _embed(self, latents: torch.Tensor, timestep: torch.Tensor | int) -> torch.Tensor:
        """Timestep, sizes and the absent pooled text -> (N, time channels)."""
        count = len(latents)
        steps = torch.as_tensor(timestep, device=latents.device).expand(count)
        height, width = (PIXELS * side for side in latents.shape[2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=latents.device)  # of original, crop, target
        times: Any = self.add_time_proj(sizes)
        added = torch.cat([latents.new_zeros(self.pooled_channels), times.flatten().to(latents)])
        temb = self.time_embedding(self.time_proj(steps).to(latents.dtype))
        return temb + self.add_embedding(added[None])
