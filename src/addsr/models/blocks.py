"""The blocks of the U-Net and the ControlNet: diffusers' residual blocks and transformers, SeeSR's second cross-attention.

A layer is resnet -> text cross-attention -> representation cross-attention; either attention may be absent. Module names
are those of the published checkpoints (`resnets`, `attentions`, `image_attentions`, `downsamplers`, `upsamplers`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of one network share.

    Attributes:
        time_channels: width of the time embedding.
        groups: groups of the GroupNorms.
        eps: epsilon of the residual blocks' norms.
        text_channels: width of the text embeddings; None builds no text cross-attention.
        image_channels: width of the representation tokens; None builds no representation cross-attention.
        linear_projection: project in and out of the transformers by Linear instead of 1×1 convolution.
    """

    time_channels: int
    groups: int
    eps: float
    text_channels: int | None
    image_channels: int | None
    linear_projection: bool

    def resnet(self, in_channels: int, out_channels: int) -> ResnetBlock2D:
        return ResnetBlock2D(
            in_channels=in_channels,
            out_channels=out_channels,
            temb_channels=self.time_channels,
            groups=self.groups,
            eps=self.eps,
        )

    def transformer(self, channels: int, heads: int, context_channels: int) -> nn.Module:
        # here, as it takes seconds to import and the compact model has none
        from diffusers.models.transformers.transformer_2d import Transformer2DModel

        return Transformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=channels // heads,
            in_channels=channels,
            cross_attention_dim=context_channels,
            norm_num_groups=self.groups,
            use_linear_projection=self.linear_projection,
        )


class Layers(nn.Module):
    """Residual blocks with their attentions; the base of the down, mid and up blocks.

    Attributes:
        gradient_checkpointing: what a residual block computes is not kept for the backward pass but computed anew there;
            diffusers' `enable_gradient_checkpointing` sets it, in the attentions too.
    """

    resnets: nn.ModuleList
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., torch.Tensor]
    attentions: nn.ModuleList | None
    image_attentions: nn.ModuleList | None

    def build_attentions(self, settings: BlockSettings, channels: int, heads: int, count: int, wanted: bool) -> None:
        """Build `count` attentions of each kind that the settings ask for, or none where not `wanted`."""

        def build(context_channels: int | None) -> nn.ModuleList | None:
            if context_channels is None or not wanted:
                return None
            return nn.ModuleList(settings.transformer(channels, heads, context_channels) for _ in range(count))

        self.attentions = build(settings.text_channels)
        self.image_attentions = build(settings.image_channels)

    def residual(self, index: int, hidden_states: torch.Tensor, temb: torch.Tensor) -> torch.Tensor:
        resnet = self.resnets[index]
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(resnet, hidden_states, temb)
        return resnet(hidden_states, temb)

    def attend(
        self, index: int, hidden_states: torch.Tensor, text: torch.Tensor | None, image: torch.Tensor | None
    ) -> torch.Tensor:
        for attentions, context in ((self.attentions, text), (self.image_attentions, image)):
            if attentions is not None:
                hidden_states = attentions[index](hidden_states, encoder_hidden_states=context, return_dict=False)[0]
        return hidden_states


class DownBlock(Layers):
    """`layers` residual layers, then a strided convolution unless it is the coarsest level."""

    def __init__(
        self,
        settings: BlockSettings,
        in_channels: int,
        out_channels: int,
        layers: int,
        heads: int,
        attention: bool,
        downsample: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            settings.resnet(in_channels if i == 0 else out_channels, out_channels) for i in range(layers)
        )
        self.build_attentions(settings, out_channels, heads, layers, attention)
        sampler = Downsample2D(out_channels, use_conv=True, padding=1, name="op") if downsample else None
        self.downsamplers = nn.ModuleList([sampler]) if sampler else None

    def forward(
        self, hidden_states: torch.Tensor, temb: torch.Tensor, text: torch.Tensor | None, image: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(N, C, H, W) -> (N, C', H/2, W/2) and the skips, one a layer and one for the downsampling."""
        skips = []
        for index in range(len(self.resnets)):
            hidden_states = self.attend(index, self.residual(index, hidden_states, temb), text, image)
            skips.append(hidden_states)
        if self.downsamplers is not None:
            hidden_states = self.downsamplers[0](hidden_states)
            skips.append(hidden_states)
        return hidden_states, skips


class MidBlock(Layers):
    """resnet, attentions, resnet at the coarsest level."""

    def __init__(self, settings: BlockSettings, channels: int, heads: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(settings.resnet(channels, channels) for _ in range(2))
        self.build_attentions(settings, channels, heads, 1, attention)

    def forward(
        self, hidden_states: torch.Tensor, temb: torch.Tensor, text: torch.Tensor | None, image: torch.Tensor | None
    ) -> torch.Tensor:
        hidden_states = self.residual(0, hidden_states, temb)
        return self.residual(1, self.attend(0, hidden_states, text, image), temb)


class UpBlock(Layers):
    """One residual layer for each of `skip_channels`, then nearest ×2 and a convolution unless it is the finest level."""

    def __init__(
        self,
        settings: BlockSettings,
        in_channels: int,
        out_channels: int,
        skip_channels: list[int],
        heads: int,
        attention: bool,
        upsample: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            settings.resnet((in_channels if i == 0 else out_channels) + skip, out_channels)
            for i, skip in enumerate(skip_channels)
        )
        self.build_attentions(settings, out_channels, heads, len(skip_channels), attention)
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels, use_conv=True)]) if upsample else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        skips: list[torch.Tensor],
        temb: torch.Tensor,
        text: torch.Tensor | None,
        image: torch.Tensor | None,
    ) -> torch.Tensor:
        """Takes its skips off the end of `skips`, the last one first."""
        for index in range(len(self.resnets)):
            hidden_states = self.residual(index, torch.cat([hidden_states, skips.pop()], dim=1), temb)
            hidden_states = self.attend(index, hidden_states, text, image)
        if self.upsamplers is not None:  # to the next skip's size: twice, or one less where the level above was odd
            hidden_states = self.upsamplers[0](hidden_states, output_size=skips[-1].shape[2:])
        return hidden_states
