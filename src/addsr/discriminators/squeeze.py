"""The compact model's feature discriminator: convolutional heads on frozen SqueezeNet features."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from addsr.data.draws import Draws
from addsr.discriminators.augment import augment
from addsr.losses.lpips import SqueezeLPIPS

TAPS = (0, 1, 2, 4)  # of the seven: strides 2, 4, 8 and 16
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


class SqueezeDiscriminator(nn.Module):
    """Scores pictures at four depths of a frozen SqueezeNet; only the heads train and are saved.

    Args:
        lpips: holds the features; not trained here.
        width: channels of a head.
    """

    def __init__(self, lpips: SqueezeLPIPS, width: int = 64) -> None:
        super().__init__()
        self._frozen = (lpips,)  # in a tuple: neither trained nor saved
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(CHANNELS[tap], width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            )
            for tap in TAPS
        )

    def forward(self, pictures: torch.Tensor, lr: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Pictures (N, 3, H, W) in [0, 1] -> logits (N, L); `lr` is not looked at."""
        features = self._frozen[0].raw_features(augment(pictures * 2 - 1, draws) / 2 + 0.5)
        scores = [
            head(F.layer_norm(features[tap].permute(0, 2, 3, 1), features[tap].shape[1:2]).permute(0, 3, 1, 2))
            for head, tap in zip(self.heads, TAPS, strict=True)
        ]
        return torch.cat([score.flatten(1) for score in scores], 1)
