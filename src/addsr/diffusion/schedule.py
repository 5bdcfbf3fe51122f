"""The noise schedule of Stable Diffusion 2 as pure functions of a table of `alphas_cumprod`.

z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) epsilon                               (AddSR, Eq. 1)
x_0 = (x_t - sqrt(1 - abar_t) epsilon) / sqrt(abar_t)                           (AddSR, Eq. 4)
"""

from collections.abc import Mapping
from typing import Any

import torch

STUDENT_TIMESTEPS = (999, 749, 499, 249)  # AddSR's four, from noise to picture
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def scaled_linear_alphas_cumprod(
    num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> torch.Tensor:
    """abar_t for t = 0..num_train_timesteps-1, float32: betas are linear in their square roots."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, dim=0)


def schedule_from_config(config: Mapping[str, Any]) -> tuple[torch.Tensor, str]:
    """`alphas_cumprod` and the prediction type of a diffusers scheduler's config.

    Raises:
        ValueError: for a schedule that is not Stable Diffusion's scaled linear one.
    """
    kind = config.get("beta_schedule")
    if kind != "scaled_linear" or config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
        raise ValueError(f"the noise schedule is {kind!r} or altered; only plain 'scaled_linear' is supported")
    numbers = {name: config[name] for name in ("num_train_timesteps", "beta_start", "beta_end") if name in config}
    return scaled_linear_alphas_cumprod(**numbers), config.get("prediction_type", "epsilon")


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
    """sqrt(abar_t) and sqrt(1 - abar_t), shaped to broadcast over `like` (N, C, H, W), in its dtype.

    The roots are taken in float32: in half precision 1 - abar_t would lose most of its digits at small t.
    """
    abar = alphas_cumprod.to(like.device)[torch.as_tensor(timestep, device=like.device)].float()
    abar = abar.reshape(-1, *[1] * (like.ndim - 1))
    return abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)


def add_noise(
    latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor | int, alphas_cumprod: torch.Tensor
) -> torch.Tensor:
    """Eq. 1: clean latents (N, C, H, W) to timestep t, an int, () or (N,)."""
    signal, spread = signal_and_noise_rates(alphas_cumprod, timestep, latents)
    return signal * latents + spread * noise


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
    if prediction_type == "epsilon":
        return (latents - spread * prediction) / signal
    if prediction_type == "v_prediction":
        return signal * latents - spread * prediction
    raise ValueError(f"unknown prediction_type {prediction_type!r}: expected one of {', '.join(PREDICTION_TYPES)}")
