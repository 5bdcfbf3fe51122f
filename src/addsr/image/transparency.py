"""Colours behind transparency, which a network must see but nobody chose."""

import torch
import torch.nn.functional as F

REACHES = (1, 2, 4, 8, 16, 32)  # pixels


def fill_clear(pixels: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Continue the visible colours under what is wholly clear, so that no black or white bleeds into the edges.

    Args:
        pixels: (3, H, W).
        alpha: (1, H, W) in [0, 1].

    Returns:
        (3, H, W); changed only where alpha is 0.
    """
    clear = alpha == 0
    if not bool(clear.any()) or bool(clear.all()):
        return pixels
    filled, missing = pixels.clone(), clear
    for reach in REACHES:
        near = _around(alpha, reach)
        color = _around(pixels * alpha, reach) / near.clamp_min(1e-6)
        now = missing & (near > 1e-4)
        filled = torch.where(now, color, filled)
        missing = missing & ~now
    mean = (pixels * alpha).sum((1, 2), keepdim=True) / alpha.sum()
    return torch.where(missing, mean, filled).clamp(0, 1)


def _around(planes: torch.Tensor, reach: int) -> torch.Tensor:
    """The mean of the square of `reach` pixels around each position."""
    side = 2 * reach + 1  # one direction after the other: the work does not grow with the square
    rows = F.avg_pool2d(planes[None], (side, 1), stride=1, padding=(reach, 0))
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, reach))[0]
