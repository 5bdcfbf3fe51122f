"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class EMA:
    """Keeps `module`, a copy whose weights follow those of the trained network.

    Args:
        network: the trained network.
        decay: per update; early on a smaller one, (1 + n) / (10 + n), lets the average leave the initial weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        means = [parameter.detach() for parameter in self.module.parameters()]
        torch._foreach_lerp_(means, [parameter.detach() for parameter in network.parameters()], 1 - decay)
