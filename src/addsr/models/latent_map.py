"""From one autoencoder's latents to another's: D³SR's larger discriminator lives in another latent space.

SD-2.1's and SDXL's latents have the same shape and other statistics; the paper feeds one network the other's and does not
discuss it. Here each position's latents go through the affine function that brings them nearest in the mean square.
"""

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def fit_latent_map(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> nn.Conv2d:
    """Least squares over all positions.

    Args:
        pairs: latents (N, C, h, w) and (N, C', h, w) of the same pictures in either space.

    Returns:
        A 1×1 convolution (C -> C'), on the CPU.

    Raises:
        ValueError: if the two have other sizes or there are too few positions.
    """
    inputs, outputs = [], []
    for source, target in pairs:
        if source.shape[2:] != target.shape[2:]:
            raise ValueError(f"latents of {tuple(source.shape[2:])} and {tuple(target.shape[2:])} do not match")
        for latents, rows in ((source, inputs), (target, outputs)):
            rows.append(latents.movedim(1, -1).flatten(0, -2).cpu().double())  # not every device has float64
    x, y = torch.cat(inputs), torch.cat(outputs)
    channels = x.shape[1]
    if len(x) <= channels:
        raise ValueError(f"{len(x)} positions do not determine a map of {channels} channels")
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    solution = torch.linalg.lstsq(x, y).solution  # (C + 1, C')
    layer = nn.Conv2d(channels, y.shape[1], 1)
    layer.weight.copy_(solution[:-1].T[..., None, None])
    assert layer.bias is not None
    layer.bias.copy_(solution[-1])
    return layer.requires_grad_(False)
