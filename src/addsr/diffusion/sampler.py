"""AddSR's sampler: one to four steps from noise, each refining its own condition, as a pure function."""

from collections.abc import Callable, Sequence

import torch

from addsr.diffusion.schedule import add_noise, predict_x0

# (latents, timestep, condition picture) -> prediction
Denoiser = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]
# (step, x0) after each step
StepCallback = Callable[[int, torch.Tensor], torch.Tensor | None]


def refine_condition(picture: torch.Tensor, lr: torch.Tensor, weight: float | torch.Tensor) -> torch.Tensor:
    """Prediction-based self-refinement (AddSR, section 3.3): `weight` · picture + (1 - weight) · LR.

    Args:
        picture: the decoded x0, about [0, 1] (clamped here).
        lr: the LR picture at HR size, in [0, 1]: always the original one, not the last mix.
        weight: 0 (keep LR) to 1 (the prediction alone); or each picture's own, (N, 1, 1, 1).
    """
    return (picture.clamp(0, 1) * weight + (1 - weight) * lr).to(lr.dtype)


def sample(
    denoise: Denoiser,
    decode: Callable[[torch.Tensor], torch.Tensor],
    latents: torch.Tensor,
    lr: torch.Tensor,
    *,
    timesteps: Sequence[int],
    alphas_cumprod: torch.Tensor,
    noise: Callable[[int], torch.Tensor],
    prediction_type: str = "epsilon",
    psr_weight: float = 0.5,
    callback: StepCallback | None = None,
) -> torch.Tensor:
    """Run `len(timesteps)` steps and return the last x0.

    Args:
        denoise: evaluates the networks: (latents, timestep, condition in [0, 1]) -> prediction.
        decode: x0 (N, C, H, W) -> picture (N, 3, f·H, f·W), about [0, 1]; called between steps only.
        latents: (N, C, H, W), noised to the first timestep.
        lr: condition picture of the first step, (N, 3, f·H, f·W) in [0, 1].
        timesteps: decreasing.
        alphas_cumprod: abar_t for every t.
        noise: fresh standard normal noise shaped as the latents, for step 1, 2, …
        prediction_type: `epsilon`, `v_prediction` or `sample`.
        psr_weight: see `refine_condition`; 0 skips the decoding.
        callback: called after each step with its number and x0; what it returns, if not None, replaces x0.
    """
    condition, x0 = lr, latents
    for step, timestep in enumerate(timesteps):
        if step:
            latents = add_noise(x0, noise(step), timestep, alphas_cumprod)
            if psr_weight:
                condition = refine_condition(decode(x0), lr, psr_weight)
        x0 = predict_x0(denoise(latents, timestep, condition), latents, timestep, alphas_cumprod, prediction_type)
        if callback is not None:
            replaced = callback(step, x0)
            x0 = x0 if replaced is None else replaced
    return x0
