"""DISTS (Ding et al. 2020): structure and texture similarity of VGG-16 features, as a differentiable loss.

The network is data, not bundled: a file with torchvision's VGG-16 convolutions (`features.0.weight`, …) and DISTS's `alpha`
and `beta` (1, 1475, 1, 1), or a folder of both as they are published, torchvision's VGG-16 and DISTS's `weights.pt`.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from addsr.image.normalize import imagenet_normalized
from addsr.weights.reading import read_named

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # convolutions of VGG-16 before each tap
CHANNELS = (3, 64, 128, 256, 512, 512)
C1 = C2 = 1e-6


class DISTS(nn.Module):
    """forward(a, b): pictures (N, 3, H, W) in [0, 1] -> distances (N,), 0 for equal ones.

    Raises ModelError if the file holds another network.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        names = [f"features.{layer}.{part}" for stage in STAGES for layer in stage for part in ("weight", "bias")]
        tensors = read_named(weights, [*names, "alpha", "beta"], "DISTS on VGG-16")
        for name in names:
            self.register_buffer(name.replace(".", "_"), tensors[name], persistent=False)
        total = tensors["alpha"].sum() + tensors["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, (tensors[name] / total).flatten(), persistent=False)
        window = torch.hann_window(5, periodic=False)[1:-1]  # L2 pooling's filter
        kernel = window[:, None] * window
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """The picture itself and the five stages' features."""
        taps, x = [pictures], imagenet_normalized(pictures)
        for number, stage in enumerate(STAGES):
            if number:
                channels = x.shape[1]
                kernel = self.get_buffer("kernel").expand(channels, 1, -1, -1)
                x = (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=channels) + 1e-12).sqrt()
            for layer in stage:
                weight, bias = (self.get_buffer(f"features_{layer}_{part}") for part in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            taps.append(x)
        return taps

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.autocast(a.device.type, enabled=False):  # variances are differences that bf16 does not hold
            return self._distance(a.float(), b.float())

    def _distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            reference = self.features(b)
        similarity = a.new_zeros(len(a))
        alphas, betas = (self.get_buffer(name).split(CHANNELS) for name in ("alpha", "beta"))
        for x, y, alpha, beta in zip(self.features(a), reference, alphas, betas, strict=True):
            mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
            texture = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
            variance_x, variance_y = x.var((2, 3), correction=0), y.var((2, 3), correction=0)
            covariance = (x * y).mean((2, 3)) - mean_x * mean_y
            structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
            similarity = similarity + (alpha * texture + beta * structure).sum(1)
        return 1 - similarity
