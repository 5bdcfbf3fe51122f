"""Weave: places that vary across and down alike, and less along the diagonals, as canvas does; or the other way about.

Where a generator knows little, it draws strokes of both axes over one another. A photo has as many of each, but at places
of their own: a wall's edge here, a horizon there; a mean power spectrum (`addsr.losses.spectrum`) takes the one for the
other. So this looks window by window. What is asked for is not smoothness: a place whose structure has a direction, or
none, is no weave. Both diagonals over one another are one as well, or a generator would turn its canvas by 45°. At smaller
sizes of the picture too: what noise leaves is woven of rectangles as large as 64 pixels.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from addsr.losses.spectrum import WINDOW, column_weights, local_power

EDGES = (1 / 16, 5 / 32, 9 / 32, 7 / 16)  # cycles a pixel, of three bands of frequencies
SCALES = (1, 2, 4)  # the picture is looked at, at these parts of its size: periods of 2 to 64 pixels
UNSEEN = 0.01  # power, in units of a place's whole contrast, that counts for nothing beside it


def excess_of_weave(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """By how much more the pictures are woven than HR: the mean excess of `weave` over places, colours, bands and scales,
    both ways together. Place by place, as HR's own canvas, bricks say, is no leave for any elsewhere. Independent noise has
    0.04 by chance.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides of at least 32 pixels; targets are HR.

    Returns:
        (N,), 0 to 1.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours = weave(pictures.float())
        with torch.no_grad():
            theirs = weave(targets.float())
        excesses = [(a - b).relu().sum(-2).flatten(1).mean(1) for a, b in zip(ours, theirs, strict=True)]
        return torch.stack(excesses).mean(0)


def weave(pictures: torch.Tensor) -> list[torch.Tensor]:
    """(N, C, h, w, 2, bands) of (N, C, H, W), of each scale that has a window: of each window of 32² (a - d) / (a + d) where
    the weaker axis's power a exceeds the diagonals' mean d, else 0; then the same of the weaker diagonal and the axes.
    """
    sectors = _sectors().to(pictures.device)
    scales = [scale for scale in SCALES if min(pictures.shape[-2:]) >= WINDOW * scale]
    return [_weave(F.avg_pool2d(pictures, scale), sectors) for scale in scales]


def _weave(pictures: torch.Tensor, sectors: torch.Tensor) -> torch.Tensor:
    power = (local_power(pictures).flatten(-2) @ sectors).unflatten(-1, (2, 2, -1))  # axes and diagonals, two of each
    weaker, between = power.amin(-2), power.mean(-2).flip(-2)
    return (weaker - between).relu() / (weaker + between + UNSEEN)


def _sectors() -> torch.Tensor:
    """(WINDOW * (WINDOW / 2 + 1), 4 * bands) that takes half a spectrum, as `rfft2` gives it, to means over sectors of 45°:
    around both axes, and around both diagonals.
    """
    down, across = torch.fft.fftfreq(WINDOW)[:, None], torch.fft.rfftfreq(WINDOW)
    radius, angle = torch.hypot(down, across), torch.atan2(down, across.expand(WINDOW, -1))
    steep = angle.abs() > 3 * math.pi / 8
    sectors = (angle.abs() < math.pi / 8, steep, *(~steep & (sign * angle >= math.pi / 8) for sign in (1, -1)))
    masks = [
        column_weights() * sector * ((radius >= low) & (radius < high))
        for sector in sectors
        for low, high in pairwise(EDGES)
    ]
    return torch.stack([mask.flatten() / mask.sum() for mask in masks], 1)
