"""Gradient checkpointing: memory for time."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> None:
    """Let a network's blocks compute their activations anew in the backward pass instead of keeping them.

    The flag and the function are those of diffusers, whose own `enable_gradient_checkpointing` only whole models have.
    """
    for module in network.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
