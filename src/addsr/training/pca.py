"""Principal components of picture patches: where the compact autoencoder and the U-Net's skip start from."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.unet import AddSRUNet


def start_from_components(vae: PixelShuffleAutoencoder, pictures: Iterable[torch.Tensor]) -> None:
    """Make `vae` the best linear autoencoder of the pictures (3, H, W) in [0, 1]; its residual parts start at zero."""
    factor = vae.config["factor"]
    patches = torch.cat([F.pixel_unshuffle(x * 2 - 1, factor).flatten(1).T for x in pictures]).double()  # (n, 3·f²)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))  # ascending
    count = vae.config["latent_channels"]
    basis, variance = vectors[:, -count:].flip(1), values[-count:].flip(0)
    variance = variance.clamp_min(1e-6 * variance[0])  # grey pictures have no more components than a third of them
    vae.set_linear(patches.mean(0).float(), basis.float(), variance.sqrt().float())


def start_from_condition(unet: AddSRUNet, vae: PixelShuffleAutoencoder) -> None:
    """Make the U-Net's skip encode the condition picture linearly, so that untrained it gives the picture back."""
    linear = vae.encoder.linear
    assert unet.cond_skip is not None
    assert linear.bias is not None
    unet.cond_skip.set_linear(linear.weight, linear.bias)  # pyright: ignore[reportCallIssue]
