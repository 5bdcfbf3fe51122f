"""SDXL as D³SR's discriminator: its encoder, its other latents, and a run against it."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

from addsr.checkpoints.published import is_sdxl
from addsr.checkpoints.stable_diffusion import load_sdxl_encoder
from addsr.discriminators.diffusion import DiffusionDiscriminator
from addsr.errors import ModelError
from addsr.models.adapters import add_lora
from addsr.models.latent_map import fit_latent_map
from addsr.models.sdxl_encoder import SDXLEncoder
from addsr.models.unet import AddSRUNet
from tests.published import UNET, write_base, write_network
from tests.training.runs import train_tiny

SDXL = {  # SDXL-base's config, narrower and with shallower transformers
    "_class_name": "UNet2DConditionModel",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "attention_head_dim": [1, 2, 4],
    "block_out_channels": [8, 16, 32],
    "cross_attention_dim": 24,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 6 * 8 + 12,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 3],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}


def full_unet():
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config(SDXL).eval()


def write_sdxl(folder):
    write_base(folder)
    write_network(full_unet(), folder / "unet", SDXL)
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    (folder / "text_encoder_2").mkdir()
    return folder


@torch.no_grad()
def test_features_are_those_of_the_whole_network():
    unet, seen = full_unet(), []
    unet.mid_block.register_forward_hook(lambda module, args, output: seen.append(output))
    latents, timestep = torch.randn(2, 4, 8, 12), torch.tensor([7, 900])
    sizes = torch.tensor([[64, 96, 0, 0, 64, 96]] * 2)
    unet(
        latents,
        timestep,
        torch.zeros(2, 77, 24),
        added_cond_kwargs={"text_embeds": torch.zeros(2, 12), "time_ids": sizes},
    )
    torch.testing.assert_close(SDXLEncoder(unet)(latents, timestep), seen[0])


def test_its_file_is_read_without_the_other_half(tmp_path):
    folder = write_sdxl(tmp_path / "sdxl")
    assert is_sdxl(folder)
    encoder = load_sdxl_encoder(folder / "unet")
    assert not any(name.startswith("up_blocks") for name in encoder.state_dict())
    whole = SDXLEncoder(full_unet())
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(encoder(latents, 5), whole(latents, 5))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="damaged"):
        load_sdxl_encoder(folder / "unet")


def test_adapters_alone_train():
    encoder = SDXLEncoder(full_unet())
    adapters = add_lora(encoder, 2, 2)
    judge = DiffusionDiscriminator(
        encoder, torch.linspace(0.99, 0.01, 1000), latent_map=torch.nn.Conv2d(4, 4, 1).requires_grad_(False)
    )
    trained = [parameter for parameter in judge.parameters() if parameter.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in [*adapters, *judge.head.parameters()]}


def test_the_map_between_latents_is_found():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(5, 3, generator=generator), torch.randn(5, generator=generator)
    source = [torch.randn(1, 3, 6, 7, generator=generator) for _ in range(3)]
    target = [torch.einsum("oc,nchw->nohw", weight, latents) + bias[:, None, None] for latents in source]
    fitted = fit_latent_map(list(zip(source, target, strict=True)))
    torch.testing.assert_close(fitted.weight[:, :, 0, 0], weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fitted.bias, bias, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="do not match"):
        fit_latent_map([(source[0], target[0][..., :-1])])
    with pytest.raises(ValueError, match="do not determine"):
        fit_latent_map([(source[0][..., :1, :2], target[0][..., :1, :2])])


def test_d3sr_trains_against_it(many_photos, tmp_path):
    torch.manual_seed(0)
    base, out = tmp_path / "stable-diffusion-2-1-base", tmp_path / "run"
    write_base(base, AddSRUNet(**UNET | {"use_image_cross_attention": False}))
    torch.manual_seed(1)
    sdxl = write_sdxl(tmp_path / "sdxl")
    words = ("--data", many_photos, "--init", base, "--discriminator", sdxl, "--out", out)
    train_tiny("d3sr", *words, "--set", "task.perceptual=none", images=4, save=4)
    row = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert {"generator/adversarial", "discriminator/real"} <= set(row)


def test_an_autoencoder_of_another_size_is_refused(many_photos, tmp_path):
    base = tmp_path / "base"
    write_base(base, AddSRUNet(**UNET | {"use_image_cross_attention": False}))
    sdxl = write_sdxl(tmp_path / "sdxl")
    config = {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
        "latent_channels": 4,
    }
    for path in (sdxl / "vae").iterdir():
        path.unlink()
    (sdxl / "vae").rmdir()
    write_network(AutoencoderKL(**config), sdxl / "vae", config)
    words = ("--data", many_photos, "--init", base, "--discriminator", sdxl, "--out", tmp_path / "run")
    with pytest.raises(AssertionError, match="2 pixels a latent instead of 8"):
        train_tiny("d3sr", *words, "--set", "task.perceptual=none", images=4, save=4)
