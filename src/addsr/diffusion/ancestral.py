"""Multi-step ancestral sampling (DDPM, Ho et al. 2020) with classifier-free guidance: how a teacher is asked by itself."""

from collections.abc import Callable

import torch

from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import add_noise, predict_x0

# (latents, timestep) -> prediction
Denoiser = Callable[[torch.Tensor, int], torch.Tensor]


def leading_timesteps(num_inference_steps: int, num_train_timesteps: int = 1000) -> list[int]:
    """Evenly spaced from high to low, the last one 1, as Stable Diffusion's schedulers have them (981, 961, … 1 of 50).

    Raises:
        ValueError: unless 1 <= num_inference_steps <= num_train_timesteps - 1.
    """
    if not 1 <= num_inference_steps < num_train_timesteps:
        raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1 to {num_train_timesteps - 1}")
    spacing = num_train_timesteps // num_inference_steps
    return [step * spacing + 1 for step in reversed(range(num_inference_steps))]


def guided(denoise: Denoiser, denoise_negative: Denoiser, guidance_scale: float) -> Denoiser:
    """Classifier-free guidance: negative + scale · (positive - negative)."""

    def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        negative = denoise_negative(latents, timestep)
        return negative + guidance_scale * (denoise(latents, timestep) - negative)

    return predict


def sample_ancestral(
    denoise: Denoiser,
    latents: torch.Tensor,
    *,
    timesteps: list[int],
    alphas_cumprod: torch.Tensor,
    noise: Callable[[int], torch.Tensor],
    prediction_type: str = "epsilon",
) -> torch.Tensor:
    """The x0 of `len(timesteps)` posterior steps of fixed small variance.

    Args:
        denoise: (latents, timestep) -> prediction.
        latents: (N, C, H, W), noised.
        timesteps: evenly spaced, decreasing.
        alphas_cumprod: abar_t for every t.
        noise: fresh standard normal noise shaped as the latents, for step 1, 2, …
        prediction_type: `epsilon`, `v_prediction` or `sample`.
    """
    spacing = len(alphas_cumprod) // len(timesteps)
    for step, timestep in enumerate(timesteps):
        x0 = predict_x0(denoise(latents, timestep), latents, timestep, alphas_cumprod, prediction_type)
        if timestep - spacing < 0:
            return x0
        abar, abar_next = alphas_cumprod[timestep].double(), alphas_cumprod[timestep - spacing].double()
        alpha = abar / abar_next
        mean = (abar_next.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - abar_next) * latents) / (1 - abar)
        spread = ((1 - abar_next) / (1 - abar) * (1 - alpha)).sqrt()
        latents = (mean + spread * noise(step + 1)).to(latents.dtype)
    return latents


@torch.no_grad()
def restore_ancestral(
    restorer: Restorer,
    lr: torch.Tensor,
    *,
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """SeeSR's way: many steps under the LR picture, from LR latents noised to t = 999 or from pure noise.

    Args:
        restorer: a teacher's networks.
        lr: (N, 3, H, W) in [0, 1]; sides multiples of `size_multiple`.
        num_inference_steps: at least 2.
        guidance_scale: above 1 it needs both embeddings.
        prompt_embeds, negative_prompt_embeds: (N, L, D), where there is text attention.
        seed: of all noise.

    Returns:
        x0 (N, C, H/f, W/f), multiplied by the scaling factor.

    Raises:
        ValueError: for an argument out of its range.
    """
    if guidance_scale != 1 and (prompt_embeds is None or negative_prompt_embeds is None):
        raise ValueError(
            f"guidance_scale is {guidance_scale}; without prompt_embeds and negative_prompt_embeds it must be 1"
        )
    lr = lr.to(restorer.placement).contiguous(memory_format=torch.channels_last)
    tokens = None if restorer.image_encoder is None else restorer.encode_image(lr)
    factor = restorer.vae_scale_factor
    shape = (restorer.unet.config["in_channels"], lr.shape[2] // factor, lr.shape[3] // factor)
    draw = restorer.seeded_noise(seed, [(0, 0)] * len(lr), shape)

    def fresh_noise(step: int) -> torch.Tensor:
        return draw(step).to(lr)

    latents = fresh_noise(0)
    if restorer.start_point == "lr":
        latents = add_noise(restorer.encode_latents(lr, fresh_noise), latents, 999, restorer.alphas_cumprod)

    def denoise(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return restorer.predict(latents, timestep, lr, prompt_embeds, tokens)

    def denoise_negative(latents: torch.Tensor, timestep: int) -> torch.Tensor:
        return restorer.predict(latents, timestep, lr, negative_prompt_embeds, tokens)

    return sample_ancestral(
        denoise if guidance_scale == 1 else guided(denoise, denoise_negative, guidance_scale),
        latents,
        timesteps=leading_timesteps(num_inference_steps, len(restorer.alphas_cumprod)),
        alphas_cumprod=restorer.alphas_cumprod,
        noise=fresh_noise,
        prediction_type=restorer.prediction_type,
    )
