"""D³SR's step (its fig. 1): from the latents of LR themselves, without noise, at one fixed timestep."""

from collections.abc import Callable

import torch

from addsr.diffusion.schedule import predict_x0

TIMESTEP = 399
"""T_L. The paper leaves it to its supplement ("an intermediate timestep"); OSDFace of the same group, built the same way,
uses 399. The latents of LR are then taken for ones with sqrt(1 - abar) = 0.75 of noise, which is what they lack.
"""


def restore_in_one_step(
    denoise: Callable[[torch.Tensor, int], torch.Tensor],
    latents: torch.Tensor,
    *,
    timestep: int,
    alphas_cumprod: torch.Tensor,
    prediction_type: str = "epsilon",
    callback: Callable[[int, torch.Tensor], torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """x0 = (z_L - sqrt(1 - abar) epsilon(z_L, T_L)) / sqrt(abar).

    Args:
        denoise: (latents, timestep) -> prediction.
        latents: z_L = E(x_L), (N, C, H, W), scaled, without noise.
        timestep: T_L.
        alphas_cumprod: abar_t for every t.
        prediction_type: `epsilon`, `v_prediction` or `sample`.
        callback: called with 0 and x0; what it returns, if not None, replaces x0.
    """
    x0 = predict_x0(denoise(latents, timestep), latents, timestep, alphas_cumprod, prediction_type)
    replaced = None if callback is None else callback(0, x0)
    return x0 if replaced is None else replaced
