"""Normalisation that looks at one position only, so that a tile computes what the whole picture would."""

import torch
import torch.nn.functional as F
from torch import nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position of a (N, C, H, W) tensor.

    GroupNorm takes its statistics over the whole picture, so a tile differs from the picture it was cut from, and a
    network trained on small crops meets other statistics at inference. This one has no spatial extent.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        channels_last = hidden_states.permute(0, 2, 3, 1)  # a view: contiguous in the channels_last memory format
        normed = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


def use_channel_norm(module: nn.Module) -> None:
    """Replace every GroupNorm inside `module` (diffusers' blocks build no other) by a ChannelNorm, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, ChannelNorm(child.num_channels, child.eps))
        else:
            use_channel_norm(child)
