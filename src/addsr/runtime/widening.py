"""Weights that stay in half precision and are computed with in float32, for CPUs that compute no half precision.

There half precision saves memory alone: emulated it takes three to ten times as long as float32, and a whole copy in float32
twice the memory. So each large weight is widened when it is used, and let go again.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

LARGE = (nn.Linear, nn.Conv2d, nn.Embedding)  # the layers that hold nearly all weights


class Widened(nn.Module):
    """A weight as its layer gets it: in float32, anew each time."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.float()


def compute_in_float32(network: nn.Module) -> None:
    """Keep the weights of large layers as they are, in half precision, and compute with them in float32; in place.

    What is small is cast once and for all. For inference alone: `Module.to` would cast what is kept, and the state dict has
    other keys.
    """
    for layer in list(network.modules()):
        large = layer.weight if isinstance(layer, LARGE) else None
        for kept in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            if kept is not large and kept.is_floating_point():
                kept.data = kept.data.float()
        if large is not None:
            large.requires_grad_(False)
            parametrize.register_parametrization(layer, "weight", Widened(), unsafe=True)  # it changes the dtype


def computing_dtype(network: nn.Module) -> torch.dtype:
    """In which a network computes: float32 where its weights are widened, else their own."""
    if any(parametrize.is_parametrized(layer) for layer in network.modules()):
        return torch.float32
    return next(network.parameters()).dtype
