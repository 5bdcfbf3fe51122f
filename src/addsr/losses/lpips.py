"""LPIPS v0.1 (Zhang et al. 2018) on SqueezeNet features, as a differentiable loss.

The networks are data, not bundled: a safetensors file with the backbone's convolutions (`conv0`, `fire1.squeeze`, …) and the
linear heads (`lin0`, …), or a folder of both as they are published, torchvision's SqueezeNet 1.1 and LPIPS's `squeeze.pth`.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from addsr.weights.reading import read_named

# SqueezeNet 1.1: the fire modules after each pooling; a feature map is taken at the end of every group.
_FIRE_GROUPS = (((1, 2), True), ((3, 4), True), ((5,), True), ((6,), False), ((7,), False), ((8,), False))
_FIRE_PARTS = ("squeeze", "expand1x1", "expand3x3")


def _names() -> Iterator[str]:
    convolutions = ["conv0"]
    for fires, _ in _FIRE_GROUPS:
        convolutions += [f"fire{n}.{part}" for n in fires for part in _FIRE_PARTS]
    for name in convolutions:
        yield from (f"{name}.weight", f"{name}.bias")
    for head in range(1 + len(_FIRE_GROUPS)):
        yield f"lin{head}.weight"


def _released() -> dict[str, str]:
    """The names in the published files, and ours."""
    layers = {"features.0": "conv0"}  # torchvision counts activations and poolings too
    for layer, fire in zip((3, 4, 6, 7, 9, 10, 11, 12), range(1, 9), strict=True):
        layers |= {f"features.{layer}.{part}": f"fire{fire}.{part}" for part in _FIRE_PARTS}
    names = {f"{layer}.{part}": f"{ours}.{part}" for layer, ours in layers.items() for part in ("weight", "bias")}
    return names | {f"lin{head}.model.1.weight": f"lin{head}.weight" for head in range(1 + len(_FIRE_GROUPS))}


class SqueezeLPIPS(nn.Module):
    """forward(a, b): pictures (N, 3, H, W) in [0, 1], sides of at least 32 -> distances (N,).

    Raises ModelError if the file, or one in the folder, cannot be read or holds another network.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        tensors = read_named(weights, _names(), "LPIPS on SqueezeNet", _released())
        for key, value in tensors.items():
            if value.ndim == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_buffer(key.replace(".", "_"), value, persistent=False)
        mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def _conv(self, x: torch.Tensor, name: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
        return F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))

    def raw_features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features (N, C, h, w) of the seven taps."""
        x = self._conv((x * 2 - 1 - self.get_buffer("mean")) / self.get_buffer("std"), "conv0", stride=2)
        taps = [x]
        for fires, pooled in _FIRE_GROUPS:
            if pooled:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for n in fires:
                squeezed = self._conv(x, f"fire{n}_squeeze")
                wide = self._conv(squeezed, f"fire{n}_expand3x3", padding=1)
                x = torch.cat([self._conv(squeezed, f"fire{n}_expand1x1"), wide], 1)
            taps.append(x)
        return taps

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Unit-length features of the seven taps."""
        return [tap / (tap.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for tap in self.raw_features(x)]

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.autocast(a.device.type, enabled=False):  # in bf16 its gradient is off by a third of its length
            with torch.no_grad():
                reference = self.features(b.float())
            distances = [
                F.conv2d((x - y).pow(2), self.get_buffer(f"lin{i}_weight")).mean((1, 2, 3))
                for i, (x, y) in enumerate(zip(self.features(a.float()), reference, strict=True))
            ]
            return torch.stack(distances).sum(0)
