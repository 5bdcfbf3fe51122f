"""Classifier-free guidance (Ho & Salimans 2022)."""

import torch


def is_guided(guidance_scale: float) -> bool:
    """Above 1 only, as in Stable Diffusion's pipelines: the released AddSR says 0 for none."""
    return guidance_scale > 1


def guided(positive: torch.Tensor, negative: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Negative + scale · (positive - negative), of two predictions."""
    return negative + guidance_scale * (positive - negative)
