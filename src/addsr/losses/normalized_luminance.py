"""Luminance less its local mean, in units of its local deviation: fine detail whatever its strength (MSCN coefficients,
Mittal et al., "No-reference image quality assessment in the spatial domain", 2012).
"""

import torch

from addsr.image.smoothing import smoothed

TAPS = (1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0)  # of a place's surroundings, binomial
STEP = 1 / 255  # a deviation that no 8-bit picture shows


def luminance(pictures: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) of (N, 3, H, W), in [0, 1] where those are."""
    return (pictures * pictures.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def locally_normalized(grey: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W), about [-3, 3], of luminance in about [0, 1]; in flat places, where the deviation is below an 8-bit
    step, nearly 0.
    """
    centred, variance = local_contrast(grey)
    return centred / ((variance + STEP**2).sqrt() + STEP)


def local_contrast(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each channel less its local mean, and its local variance; (N, C, H, W) all."""
    centred = pictures - smoothed(pictures, TAPS, reflect=True)
    return centred, smoothed(centred.square(), TAPS, reflect=True)
