"""Task: a conditional diffusion model over all timesteps, as SeeSR trains it: the student's start and its teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from addsr.diffusion.restorer import Restorer
from addsr.diffusion.schedule import add_noise, signal_and_noise_rates
from addsr.training.context import TextEncoder, context_of
from addsr.training.settings import ranged
from addsr.training.task import Batch, Moment, Player
from addsr.training.trainable import trained_networks


@dataclass(frozen=True)
class TeacherSettings:
    """What the teacher is shown, and how much each timestep counts.

    Attributes:
        hr_conditions: share of the pictures whose condition (and tokens) is HR instead of LR: the teacher of
            image-quality-adjusted distillation is asked under HR, which it must have met.
        null_text: share of the pictures whose prompt is empty, where there is a text encoder.
        snr_gamma: weight the timesteps by min(SNR, gamma), as an error of x0 (Hang et al. 2023); 0 leaves the plain mean
            squared error of the prediction. Of `sample` and `v_prediction` any leaves almost pure noise untrained, where a
            restorer has most to learn.
        trainable: name patterns of the parameters that train, see `choose_trainable`. SeeSR trains the ControlNet and the
            U-Net's `image_attentions`.
    """

    hr_conditions: float = 0.25
    null_text: float = 0.5
    snr_gamma: float = 0.0
    trainable: Sequence[str] = ("unet.*",)

    def __post_init__(self) -> None:
        ranged("task.hr_conditions", self.hr_conditions, 0, 1)
        ranged("task.null_text", self.null_text, 0, 1)
        ranged("task.snr_gamma", self.snr_gamma, 0, None)


@dataclass
class TeacherTask:
    """One player trains the U-Net (and the ControlNet) on the latents of a frozen autoencoder."""

    model: Restorer
    settings: TeacherSettings
    encode_text: TextEncoder | None = None
    networks: dict[str, nn.Module] = field(init=False)
    averaged: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._trained, self.networks = trained_networks(self.model, self.settings.trainable)
        self.averaged = tuple(self.networks)

    def players(self) -> dict[str, Player]:
        return {"teacher": Player(self._trained)}

    def losses(self, player: str, batch: Batch, moment: Moment) -> dict[str, torch.Tensor]:
        model, settings, draws = self.model, self.settings, moment.draws
        hr, lr = (batch[name].contiguous(memory_format=torch.channels_last) for name in ("hr", "lr"))
        prompts = list(batch.get("prompt", [""] * len(hr)))
        from_hr = draws.uniform() < settings.hr_conditions
        condition = torch.where(from_hr[:, None, None, None], hr, lr).contiguous(memory_format=torch.channels_last)
        null = (draws.uniform() < settings.null_text).tolist()
        prompts = ["" if without else prompt for prompt, without in zip(prompts, null, strict=True)]
        context = context_of(model, condition, prompts, self.encode_text)
        factor, channels = model.vae_scale_factor, model.unet.config["in_channels"]
        shape = (channels, hr.shape[2] // factor, hr.shape[3] // factor)
        with torch.no_grad():
            clean = model.encode_latents(hr, lambda _step: draws.normal(*shape))
        timestep, noise = draws.integers(len(model.schedule.alphas_cumprod)), draws.normal(*shape)
        latents = add_noise(clean, noise, timestep, model.schedule.alphas_cumprod)
        prediction = model.predict(latents, timestep, condition, context.prompt_embeds, context.tokens)
        error = (prediction - self._target(clean, noise, timestep)).float().square().mean((1, 2, 3))
        weighted = error * self._weight(timestep)
        losses = {"total": weighted.mean(), "error": error.mean()}
        for name, chosen in (("error_hr", from_hr), ("error_lr", ~from_hr)):
            if chosen.any():
                losses[name] = error[chosen].mean()
        return losses

    def _target(self, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        kind = self.model.schedule.prediction_type
        if kind == "sample":
            return clean
        if kind == "epsilon":
            return noise
        signal_rate, noise_rate = signal_and_noise_rates(self.model.schedule.alphas_cumprod, timestep, clean)
        return signal_rate * noise - noise_rate * clean

    def _weight(self, timestep: torch.Tensor) -> torch.Tensor:
        """min(SNR, gamma) as an error of x0, in units of the prediction's own error."""
        gamma = self.settings.snr_gamma
        if not gamma:
            return torch.ones(len(timestep), device=timestep.device)
        abar = self.model.schedule.alphas_cumprod.to(timestep.device)[timestep]
        snr = abar / (1 - abar)
        clipped = snr.clamp(max=gamma)
        divisor = {"sample": torch.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}
        return clipped / divisor[self.model.schedule.prediction_type]
