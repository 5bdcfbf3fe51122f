"""Tiny random networks that run the real code in a blink."""

import torch

from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.unet import AddSRUNet

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def tiny_unet(**changes):
    """Compact's architecture with two narrow levels."""
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D",) * 2,
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ("UpBlock2D",) * 2,
        "layers_per_block": 1,
        "attention_head_dim": 1,
        "cross_attention_dim": None,
        "use_image_cross_attention": False,
        "norm_num_groups": 1,
        "norm_type": "channel",
        "conditioning": "unshuffle",
        "conditioning_skip": True,
    }
    unet = AddSRUNet(**(config | changes))
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)  # zero at first, as training wants it
    return unet.eval()


def tiny_vae(latent_channels=4, fine_width=0):
    """Compact's autoencoder, one narrow layer each way."""
    widths = {"encoder_width": 8, "encoder_layers": 1, "decoder_width": 8, "decoder_layers": 1}
    return PixelShuffleAutoencoder(latent_channels=latent_channels, fine_width=fine_width, **widths).eval()
