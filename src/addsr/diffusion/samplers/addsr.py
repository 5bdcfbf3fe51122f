"""AddSR's sampler: one to four steps from noise, each refining its own condition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from addsr.diffusion.samplers.sampler import Denoiser, FreshNoise, Sampler, StepCallback, predicted_x0
from addsr.diffusion.schedule import STUDENT_TIMESTEPS, Schedule, add_noise, student_timesteps


def refine_condition(picture: torch.Tensor, lr: torch.Tensor, weight: float | torch.Tensor) -> torch.Tensor:
    """Prediction-based self-refinement (AddSR, section 3.3): `weight` · picture + (1 - weight) · LR.

    Args:
        picture: the decoded x0, about [0, 1] (clamped here).
        lr: the LR picture at HR size, in [0, 1]: always the original one, not the last mix.
        weight: 0 (keep LR) to 1 (the prediction alone); or each picture's own, (N, 1, 1, 1).
    """
    return (picture.clamp(0, 1) * weight + (1 - weight) * lr).to(lr.dtype)


@dataclass(frozen=True)
class AddSRSampler(Sampler):
    """The first steps of 999, 749, 499 and 249; between two of them x0 gets fresh noise, and refines the condition."""

    name = "addsr"
    title = "AddSR"
    most_steps = len(STUDENT_TIMESTEPS)
    refines = True

    def timesteps(self, num_inference_steps: int, schedule: Schedule) -> list[int]:
        return list(student_timesteps(num_inference_steps))

    def sample(
        self,
        denoise: Denoiser,
        latents: torch.Tensor,
        lr: torch.Tensor,
        *,
        timesteps: Sequence[int],
        schedule: Schedule,
        noise: FreshNoise,
        decode: Callable[[torch.Tensor], torch.Tensor],
        psr_weight: float = 0.0,
        callback: StepCallback | None = None,
    ) -> torch.Tensor:
        """See Sampler; a `psr_weight` of 0 skips the decoding between steps."""
        condition, x0 = lr, latents
        for step, timestep in enumerate(timesteps):
            if step:
                latents = add_noise(x0, noise(step), timestep, schedule.alphas_cumprod)
                if psr_weight:
                    condition = refine_condition(decode(x0), lr, psr_weight)
            x0 = predicted_x0(denoise(latents, timestep, condition), latents, step, timestep, schedule, callback)
        return x0
