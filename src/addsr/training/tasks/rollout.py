"""The student's steps on a batch.

The first starts at t = 999 under the LR picture. A later one is reached as inference reaches it (AddSR, section 3.3): step
by step the student's own x0 is noised to the next timestep, under its own picture mixed with LR, in [0, 1]. Only the first
and the last step have gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from addsr.data.draws import Draws
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.refinement import refine_condition
from addsr.diffusion.schedule import STUDENT_TIMESTEPS, add_noise, predict_x0
from addsr.training.context import Context, TextEncoder, context_of
from addsr.training.task import Batch


@dataclass(frozen=True)
class Rollout:
    """The steps of a batch that have gradients; the later step's pictures, where it was taken, follow the first's.

    Attributes:
        timestep: (M,) of each prediction.
        x0: latents (M, C, h, w).
        pictures: (M, 3, H, W) in about [0, 1]; not clamped, as that would kill the gradient outside.
        hr, lr: (M, 3, H, W) in [0, 1].
        prompts: M of them, some emptied; the teacher gets the same.
    """

    timestep: torch.Tensor
    x0: torch.Tensor
    pictures: torch.Tensor
    hr: torch.Tensor
    lr: torch.Tensor
    prompts: Sequence[str]


@dataclass(frozen=True)
class StudentSteps:
    """How a student's steps are taken in training; what the fields mean, `StudentSettings` says."""

    student: Restorer
    psr: bool
    psr_weights: Sequence[float]
    hr_latents: float
    null_text: float
    encode_text: TextEncoder | None = None

    def __call__(self, batch: Batch, draws: Draws, *, refined: bool) -> Rollout:
        """Take the steps of a batch; `refined`: a later one too."""
        student = self.student
        hr, lr = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("hr", "lr"))
        prompts = list(batch.get("prompt", [""] * len(hr)))
        null = (draws.uniform() < self.null_text).tolist()
        prompts = ["" if without else prompt for prompt, without in zip(prompts, null, strict=True)]
        context = context_of(student, lr, prompts, self.encode_text)
        timestep = torch.full((len(hr),), STUDENT_TIMESTEPS[0], device=hr.device)
        latents = latent_noise(student, hr, draws)
        if student.defaults.start_point == "lr":
            with torch.no_grad():
                latents = add_noise(_encode(student, lr, draws), latents, timestep, student.schedule.alphas_cumprod)
        x0, pictures = predict_picture(student, latents, timestep, lr, context)
        first = Rollout(timestep, x0, pictures, hr, lr, prompts)
        if not refined:
            return first

        wanted = draws.integers(len(STUDENT_TIMESTEPS) - 1)  # each picture's own later step
        low, high = self.psr_weights
        weight = low + (high - low) * draws.uniform(1, 1, 1)  # one for all steps, as at inference
        clean, before = self._steps_before(wanted, weight, first, context, draws)
        later = torch.tensor(STUDENT_TIMESTEPS[1:], device=hr.device)[wanted]
        from_hr = draws.uniform(1, 1, 1) < self.hr_latents
        if self.hr_latents:
            with torch.no_grad():
                clean = torch.where(from_hr, _encode(student, hr, draws), clean)
        noise = latent_noise(student, hr, draws)
        x0, pictures = self._later_step(clean, before, later, lr, context, noise, weight)
        return Rollout(
            torch.cat([timestep, later]),
            torch.cat([first.x0, x0]),
            torch.cat([first.pictures, pictures]),
            torch.cat([hr, hr]),
            torch.cat([lr, lr]),
            prompts * 2,
        )

    @torch.no_grad()
    def _steps_before(
        self, wanted: torch.Tensor, weight: torch.Tensor, first: Rollout, context: Context, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x0 and pictures that each picture's wanted step (of the later ones, from 0) starts from: what the student makes of
        the steps before, on the pictures that need them.
        """
        x0, pictures = first.x0.detach().clone(), first.pictures.detach().clone()
        if not self.psr and self.hr_latents == 1:
            return x0, pictures  # neither is looked at
        for step, timestep in enumerate(STUDENT_TIMESTEPS[1:-1]):
            noise = latent_noise(self.student, first.hr, draws)  # of all pictures, so that their draws stay in step
            on = wanted > step
            if on.any():
                timesteps = torch.full((int(on.sum()),), timestep, device=x0.device)
                x0[on], pictures[on] = self._later_step(
                    x0[on], pictures[on], timesteps, first.lr[on], context.of(on), noise[on], weight[on]
                )
        return x0, pictures

    def _later_step(
        self,
        clean: torch.Tensor,
        pictures: torch.Tensor,
        timestep: torch.Tensor,
        lr: torch.Tensor,
        context: Context,
        noise: torch.Tensor,
        weight: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x0 and pictures of a step at `timestep` (N,) from noised `clean` latents; `weight` mixes `pictures` into LR."""
        student, condition = self.student, lr
        latents = add_noise(clean, noise, timestep, student.schedule.alphas_cumprod)
        if self.psr:
            condition = refine_condition(pictures, lr, weight)
            condition = condition.contiguous(memory_format=torch.channels_last)
            context = Context(context.prompt_embeds, _tokens(student, condition))
        latents = latents.contiguous(memory_format=torch.channels_last)
        return predict_picture(student, latents, timestep, condition, context)


def _encode(student: Restorer, picture: torch.Tensor, draws: Draws) -> torch.Tensor:
    return student.encode_latents(picture, lambda _step: latent_noise(student, picture, draws))


def latent_noise(student: Restorer, picture: torch.Tensor, draws: Draws) -> torch.Tensor:
    """As large as the latents of a picture."""
    factor = student.vae_scale_factor
    return draws.normal(student.unet.config["in_channels"], *(side // factor for side in picture.shape[2:]))


@torch.no_grad()
def _tokens(student: Restorer, picture: torch.Tensor) -> torch.Tensor | None:
    return None if student.image_encoder is None else student.encode_image(picture)


def predict_picture(
    restorer: Restorer, latents: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor, context: Context
) -> tuple[torch.Tensor, torch.Tensor]:
    """x0 and its picture, about [0, 1]."""
    prediction = restorer.predict(latents, timestep, condition, context.prompt_embeds, context.tokens)
    x0 = predict_x0(prediction, latents, timestep, restorer.schedule.alphas_cumprod, restorer.schedule.prediction_type)
    return x0, restorer.decode_latents(x0)
