"""The projected discriminator's head (StyleGAN-T, section 3.2): spectrally normalised convolutions over patch tokens."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm  # its power iteration is the published one; the parametrization's differs


class DiscriminatorHead(nn.Module):
    """Scores tokens of one depth of a frozen feature network, under a condition.

    Args:
        channels: width of the tokens.
        condition_channels: width of the condition vector; None for an unconditional head.
        projection: width in which features and condition are compared.
        kernel: taps of the residual convolution along the token sequence, which is taken as a circle.
    """

    def __init__(
        self, channels: int, condition_channels: int | None = None, projection: int = 64, kernel: int = 9
    ) -> None:
        super().__init__()
        self.conv_in = spectral_norm(nn.Conv1d(channels, channels, 1))
        self.norm_in = nn.GroupNorm(4, channels)
        self.conv_mix = spectral_norm(
            nn.Conv1d(channels, channels, kernel, padding=kernel // 2, padding_mode="circular")
        )
        self.norm_mix = nn.GroupNorm(4, channels)
        self.condition: nn.Linear | None = None
        if condition_channels is not None:
            self.condition = nn.Linear(condition_channels, projection)
            nn.init.normal_(self.condition.weight)  # scaled by 1/sqrt(width) when used (an equalised rate)
            nn.init.zeros_(self.condition.bias)
        self.conv_out = spectral_norm(nn.Conv1d(channels, projection if condition_channels is not None else 1, 1))

    def forward(self, tokens: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens (N, C, L) and condition (N, D) -> logits (N, L)."""
        hidden_states = F.leaky_relu(self.norm_in(self.conv_in(tokens)), 0.2)
        mixed = F.leaky_relu(self.norm_mix(self.conv_mix(hidden_states)), 0.2)
        scores = self.conv_out((mixed + hidden_states) / math.sqrt(2))
        if self.condition is None:
            return scores[:, 0]
        if condition is None:
            raise ValueError("the head is conditional: it needs a condition")
        weight = self.condition.weight / math.sqrt(self.condition.in_features)
        projected = F.linear(condition, weight, self.condition.bias)
        return (scores * projected[:, :, None]).sum(1) / math.sqrt(projected.shape[1])
