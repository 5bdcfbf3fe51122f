"""The encoder half of a Stable Diffusion U-Net: what the U-Net, the ControlNet and a diffusion discriminator share."""

from collections.abc import Sequence

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from addsr.models.blocks import BlockSettings, DownBlock, MidBlock
from addsr.models.conditioning import StridedConditioning, UnshuffleConditioning


def per_level(value: int | Sequence[int], levels: int, name: str) -> list[int]:
    """One value for each level, from a config that may give one for all."""
    values = [value] * levels if isinstance(value, int) else list(value)
    if len(values) != levels:
        raise ValueError(f"{name} has {len(values)} values for {levels} levels")
    return values


class UNetEncoder(nn.Module):
    """conv_in, time embedding, down blocks and mid block; subclasses add what makes them a U-Net or a ControlNet."""

    def build_encoder(
        self,
        *,
        in_channels: int,
        block_out_channels: Sequence[int],
        down_block_types: Sequence[str],
        mid_block_type: str,
        layers_per_block: int | Sequence[int],
        attention_head_dim: int | Sequence[int],
        settings: BlockSettings,
    ) -> None:
        """Build the shared modules; the arguments are those of the subclasses' configs."""
        levels = len(block_out_channels)
        if len(down_block_types) != levels:
            raise ValueError(f"down_block_types has {len(down_block_types)} values for {levels} levels")
        heads = per_level(attention_head_dim, levels, "attention_head_dim")
        layers = per_level(layers_per_block, levels, "layers_per_block")
        first = block_out_channels[0]
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, settings.time_channels)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                settings,
                in_channels=block_out_channels[max(level - 1, 0)],
                out_channels=width,
                layers=layers[level],
                heads=heads[level],
                attention=down_block_types[level].startswith("CrossAttn"),
                downsample=level + 1 < levels,
            )
            for level, width in enumerate(block_out_channels)
        )
        self.mid_block = MidBlock(settings, block_out_channels[-1], heads[-1], mid_block_type.endswith("CrossAttn"))

    @property
    def downscale(self) -> int:
        """Tiles of latents that begin at multiples of this are halved as the whole would be."""
        return 2 ** (len(self.down_blocks) - 1)

    def embed_time(self, timestep: torch.Tensor | int, sample: torch.Tensor) -> torch.Tensor:
        """An int, () or (N,) timestep -> (N, time_channels)."""
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        return self.time_embedding(self.time_proj(steps).to(sample.dtype))

    def encode(
        self,
        hidden_states: torch.Tensor,
        temb: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        image_encoder_hidden_states: torch.Tensor | None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """From the features after conv_in to those after the mid block, and all skips (the input first)."""
        skips = [hidden_states]
        for block in self.down_blocks:
            hidden_states, more = block(hidden_states, temb, encoder_hidden_states, image_encoder_hidden_states)
            skips += more
        return self.mid_block(hidden_states, temb, encoder_hidden_states, image_encoder_hidden_states), skips


def build_conditioning(
    kind: str, out_channels: int, in_channels: int, block_channels: Sequence[int], factor: int
) -> StridedConditioning | UnshuffleConditioning:
    """The embedding of the condition picture that a config names: `strided` (published layout) or `unshuffle`."""
    if kind == "strided":
        return StridedConditioning(out_channels, in_channels, block_channels)
    if kind == "unshuffle":
        return UnshuffleConditioning(out_channels, in_channels, factor)
    raise ValueError(f"unknown conditioning {kind!r}: expected 'strided' or 'unshuffle'")
