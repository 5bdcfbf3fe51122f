"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import nn


class EMA:
    """Keeps `module`, a copy whose weights follow those of the trained network; what does not train, the two share.

    Args:
        network: the trained network, on its device.
        decay: per update; early on a smaller one, (1 + n) / (10 + n), lets the average leave the initial weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        frozen = {id(weight): weight for weight in network.parameters() if not weight.requires_grad}
        self._trained = [name for name, weight in network.named_parameters() if weight.requires_grad]
        self.module = copy.deepcopy(network, frozen).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        means, weights = (dict(of.named_parameters()) for of in (self.module, network))
        pairs = [(means[name].detach(), weights[name].detach()) for name in self._trained]
        torch._foreach_lerp_([mean for mean, _ in pairs], [weight for _, weight in pairs], 1 - decay)
