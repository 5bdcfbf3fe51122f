"""Edge-aware perceptual distance (D³SR): of the pictures, and of their Sobel magnitudes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # pictures (N, 3, H, W) in [0, 1] -> (N,)


def sobel_magnitude(pictures: torch.Tensor) -> torch.Tensor:
    """sqrt(gx² + gy² + 1e-6) of the channels' mean at zero-padded borders: (N, C, H, W) -> (N, 1, H, W)."""
    gray = pictures.mean(1, keepdim=True)
    across = gray.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    gradients = F.conv2d(gray, kernels, padding=1)
    return (gradients.square().sum(1, keepdim=True) + 1e-6).sqrt()


class EdgeAware(nn.Module):
    """`distance` of the pictures plus `distance` of their edges, each repeated over three channels.

    Args:
        distance: DISTS in the paper, LPIPS where its weights are not to be had.
    """

    def __init__(self, distance: Distance) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W) in [0, 1] -> (N,)."""
        with torch.autocast(a.device.type, enabled=False):
            edges = [sobel_magnitude(picture.float()).expand(-1, 3, -1, -1) for picture in (a, b)]
        return self.distance(a, b) + self.distance(*edges)
