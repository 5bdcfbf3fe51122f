"""Multi-step ancestral sampling (DDPM, Ho et al. 2020): SeeSR's sampler, and how a teacher is asked by itself."""

from dataclasses import dataclass

import numpy as np
import torch

from addsr.diffusion.samplers.sampler import Sampler
from addsr.diffusion.schedule import TRAIN_TIMESTEPS, Schedule

TIMESTEP_SPACINGS = ("leading", "trailing", "linspace")


def spaced_timesteps(
    num_inference_steps: int,
    spacing: str = "leading",
    steps_offset: int = 1,
    num_train_timesteps: int = TRAIN_TIMESTEPS,
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


@dataclass(frozen=True)
class AncestralSampler(Sampler):
    """Posterior steps of fixed small variance, at evenly spaced timesteps, under LR throughout."""

    name = "ancestral"
    title = "SeeSR"
    most_steps = TRAIN_TIMESTEPS - 1

    def timesteps(self, num_inference_steps: int, schedule: Schedule) -> list[int]:
        count = len(schedule.alphas_cumprod)
        return spaced_timesteps(num_inference_steps, schedule.timestep_spacing, schedule.steps_offset, count)

    def latents_after(
        self,
        x0: torch.Tensor,
        latents: torch.Tensor,
        timestep: int,
        following: int,
        schedule: Schedule,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """Drawn from the posterior."""
        abar, abar_next = (schedule.alphas_cumprod[t].double() for t in (timestep, following))
        dtype = latents.dtype
        wide = torch.promote_types(dtype, torch.float32)  # half precision rounds once, at the end
        x0, latents, noise = (tensor.to(wide) for tensor in (x0, latents, noise))
        alpha = abar / abar_next
        mean = (abar_next.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - abar_next) * latents) / (1 - abar)
        spread = ((1 - abar_next) / (1 - abar) * (1 - alpha)).sqrt()
        return (mean + spread * noise).to(dtype)

    def within_range(self, x0: torch.Tensor, schedule: Schedule) -> torch.Tensor:
        """Clamped, where the schedule says so."""
        clip = schedule.clip_sample_range
        return x0 if clip is None else x0.clamp(-clip, clip)
