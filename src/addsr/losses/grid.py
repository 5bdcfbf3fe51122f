"""The decoder's own grid: detail that is stronger, or brighter, at some places of each of its cells than at others.

A photo's detail knows nothing of the cells that a decoder writes, `factor` pixels along a side; PixelShuffle makes each
place of a cell by its own filter, and finds it easy to add detail at some of them alone. The eye sees canvas over smooth
surfaces. LPIPS and means over all places do not tell it from other detail; a mean for each place of the cell does.
"""

import torch
import torch.nn.functional as F

from addsr.losses.normalized_luminance import locally_normalized, luminance

WINDOW = 128  # pixels along a side, about, over which a place's means are taken


def grid_distance(pictures: torch.Tensor, targets: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean absolute difference, over windows and places of the cell, of the detail's mean and of its strength there, in
    units of its strength over all places of the window.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides a multiple of `cell`; targets are HR, of which a window too
            is uneven by chance.
        cell: side of a cell in pixels; the autoencoder's factor.

    Returns:
        (N,).
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours = _by_place(pictures.float(), cell)
        with torch.no_grad():
            theirs = _by_place(targets.float(), cell)
        return (ours - theirs).abs().mean((1, 2, 3))


def _by_place(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    """(N, 2 cell², rows, columns): mean and mean magnitude at each place of the cell, by window."""
    normalized = locally_normalized(luminance(pictures))
    windows = max(1, normalized.shape[-2] // WINDOW), max(1, normalized.shape[-1] // WINDOW)
    places = F.pixel_unshuffle(normalized, cell)
    mean, strength = F.adaptive_avg_pool2d(places, windows), F.adaptive_avg_pool2d(places.abs(), windows)
    return torch.cat([mean, strength], 1) / (strength.mean(1, keepdim=True) + 1e-3)
