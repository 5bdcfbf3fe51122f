"""Gradient checkpointing: memory for time."""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> None:
    """Let a network's blocks compute their activations anew in the backward pass instead of keeping them.

    The flag and the function are those of diffusers, whose own `enable_gradient_checkpointing` only whole models have.
    """
    block: Any
    for block in network.modules():
        if hasattr(block, "gradient_checkpointing"):
            block.gradient_checkpointing = True
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
