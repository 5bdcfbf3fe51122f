"""The diffusion model behind D³SR's discriminator: Stable Diffusion 2.1, SDXL, or a teacher of ours."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from addsr.checkpoints.hub_cache import local_folder
from addsr.checkpoints.published import is_sdxl
from addsr.checkpoints.stable_diffusion import load_sdxl_encoder, load_vae
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import Schedule, schedule_from_config
from addsr.errors import ModelError, TrainingError
from addsr.models.diffusion_encoder import DiffusionEncoder
from addsr.models.latent_map import fit_latent_map
from addsr.models.sdxl_encoder import SDXLEncoder
from addsr.training.networks import networks_from, same_autoencoder
from addsr.weights.reading import read_json


@dataclass(frozen=True)
class Judge:
    """What of a diffusion model looks at latents.

    Attributes:
        encoder: down and mid blocks.
        vae: the autoencoder whose latents it knows.
        schedule: of its noise.
        prompt_embeds: (1, L, D), the empty prompt; None where it takes no text, or none is zeros.
    """

    encoder: DiffusionEncoder | SDXLEncoder
    vae: Any
    schedule: Schedule
    prompt_embeds: torch.Tensor | None = None

    @property
    def encoder_channels(self) -> int:
        """Of the latents that the encoder takes."""
        weight: Any = self.encoder.conv_in.weight
        return weight.shape[1]


def judge_from(source: str) -> Judge:
    """Of a model or run, or of the folder of Stable Diffusion 2(.1)-base or SDXL.

    Raises:
        ModelError, TrainingError: if there is none, or it is damaged.
    """
    folder = local_folder(source)
    if is_sdxl(folder):
        try:
            schedule = schedule_from_config(read_json(folder / "scheduler" / "scheduler_config.json"))
        except ValueError as error:
            raise ModelError(f"{folder}: {error}") from error
        encoder = load_sdxl_encoder(folder / "unet", torch.float32)
        vae = load_vae(folder / "vae", torch.float32)
        return Judge(encoder, vae.requires_grad_(False), schedule)
    model = networks_from(source).restorer
    prompt = model.fixed_prompt
    embeds = None if prompt is None else prompt(1).detach().clone()
    if embeds is None and model.unet.config["cross_attention_dim"] is not None:
        raise TrainingError(f"{source}: attends to text and brings no embedding; take Stable Diffusion's own folder")
    return Judge(DiffusionEncoder.from_unet(model.unet), model.vae, model.schedule, embeds)


@torch.no_grad()
def latent_map_between(generator: Restorer, judge: Judge, crops: Iterable[torch.Tensor], name: str) -> nn.Conv2d | None:
    """The generator's latents -> the judge's; None where their autoencoders are the same.

    Args:
        generator: the model in training.
        judge: of its latents.
        crops: sharp pictures (3, H, W) in [0, 1] to fit the map on.
        name: of the judge, for messages.

    Raises:
        TrainingError: if latents of the two have other sizes.
    """
    if same_autoencoder(generator.vae, judge.vae):
        return None
    device = generator.placement.device
    other = Restorer(generator.unet, nn.Module.to(judge.vae, device), judge.schedule)
    if other.vae_scale_factor != generator.vae_scale_factor:
        sizes = f"{other.vae_scale_factor} pixels a latent instead of {generator.vae_scale_factor}"
        raise TrainingError(f"{name}: cannot judge this generator's latents: it has {sizes}")
    pairs = []
    for crop in crops:
        picture = crop[None].to(device)
        pairs.append((generator.encode_latents(picture, None), other.encode_latents(picture, None)))
    return fit_latent_map(pairs).to(device)


def latent_channels(generator: Restorer, latent_map: nn.Conv2d | None) -> int:
    """Of the latents that a judge is shown."""
    return generator.unet.config["in_channels"] if latent_map is None else latent_map.out_channels
