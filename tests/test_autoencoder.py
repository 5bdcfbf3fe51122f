"""The compact model's autoencoder, with and without its stack at half of the picture's resolution."""

import pytest
import torch

from addsr.models.autoencoder import PixelShuffleAutoencoder
from tests.tiny import tiny_vae


def autoencoder(fine_width: int) -> PixelShuffleAutoencoder:
    torch.manual_seed(0)
    return tiny_vae(fine_width=fine_width)


@torch.no_grad()
def test_the_fine_stack_passes_the_decoders_picture_on_at_first():
    plain, fine = autoencoder(0), autoencoder(8)
    assert plain.fine is None
    weight = fine.decoder.linear.weight
    weight[:48], fine.decoder.linear.bias[:48] = plain.decoder.linear.weight, plain.decoder.linear.bias
    latents = torch.randn(2, 4, 6, 5)
    pictures = fine.decode(latents).sample
    assert pictures.shape == (2, 3, 24, 20)
    torch.testing.assert_close(pictures, plain.decode(latents).sample)


def test_the_fine_stack_learns_and_sees_across_the_seams_of_cells():
    vae = autoencoder(8)
    assert vae.fine is not None
    torch.nn.init.normal_(vae.fine.conv_out.weight, std=0.1)
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        vae.decoder.linear.weight[:48] = 0  # what is left goes through the fine stack
        before = vae.decode(latents).sample
        latents[:, :, 4, 4] += 1
        changed = (vae.decode(latents).sample - before).abs().amax((0, 1)) > 0
    assert changed[16:20, 16:20].all()
    assert changed[14:22, 14:22].float().mean() > 0.9  # its neighbours' pixels too: conv_out of the decoder is zero
    vae.decode(latents).sample.square().mean().backward()
    assert all(parameter.grad is not None for parameter in vae.fine.parameters())
    assert vae.fine.conv_in.weight.grad.abs().max() > 0


def test_the_fine_stack_works_at_half_of_the_pictures_resolution():
    with pytest.raises(ValueError, match="factor is 3; with a fine_width it must be even"):
        PixelShuffleAutoencoder(factor=3, fine_width=8)
