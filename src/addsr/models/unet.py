"""The U-Net of SeeSR/AddSR (Stable Diffusion's with a representation cross-attention), from SD-2 size down to compact."""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from addsr.models.blocks import BlockSettings, UpBlock
from addsr.models.encoder import UNetEncoder, build_conditioning, per_level
from addsr.models.normalization import use_channel_norm


class AddSRUNet(UNetEncoder, ModelMixin, ConfigMixin):
    """Predicts noise, velocity or x0 (the schedule's business) from noisy latents and the conditions.

    The defaults are the published SD-2 size. The compact model is the same class without attention, and with the
    condition picture entering the U-Net itself, which spares it a ControlNet.

    Args:
        in_channels, out_channels: channels of the latents.
        block_out_channels: width of each level, finest first.
        down_block_types, up_block_types: `CrossAttn…` where a level has attentions; up is coarsest first.
        mid_block_type: ends in `CrossAttn` where the mid block has attentions.
        layers_per_block: residual layers of each down level (an up level has one more).
        attention_head_dim: number of heads (sic: the published configs use this name) of each level.
        cross_attention_dim: width of the text embeddings; None for no text cross-attention.
        use_image_cross_attention: whether there is a representation cross-attention.
        image_cross_attention_dim: width of the representation tokens.
        norm_num_groups, norm_eps: of the residual blocks.
        norm_type: `group`, or `channel` for norms without spatial extent (see ChannelNorm).
        use_linear_projection: of the transformers.
        conditioning: None where a ControlNet brings the condition picture, else how the picture enters here.
        conditioning_factor: pixels of the condition picture a latent, for `unshuffle`.
        conditioning_skip: add a linear function of the condition picture to the prediction, so that the network
            predicts what the picture lacks.
    """

    config_name = "config.json"

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type: str = "UNetMidBlock2DCrossAttn",
        up_block_types: Sequence[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block: int | Sequence[int] = 2,
        attention_head_dim: int | Sequence[int] = (5, 10, 20, 20),
        cross_attention_dim: int | None = 1024,
        use_image_cross_attention: bool = True,
        image_cross_attention_dim: int = 512,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        norm_type: str = "group",
        use_linear_projection: bool = True,
        conditioning: str | None = None,
        conditioning_factor: int = 4,
        conditioning_skip: bool = False,
    ) -> None:
        super().__init__()
        levels, first = len(block_out_channels), block_out_channels[0]
        settings = BlockSettings(
            time_channels=4 * first,
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
        if len(up_block_types) != levels:
            raise ValueError(f"up_block_types has {len(up_block_types)} values for {levels} levels")
        layers = per_level(layers_per_block, levels, "layers_per_block")
        heads = per_level(attention_head_dim, levels, "attention_head_dim")
        self.up_blocks = nn.ModuleList()
        for position, level in enumerate(reversed(range(levels))):
            width, finer = block_out_channels[level], block_out_channels[max(level - 1, 0)]
            block = UpBlock(
                settings,
                in_channels=block_out_channels[min(level + 1, levels - 1)],
                out_channels=width,
                skip_channels=[width] * layers[level] + [finer],
                heads=heads[level],
                attention=up_block_types[position].startswith("CrossAttn"),
                upsample=level > 0,
            )
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, first, eps=norm_eps)
        self.conv_out = nn.Conv2d(first, out_channels, 3, padding=1)
        self.cond_embedding = self.cond_skip = None
        if conditioning is not None:
            with torch.no_grad():
                self.conv_in.weight *= 0.1  # at t = 999 the latents are noise: listen to the condition first
            self.cond_embedding = build_conditioning(conditioning, first, 3, (16, 32, 96, 256), conditioning_factor)
        if conditioning_skip:
            self.cond_skip = build_conditioning("unshuffle", out_channels, 3, (), conditioning_factor)
            nn.init.zeros_(self.conv_out.weight)  # start from the linear function alone
        if norm_type == "channel":
            use_channel_norm(self)
        elif norm_type != "group":
            raise ValueError(f"unknown norm_type {norm_type!r}: expected 'group' or 'channel'")

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor | None = None,
        image_encoder_hidden_states: torch.Tensor | None = None,
        controlnet_cond: torch.Tensor | None = None,
        down_block_additional_residuals: Sequence[torch.Tensor] | None = None,
        mid_block_additional_residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One evaluation.

        Args:
            sample: noisy latents (N, C, H, W).
            timestep: 0..999, an int or (N,).
            encoder_hidden_states: text embeddings (N, L, cross_attention_dim), where there is text attention.
            image_encoder_hidden_states: representation tokens (N, L', image_cross_attention_dim), likewise.
            controlnet_cond: condition picture (N, 3, f·H, f·W) in [0, 1], where `conditioning` is set.
            down_block_additional_residuals, mid_block_additional_residual: the ControlNet's, where there is one.

        Returns:
            The prediction (N, out_channels, H, W).
        """
        temb = self.embed_time(timestep, sample)
        hidden_states = self.conv_in(sample)
        if self.cond_embedding is not None:
            hidden_states = hidden_states + self.cond_embedding(controlnet_cond)[0]
        hidden_states, skips = self.encode(hidden_states, temb, encoder_hidden_states, image_encoder_hidden_states)
        if down_block_additional_residuals is not None:
            skips = [skip + more for skip, more in zip(skips, down_block_additional_residuals, strict=True)]
        if mid_block_additional_residual is not None:
            hidden_states = hidden_states + mid_block_additional_residual
        for block in self.up_blocks:
            hidden_states = block(hidden_states, skips, temb, encoder_hidden_states, image_encoder_hidden_states)
        prediction = self._predict(nn.functional.silu(self.conv_norm_out(hidden_states)))
        if self.cond_skip is not None:
            prediction = prediction + self.cond_skip(controlnet_cond)[0]
        return prediction

    def _predict(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """conv_out, under autocast (training) in float32: at t = 999 Eq. 4 enlarges an error of epsilon fourteen times, and
        bfloat16's is a thousandth.
        """
        kind = hidden_states.device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return self.conv_out(hidden_states)
        with torch.autocast(kind, enabled=False):
            return self.conv_out(hidden_states.float())
