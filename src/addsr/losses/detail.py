"""How much fine detail there is, wherever it lies: grain that HR has not, and detail that a picture lacks.

Sharpness without anybody's feature network. LPIPS on SqueezeNet is pleased with a fine grain over flat surfaces; the eye,
LPIPS on other features and NIQE are not: that is the excess. L1 alone blurs what it cannot know: that is what is missing.
Which detail it is, does not count here, only its strength: L1 beside it says where an edge lies.
"""

import torch
import torch.nn.functional as F

from addsr.image.detail import fine_detail

WINDOW = 7  # pixels along a side, over which the strength of fine detail is taken


def excess_and_missing_detail(pictures: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over all places of how much the strength of fine detail exceeds that of HR, and falls short of it.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1].

    Returns:
        (N,) and (N,).
    """
    with torch.no_grad():
        wanted = _strength(targets)
    difference = _strength(pictures) - wanted
    return F.relu(difference).mean((1, 2, 3)), F.relu(-difference).mean((1, 2, 3))


def _strength(pictures: torch.Tensor) -> torch.Tensor:
    """Local standard deviation (N, 1, H, W) of the fine detail."""
    squares = fine_detail(pictures).square().mean(1, keepdim=True)
    return (F.avg_pool2d(squares, WINDOW, 1, WINDOW // 2, count_include_pad=False) + 1e-6).sqrt()
