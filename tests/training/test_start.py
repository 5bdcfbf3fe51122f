"""Where a run starts from."""

import json

import pytest
import torch

from addsr.errors import TrainingError
from addsr.training.networks import networks_at_start
from addsr.training.pca import start_from_components, start_from_condition
from tests.tiny import tiny_unet, tiny_vae


@pytest.mark.parametrize("fine_width", [0, 8])
def test_components_are_an_autoencoder_and_the_skip_gives_the_picture_back(fine_width):
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8), scale_factor=8, mode="bicubic").clamp(0, 1)
    vae, unet = tiny_vae(latent_channels=24, fine_width=fine_width), tiny_unet(in_channels=24, out_channels=24)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    start_from_components(vae, smooth)
    start_from_condition(unet, vae)
    with torch.no_grad():
        latents = vae.encode(smooth * 2 - 1).latent_dist.mode()
        through = vae.decode(latents).sample / 2 + 0.5
        skipped = unet(torch.randn_like(latents), 999, controlnet_cond=smooth)
    assert (through - smooth).abs().mean() < 0.02
    torch.testing.assert_close(latents.var((0, 2, 3)), torch.ones(24), atol=0.1, rtol=0)
    torch.testing.assert_close(skipped, latents, atol=1e-3, rtol=0)


def test_grey_photos_have_no_components_of_colour_to_be_blown_up():
    grey = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    vae = tiny_vae(latent_channels=24)  # of which grey has 16
    start_from_components(vae, grey)
    with torch.no_grad():
        through = vae.decode(vae.encode(grey * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
    assert vae.encoder.linear.weight.abs().max() < 1e3
    assert (through - grey).abs().mean() < 0.02


def test_another_noise_schedule_is_refused_as_it_would_be_lost(compact_pipeline, tmp_path):
    compact_pipeline.save_pretrained(tmp_path)
    networks_at_start({"init": str(tmp_path)})
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.013}))
    with pytest.raises(TrainingError, match="its noise schedule is not Stable Diffusion's"):
        networks_at_start({"init": str(tmp_path)})
