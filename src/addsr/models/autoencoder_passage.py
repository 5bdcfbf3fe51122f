"""Stable Diffusion's autoencoder as coroutines that stop at each norm, so that tiles can share the norms' statistics.

A passage yields (norm, what is to be normalised), is sent the function that does so, and returns the result: nobody else
need hold a tensor while its tile goes on. The modules are those of diffusers' AutoencoderKL; with each norm applied as it
is, a passage computes what they compute.
"""

from collections.abc import Callable, Generator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Normalize = Callable[[torch.Tensor], torch.Tensor]
Passage = Generator[tuple[nn.GroupNorm, torch.Tensor], Normalize, torch.Tensor]


def encoding(vae: Any, pictures: torch.Tensor) -> Passage:
    """(N, 3, H, W) in [-1, 1] -> the posterior's moments (N, 2C, H/f, W/f)."""
    encoder = vae.encoder
    hidden_states = encoder.conv_in(pictures)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            hidden_states = yield from _resnet(resnet, hidden_states)
        for downsampler in block.downsamplers or ():
            hidden_states = downsampler(hidden_states)
    hidden_states = yield from _mid(encoder.mid_block, hidden_states)
    hidden_states = (yield encoder.conv_norm_out, hidden_states)(hidden_states)
    moments = encoder.conv_out(encoder.conv_act(hidden_states))
    return moments if vae.quant_conv is None else vae.quant_conv(moments)


def posterior_of(moments: torch.Tensor) -> Any:
    """The distribution that AutoencoderKL makes of an encoding's result."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution  # takes seconds to import

    return DiagonalGaussianDistribution(moments)


def decoding(vae: Any, latents: torch.Tensor) -> Passage:
    """Unscaled latents (N, C, H, W) -> picture (N, 3, f·H, f·W), about [-1, 1]."""
    decoder = vae.decoder
    hidden_states = decoder.conv_in(latents if vae.post_quant_conv is None else vae.post_quant_conv(latents))
    hidden_states = yield from _mid(decoder.mid_block, hidden_states)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            hidden_states = yield from _resnet(resnet, hidden_states)
        for upsampler in block.upsamplers or ():
            hidden_states = upsampler(hidden_states)
    hidden_states = (yield decoder.conv_norm_out, hidden_states)(hidden_states)
    return decoder.conv_out(decoder.conv_act(hidden_states))


def _mid(block: Any, hidden_states: torch.Tensor) -> Passage:
    hidden_states = yield from _resnet(block.resnets[0], hidden_states)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            hidden_states = yield from _attention(attention, hidden_states)
        hidden_states = yield from _resnet(resnet, hidden_states)
    return hidden_states


def _resnet(resnet: Any, inputs: torch.Tensor) -> Passage:
    hidden_states = (yield resnet.norm1, inputs)(inputs)
    hidden_states = resnet.conv1(resnet.nonlinearity(hidden_states))
    hidden_states = (yield resnet.norm2, hidden_states)(hidden_states)
    hidden_states = resnet.conv2(resnet.nonlinearity(hidden_states))
    shortcut = inputs if resnet.conv_shortcut is None else resnet.conv_shortcut(inputs)
    return (shortcut + hidden_states) / resnet.output_scale_factor


def _attention(attention: Any, inputs: torch.Tensor) -> Passage:
    positions = (yield attention.group_norm, inputs)(inputs).flatten(2).transpose(1, 2)
    query, key, value = (
        project(positions).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    attend = getattr(attention.processor, "attend", F.scaled_dot_product_attention)
    mixed = attend(query, key, value).transpose(1, 2).flatten(2)
    mixed = attention.to_out[0](mixed).transpose(1, 2).unflatten(2, inputs.shape[2:])
    return (mixed + inputs) / attention.rescale_output_factor
