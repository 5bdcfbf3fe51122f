"""Gradient checkpointing changes what is kept, not what is learned."""

import pytest
import torch
from diffusers import AutoencoderKL

from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet
from tests.published import UNET
from tests.tiny import tiny_unet


def gradients_and_kept(network, forward):
    """The gradients by name, and the bytes that are kept for the backward pass."""
    kept = {}
    parameters = {parameter.data_ptr() for parameter in network.parameters()}

    def pack(tensor):
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    network.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
        bytes_kept = sum(kept.values())
    loss.backward()
    return {name: weight.grad.clone() for name, weight in network.named_parameters()}, bytes_kept


def published(seed=0):
    torch.manual_seed(seed)
    unet = AddSRUNet(**UNET)
    context = {
        "encoder_hidden_states": torch.randn(2, 7, UNET["cross_attention_dim"]),
        "image_encoder_hidden_states": torch.randn(2, 5, 512),
    }
    return unet, torch.randn(2, 4, 16, 16), context


def unet_of_release():
    unet, latents, context = published()
    return unet, lambda: unet(latents, 500, **context).square().mean()


def controlnet_of_release():
    unet, latents, context = published()
    controlnet = AddSRControlNet.from_unet(unet)
    for parameter in controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    picture = torch.rand(2, 3, 128, 128)

    def forward():
        control = controlnet(latents, 500, picture, **context)
        return sum(residual.square().mean() for residual in control.down_block_res_samples) + (
            control.mid_block_res_sample.square().mean()
        )

    return controlnet, forward


def compact_unet():
    torch.manual_seed(0)
    unet = tiny_unet()
    latents, picture = torch.randn(2, 4, 16, 16), torch.rand(2, 3, 64, 64)
    return unet, lambda: unet(latents, 500, controlnet_cond=picture).square().mean()


def autoencoder():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=2, **blocks).train()
    picture = torch.rand(1, 3, 32, 32)
    return vae, lambda: vae.decode(vae.encode(picture).latent_dist.mode()).sample.square().mean()


@pytest.mark.parametrize("make", [unet_of_release, controlnet_of_release, compact_unet, autoencoder])
def test_gradients_are_the_same_and_less_is_kept(make):
    network, forward = make()
    plain, kept = gradients_and_kept(network, forward)
    network.enable_gradient_checkpointing()
    again, kept_less = gradients_and_kept(network, forward)
    assert all(torch.equal(value, again[name]) for name, value in plain.items())
    assert kept_less < 0.9 * kept
    assert network.is_gradient_checkpointing
