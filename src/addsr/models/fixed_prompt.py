"""A text embedding that is part of the weights: D³SR's only word, so that inference needs no text encoder."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class FixedPrompt(ModelMixin, ConfigMixin):
    """One embedding for all pictures.

    Args:
        tokens: of the text encoder's output, 77 for CLIP.
        channels: width of the U-Net's text cross-attention.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, tokens: int = 77, channels: int = 1024) -> None:
        super().__init__()
        self.embeds = nn.Parameter(torch.zeros(1, tokens, channels))

    def forward(self, count: int) -> torch.Tensor:
        """(count, tokens, channels)."""
        return self.embeds.expand(count, -1, -1)
