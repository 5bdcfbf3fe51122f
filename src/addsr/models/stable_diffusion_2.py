"""Stable Diffusion 2(.1)-base's own sizes, of the networks that are not ours."""

from typing import Any

import torch

AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def autoencoder() -> Any:
    """Diffusers' AutoencoderKL, with random weights on the current device."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**AUTOENCODER).eval()


def text_encoder() -> torch.nn.Module:
    """Transformers' CLIPTextModel, likewise."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)).eval()
