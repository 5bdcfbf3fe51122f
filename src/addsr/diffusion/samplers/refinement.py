"""Prediction-based self-refinement."""

import torch


def refine_condition(picture: torch.Tensor, lr: torch.Tensor, weight: float | torch.Tensor) -> torch.Tensor:
    """Prediction-based self-refinement (AddSR, section 3.3): `weight` · picture + (1 - weight) · LR.

    Args:
        picture: the decoded x0, about [0, 1] (clamped here).
        lr: the LR picture at HR size, in [0, 1]: always the original one, not the last mix.
        weight: 0 (keep LR) to 1 (the prediction alone); or each picture's own, (N, 1, 1, 1).
    """
    return (picture.clamp(0, 1) * weight + (1 - weight) * lr).to(lr.dtype)
