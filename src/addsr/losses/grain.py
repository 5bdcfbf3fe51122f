"""Grain that HR has not: fine detail in excess of HR's, wherever it lies.

LPIPS on SqueezeNet is pleased with a fine grain over flat surfaces; the eye, LPIPS on other features and NIQE are not. What
HR has of fine detail in a place may be matched by any other of the same strength; what goes beyond counts here.
"""

import torch
import torch.nn.functional as F

from addsr.image.detail import fine_detail

WINDOW = 7  # pixels along a side, over which the strength of fine detail is taken


def excess_grain(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over all places of how much the strength of fine detail exceeds that of HR.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1].

    Returns:
        (N,).
    """
    with torch.no_grad():
        allowed = _strength(targets)
    return F.relu(_strength(pictures) - allowed).mean((1, 2, 3))


def _strength(pictures: torch.Tensor) -> torch.Tensor:
    """Local standard deviation (N, 1, H, W) of the fine detail."""
    squares = fine_detail(pictures).square().mean(1, keepdim=True)
    return (F.avg_pool2d(squares, WINDOW, 1, WINDOW // 2, count_include_pad=False) + 1e-6).sqrt()
