"""The ControlNet of SeeSR/AddSR: the U-Net's encoder half on the condition picture, giving residuals for its skips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from addsr.models.blocks import BlockSettings
from addsr.models.encoder import UNetEncoder, build_conditioning, per_level
from addsr.models.normalization import use_channel_norm
from addsr.models.unet import AddSRUNet


@dataclass(frozen=True)
class ControlNetOutput:
    """What a ControlNet gives.

    Attributes:
        down_block_res_samples: one residual for each skip of the U-Net, scaled.
        mid_block_res_sample: the residual after the mid block, scaled.
        conditioning: the condition picture's embedding (N, C, H, W), not scaled (the official `repre`).
        feature_map: its intermediate features, where the embedding has any.
    """

    down_block_res_samples: list[torch.Tensor]
    mid_block_res_sample: torch.Tensor
    conditioning: torch.Tensor
    feature_map: list[torch.Tensor]


def _zero_conv(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class AddSRControlNet(UNetEncoder, ModelMixin, ConfigMixin):
    """Args are those of AddSRUNet's encoder half, and:

    conditioning: how the condition picture enters, `strided` (published) or `unshuffle`.
    conditioning_channels: channels of the condition picture.
    conditioning_embedding_out_channels: widths of the `strided` embedding.
    conditioning_factor: pixels a latent, for `unshuffle`.
    """

    config_name = "config.json"

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type: str = "UNetMidBlock2DCrossAttn",
        layers_per_block: int | Sequence[int] = 2,
        attention_head_dim: int | Sequence[int] = (5, 10, 20, 20),
        cross_attention_dim: int | None = 1024,
        use_image_cross_attention: bool = True,
        image_cross_attention_dim: int = 512,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        norm_type: str = "group",
        use_linear_projection: bool = True,
        conditioning: str = "strided",
        conditioning_channels: int = 3,
        conditioning_embedding_out_channels: Sequence[int] = (16, 32, 96, 256),
        conditioning_factor: int = 4,
    ) -> None:
        super().__init__()
        settings = BlockSettings(
            time_channels=4 * block_out_channels[0],
            groups=norm_num_groups,
            eps=norm_eps,
            text_channels=cross_attention_dim,
            image_channels=image_cross_attention_dim if use_image_cross_attention else None,
            linear_projection=use_linear_projection,
        )
        self.build_encoder(
            in_channels=in_channels,
            block_out_channels=block_out_channels,
            down_block_types=down_block_types,
            mid_block_type=mid_block_type,
            layers_per_block=layers_per_block,
            attention_head_dim=attention_head_dim,
            settings=settings,
        )
        self.controlnet_cond_embedding = build_conditioning(
            conditioning,
            block_out_channels[0],
            conditioning_channels,
            conditioning_embedding_out_channels,
            conditioning_factor,
        )
        layers = per_level(layers_per_block, len(block_out_channels), "layers_per_block")
        widths = [block_out_channels[0]]  # of the skips: conv_in, then each level's layers and its downsampling
        for level, width in enumerate(block_out_channels):
            widths += [width] * (layers[level] + (level + 1 < len(block_out_channels)))
        self.controlnet_down_blocks = nn.ModuleList(_zero_conv(width) for width in widths)
        self.controlnet_mid_block = _zero_conv(block_out_channels[-1])
        if norm_type == "channel":
            use_channel_norm(self)
        elif norm_type != "group":
            raise ValueError(f"unknown norm_type {norm_type!r}: expected 'group' or 'channel'")

    @classmethod
    def from_unet(cls, unet: AddSRUNet, **overrides: Any) -> Self:
        """A ControlNet that starts from the U-Net's encoder half, representation cross-attention included."""
        names = cls._get_init_keys(cls) - {"self", "conditioning"}
        config = {name: value for name, value in unet.config.items() if name in names}
        controlnet = cls(**(config | overrides))
        for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            getattr(controlnet, name).load_state_dict(getattr(unet, name).state_dict())
        return controlnet

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        controlnet_cond: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        image_encoder_hidden_states: torch.Tensor | None = None,
        conditioning_scale: float = 1.0,
        guess_mode: bool = False,
    ) -> ControlNetOutput:
        """One evaluation.

        Args:
            sample, timestep, encoder_hidden_states, image_encoder_hidden_states: as for AddSRUNet.
            controlnet_cond: condition picture (N, 3, f·H, f·W) in [0, 1].
            conditioning_scale: multiplies every residual.
            guess_mode: weaken the residuals towards the fine levels, from 1 at the mid block down to 0.1.
        """
        temb = self.embed_time(timestep, sample)
        conditioning, feature_map = self.controlnet_cond_embedding(controlnet_cond)
        hidden_states, skips = self.encode(
            self.conv_in(sample) + conditioning, temb, encoder_hidden_states, image_encoder_hidden_states
        )
        residuals = [conv(skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        residuals.append(self.controlnet_mid_block(hidden_states))
        last = len(residuals) - 1
        scales = [conditioning_scale * (10 ** (place / last - 1) if guess_mode else 1) for place in range(last + 1)]
        residuals = [residual * scale for residual, scale in zip(residuals, scales, strict=True)]
        return ControlNetOutput(residuals[:-1], residuals[-1], conditioning, feature_map)
