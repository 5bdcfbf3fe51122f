"""A small spectrally normalised patch network: the compact model's light adversary in pixels."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from addsr.data.draws import Draws
from addsr.discriminators.augment import augment


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of about 60 pixels; nothing convolves at full resolution.

    Args:
        width: channels of the first layer, doubled twice.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        widths = ((12, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1))
        self.convs = nn.ModuleList(
            spectral_norm(nn.Conv2d(i, o, 3 if stride == 1 else 4, stride, padding=1)) for i, o, stride in widths
        )
        self.conv_out = spectral_norm(nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, pictures: torch.Tensor, lr: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Pictures (N, 3, H, W) in [0, 1], sides divisible by 8 -> logits (N, H/8 · W/8); `lr` is not looked at."""
        hidden_states = F.pixel_unshuffle(augment(pictures * 2 - 1, draws), 2)
        for conv in self.convs:
            hidden_states = F.leaky_relu(conv(hidden_states), 0.2)
        return self.conv_out(hidden_states).flatten(1)
