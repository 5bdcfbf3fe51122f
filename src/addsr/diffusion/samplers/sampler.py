"""What every sampler has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch

from addsr.diffusion.samplers.refinement import refine_condition
from addsr.diffusion.schedule import Schedule, add_noise, predict_x0

# (latents, timestep, condition picture) -> prediction
Denoiser = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]
# (step, x0) after each step
StepCallback = Callable[[int, torch.Tensor], torch.Tensor | None]
# step -> standard normal noise shaped as the latents
FreshNoise = Callable[[int], torch.Tensor]


class Sampler(ABC):
    """Steps from latents to x0.

    Attributes:
        name: as settings and messages have it.
        title: of the models that it is for.
        most_steps: how many it can make.
        refines: from the second step on the condition takes in the last prediction (PSR), and the representation tokens
            with it.
        starts_from_noise: its first latents are noise, or noised ones of LR; else those of LR as they are.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    most_steps: ClassVar[int]
    refines: ClassVar[bool] = False
    starts_from_noise: ClassVar[bool] = True

    @abstractmethod
    def timesteps(self, num_inference_steps: int, schedule: Schedule) -> list[int]:
        """Of so many steps, decreasing.

        Raises:
            ValueError: if the sampler has none of so many.
        """

    def latents_after(
        self,
        x0: torch.Tensor,
        latents: torch.Tensor,
        timestep: int,
        following: int,
        schedule: Schedule,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """Of the next step: x0 noised to the timestep that follows."""
        return add_noise(x0, noise, following, schedule.alphas_cumprod)

    def within_range(self, x0: torch.Tensor, schedule: Schedule) -> torch.Tensor:
        """x0 where the sampler lets it be: anywhere."""
        return x0

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
        """The x0 (N, C, H, W) after the last step.

        Args:
            denoise: evaluates the networks: (latents, timestep, condition in [0, 1]) -> prediction.
            latents: (N, C, H, W), noised to the first timestep.
            lr: condition picture of the first step, (N, 3, f·H, f·W) in [0, 1].
            timesteps: see above.
            schedule: abar_t, and what the network predicts.
            noise: fresh for each further step, from 1 on.
            decode: x0 -> picture (N, 3, f·H, f·W), about [0, 1].
            psr_weight: of a sampler that refines, see `refine_condition`; 0 skips the decoding between steps.
            callback: called after each step with its number and x0; what it returns, if not None, replaces x0.
        """
        condition, x0 = lr, latents
        for step, timestep in enumerate(timesteps):
            prediction = denoise(latents, timestep, condition)
            x0 = predict_x0(prediction, latents, timestep, schedule.alphas_cumprod, schedule.prediction_type)
            replaced = None if callback is None else callback(step, x0)
            x0 = self.within_range(x0 if replaced is None else replaced, schedule)
            if step + 1 < len(timesteps):
                latents = self.latents_after(x0, latents, timestep, timesteps[step + 1], schedule, noise(step + 1))
                if self.refines and psr_weight:
                    condition = refine_condition(decode(x0), lr, psr_weight)
        return x0
