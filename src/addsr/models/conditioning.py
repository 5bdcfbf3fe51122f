"""From the condition picture (LR enlarged to HR size, or PSR's refined picture, in [0, 1]) to features at latent size."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class StridedConditioning(nn.Module):
    """ControlNet's stack of strided convolutions, what SeeSR calls its image encoder; its layout is the published one.

    Args:
        out_channels: channels of the embedding.
        in_channels: channels of the picture.
        block_channels: widths; each but the first halves the size, so four give a factor of 8.
    """

    def __init__(
        self, out_channels: int, in_channels: int = 3, block_channels: Sequence[int] = (16, 32, 96, 256)
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, block_channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(block_channels):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(block_channels[-1], out_channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(N, 3, f·H, f·W) in [0, 1] -> the embedding (N, C, H, W) and the strided outputs before their activation."""
        hidden_states = F.silu(self.conv_in(picture))
        feature_map = []
        for block in self.blocks:
            width = hidden_states.shape[-1]
            hidden_states = block(hidden_states)
            if hidden_states.shape[-1] < width:
                feature_map.append(hidden_states)
            hidden_states = F.silu(hidden_states)
        return self.conv_out(hidden_states), feature_map


class UnshuffleConditioning(nn.Module):
    """PixelUnshuffle and one convolution: every pixel of the picture is seen, and nothing runs at full resolution."""

    def __init__(self, out_channels: int, in_channels: int = 3, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(in_channels * factor**2, out_channels, 3, padding=1)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(N, 3, f·H, f·W) in [0, 1] -> the embedding (N, C, H, W); there are no intermediate features."""
        return self.conv(F.pixel_unshuffle((picture - 0.5) * 4, self.factor)), []  # about unit variance

    @torch.no_grad()
    def set_linear(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Start as a linear function of each position: weight (C, 3·f², 1, 1) and bias (C,) for pictures in [-1, 1]."""
        self.conv.weight.zero_()
        self.conv.weight[:, :, 1, 1] = weight[:, :, 0, 0] / 2
        self.conv.bias.copy_(bias)  # pyright: ignore[reportOptionalMemberAccess]
