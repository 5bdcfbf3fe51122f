"""From a training run to a model folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

from addsr.pipelines.addsr import AddSRPipeline
from addsr.training.config import make_unet, make_vae


def export(preset: dict[str, Any], run: Path, out: Path) -> None:
    """Write the averaged U-Net and autoencoder of `run`, in float16, as AddSRPipeline.save_pretrained does."""
    unet, vae = make_unet(preset), make_vae(preset)
    unet.load_state_dict(load_file(run / "unet_ema.safetensors"))
    vae.load_state_dict(load_file(run / "vae_ema.safetensors"))
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=preset["settings"]["prediction_type"],
    )
    torch.nn.Module.to(unet, torch.float16)
    torch.nn.Module.to(vae, torch.float16)
    AddSRPipeline(unet, vae, scheduler, **preset["export"]).save_pretrained(out)
