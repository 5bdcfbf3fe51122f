"""The fine detail of pictures: what a binomial filter of five taps takes away."""

import torch

from addsr.image.smoothing import smoothed

TAPS = (1.0, 4.0, 6.0, 4.0, 1.0)


def fine_detail(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (N, C, H, W), sides of at least 3 -> what is finer than about four pixels, the same shape, mean near 0."""
    return pictures - smoothed(pictures, TAPS, reflect=True)
