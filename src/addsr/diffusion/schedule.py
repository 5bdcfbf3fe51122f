"""The noise schedule of Stable Diffusion 2 as pure functions of a table of `alphas_cumprod`.

z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) epsilon                               (AddSR, Eq. 1)
x_0 = (x_t - sqrt(1 - abar_t) epsilon) / sqrt(abar_t)                           (AddSR, Eq. 4)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

STUDENT_TIMESTEPS = (999, 749, 499, 249)  # AddSR's four, from noise to picture
TRAIN_TIMESTEPS = 1000
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def at_student_timesteps(timestep: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
    """Of four values for 999, 749, 499 and 249, each timestep's own, float32 (N,); `timestep` (N,) has no others."""
    order = torch.tensor(STUDENT_TIMESTEPS, device=timestep.device)
    table = torch.tensor(values, device=timestep.device, dtype=torch.float32)
    return table[(timestep[:, None] == order).int().argmax(1)]


def scaled_linear_alphas_cumprod(
    num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> torch.Tensor:
    """abar_t for t = 0..num_train_timesteps-1, float32: betas are linear in their square roots."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A model's noise schedule, and how its steps are taken and its predictions read.

    Attributes:
        alphas_cumprod: abar_t for every t.
        prediction_type: of the U-Net: `epsilon`, `v_prediction` or `sample`.
        timestep_spacing, steps_offset: of multi-step sampling, see `addsr.diffusion.samplers.ancestral.spaced_timesteps`.
        clip_sample_range: multi-step sampling clamps x0 to ± this; None, as Stable Diffusion's schedulers have it, for not.
    """

    alphas_cumprod: torch.Tensor
    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 1
    clip_sample_range: float | None = None


def schedule_from_config(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a diffusers scheduler's config.

    Raises:
        ValueError: for a schedule that is not Stable Diffusion's scaled linear one, or a value that has no meaning here.
    """
    kind = config.get("beta_schedule")
    if kind != "scaled_linear" or config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
        raise ValueError(f"the noise schedule is {kind!r} or altered; only plain 'scaled_linear' is supported")
    if (count := config.get("num_train_timesteps", TRAIN_TIMESTEPS)) != TRAIN_TIMESTEPS:
        raise ValueError(f"num_train_timesteps is {count!r}; it must be {TRAIN_TIMESTEPS}")
    betas = {name: config[name] for name in ("beta_start", "beta_end") if name in config}
    for name, value in betas.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a number between 0 and 1")
    if (prediction := config.get("prediction_type", "epsilon")) not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type is {prediction!r}; it must be one of {', '.join(PREDICTION_TYPES)}")
    if (offset := config.get("steps_offset", 0)) not in (0, 1):
        raise ValueError(f"steps_offset is {offset!r}; it must be 0 or 1")
    if config.get("thresholding"):
        raise ValueError("thresholding is on; it is not supported, and unsuitable for latents")
    spacing = str(config.get("timestep_spacing") or "leading")
    return Schedule(scaled_linear_alphas_cumprod(**betas), prediction, spacing, int(offset), clip_range(config))


def clip_range(config: Mapping[str, Any]) -> float | None:
    """`clip_sample_range` of a diffusers scheduler's config, if that says that it clips: DDPMScheduler does where nobody has
    said anything, which does not suit latents.

    Raises:
        ValueError: unless it is a positive number.
    """
    if not config.get("clip_sample") or "clip_sample" in config.get("_use_default_values", ()):
        return None
    clip = config.get("clip_sample_range", 1.0)
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
        raise ValueError(f"clip_sample_range is {clip!r}; it must be a positive number")
    return float(clip)


def student_timesteps(num_inference_steps: int) -> tuple[int, ...]:
    """The first `num_inference_steps` of 999, 749, 499, 249.

    Raises:
        ValueError: unless 1 <= num_inference_steps <= 4.
    """
    if not 1 <= num_inference_steps <= len(STUDENT_TIMESTEPS):
        raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1 to {len(STUDENT_TIMESTEPS)}")
    return STUDENT_TIMESTEPS[:num_inference_steps]


def signal_and_noise_rates(
    alphas_cumprod: torch.Tensor, timestep: torch.Tensor | int, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t), shaped to broadcast over `like` (N, C, H, W).

    In float32 at least: in bfloat16 the second would be 0.996 instead of 0.998 at t = 999, which Eq. 4 enlarges by 15.
    """
    abar = alphas_cumprod.to(like.device)[torch.as_tensor(timestep, device=like.device)].float()
    abar = abar.reshape(-1, *[1] * (like.ndim - 1)).to(torch.promote_types(like.dtype, torch.float32))
    return abar.sqrt(), (1 - abar).sqrt()


def add_noise(
    latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor | int, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """Eq. 1: clean latents (N, C, H, W) to timestep t, an int, () or (N,)."""
    signal, spread = signal_and_noise_rates(alphas_cumprod, timestep, latents)
    return (signal * latents + spread * noise).to(torch.promote_types(latents.dtype, noise.dtype))


def predict_x0(
    prediction: torch.Tensor,
    latents: torch.Tensor,
    timestep: torch.Tensor | int,
    alphas_cumprod: torch.Tensor,
    prediction_type: str = "epsilon",
) -> torch.Tensor:
    """The clean latents that a network's prediction at t implies (Eq. 4 for `epsilon`).

    Raises:
        ValueError: if `prediction_type` is not one of `epsilon`, `v_prediction`, `sample`.
    """
    if prediction_type == "sample":
        return prediction
    signal, spread = signal_and_noise_rates(alphas_cumprod, timestep, latents)
    dtype = torch.promote_types(latents.dtype, prediction.dtype)
    if prediction_type == "epsilon":
        return ((latents - spread * prediction) / signal).to(dtype)
    if prediction_type == "v_prediction":
        return (signal * latents - spread * prediction).to(dtype)
    raise ValueError(f"unknown prediction_type {prediction_type!r}: expected one of {', '.join(PREDICTION_TYPES)}")
