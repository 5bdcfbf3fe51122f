"""Multi-step ancestral sampling (DDPM, Ho et al. 2020): SeeSR's sampler, and how a teacher is asked by itself."""

from collections.abc import Callable

import numpy as np
import torch

from addsr.diffusion.schedule import predict_x0

TIMESTEP_SPACINGS = ("leading", "trailing", "linspace")

# (latents, timestep) -> prediction
Denoiser = Callable[[torch.Tensor, int], torch.Tensor]


def spaced_timesteps(
    num_inference_steps: int, spacing: str = "leading", steps_offset: int = 1, num_train_timesteps: int = 1000
) -> list[int]:
    """Evenly spaced from high to low, rounded as diffusers' schedulers round them.

    Args:
        num_inference_steps: how many.
        spacing: `leading`, the last one `steps_offset` (981, 961, … 1 of 50; 501, 1 of two); `trailing`, the first one 999,
            as SD-Turbo's scheduler has them (999, 499); or `linspace`, from 999 to 0.
        steps_offset: added to leading ones; 0, or 1 as Stable Diffusion's schedulers have it.
        num_train_timesteps: of the schedule.

    Raises:
        ValueError: unless 1 <= num_inference_steps <= num_train_timesteps - 1; for another spacing.
    """
    if spacing not in TIMESTEP_SPACINGS:
        raise ValueError(f"timestep_spacing is {spacing!r}; it must be one of {', '.join(TIMESTEP_SPACINGS)}")
    if not 1 <= num_inference_steps < num_train_timesteps:
        raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1 to {num_train_timesteps - 1}")
    if spacing == "trailing":
        spaced = np.arange(num_train_timesteps, 0, -num_train_timesteps / num_inference_steps).round() - 1
    elif spacing == "linspace":
        spaced = np.linspace(0, num_train_timesteps - 1, num_inference_steps).round()[::-1]
    else:
        ratio = num_train_timesteps // num_inference_steps
        spaced = np.arange(num_inference_steps)[::-1] * ratio + steps_offset
    return [int(timestep) for timestep in spaced[:num_inference_steps]]


def sample_ancestral(
    denoise: Denoiser,
    latents: torch.Tensor,
    *,
    timesteps: list[int],
    alphas_cumprod: torch.Tensor,
    noise: Callable[[int], torch.Tensor],
    prediction_type: str = "epsilon",
    callback: Callable[[int, torch.Tensor], torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """The x0 of `len(timesteps)` posterior steps of fixed small variance.

    Args:
        denoise: (latents, timestep) -> prediction.
        latents: (N, C, H, W), noised.
        timesteps: evenly spaced, decreasing.
        alphas_cumprod: abar_t for every t.
        noise: fresh standard normal noise shaped as the latents, for step 1, 2, …
        prediction_type: `epsilon`, `v_prediction` or `sample`.
        callback: called after each step with its number and x0; what it returns, if not None, replaces x0.
    """
    for step, timestep in enumerate(timesteps):
        x0 = predict_x0(denoise(latents, timestep), latents, timestep, alphas_cumprod, prediction_type)
        if callback is not None:
            replaced = callback(step, x0)
            x0 = x0 if replaced is None else replaced
        if step + 1 == len(timesteps):
            return x0
        abar, abar_next = alphas_cumprod[timestep].double(), alphas_cumprod[timesteps[step + 1]].double()
        alpha = abar / abar_next
        mean = (abar_next.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - abar_next) * latents) / (1 - abar)
        spread = ((1 - abar_next) / (1 - abar) * (1 - alpha)).sqrt()
        latents = (mean + spread * noise(step + 1)).to(latents.dtype)
    return latents
