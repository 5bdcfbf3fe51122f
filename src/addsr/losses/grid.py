"""The decoder's own grid: detail that is stronger, or brighter, at some places of each of its cells than at others, and
more edges than HR has, which keep to the seams between cells.

A photo's detail knows nothing of the cells that a decoder writes, `factor` pixels along a side; PixelShuffle makes each
place of a cell by its own filter, and finds it easy to add detail at some of them alone. The eye sees canvas over smooth
surfaces. LPIPS and means over all places do not tell it from other detail; a mean for each place of the cell does. A cell
is also written as a whole, and what is not known finely changes from one to the next: blocks, and strokes along the axes.
"""

import torch
import torch.nn.functional as F

from addsr.losses.normalized_luminance import locally_normalized, luminance

FAINT = 1 / 255  # added to HR's mean step, so that nearly flat pictures do not outweigh all others


def grid_distance(pictures: torch.Tensor, targets: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean squared difference, over the places of the cell, of the detail's mean and of its strength there, in units of
    its strength over all places. Squares, as a picture of HR is a little uneven by chance and must not count for much.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides a multiple of `cell`; targets are HR.
        cell: side of a cell in pixels; the autoencoder's factor.

    Returns:
        (N,).
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours = _by_place(pictures.float(), cell)
        with torch.no_grad():
            theirs = _by_place(targets.float(), cell)
        return (ours - theirs).square().mean(1)


def excess_of_steps(pictures: torch.Tensor, targets: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean squared excess, over the places between two columns or rows of a cell, of each colour's steps there over HR's, in
    units of HR's steps over all places. That steps are even is not asked for: if all are as strong as those at the seams,
    the eye sees as many lines. Of each colour, as the steps would go from luminance into colour.

    Args, returns: as of grid_distance.
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours = _colour_steps(pictures.float(), cell)
        with torch.no_grad():
            theirs = _colour_steps(targets.float(), cell)
        return ((ours - theirs).relu() / (theirs.mean(1, keepdim=True) + FAINT)).square().mean((1, 2))


def _colour_steps(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    """(N, 2 cell, 3): mean magnitude of the step after each column of a cell, then after each row; the last is the seam."""
    across, down = pictures.diff(dim=3).abs().mean(2), pictures.diff(dim=2).abs().mean(3)
    return torch.stack([line[..., place::cell].mean(2) for line in (across, down) for place in range(cell)], 1)


def _by_place(pictures: torch.Tensor, cell: int) -> torch.Tensor:
    """(N, 2 cell²): mean and mean magnitude at each place of the cell."""
    places = F.pixel_unshuffle(locally_normalized(luminance(pictures)), cell)
    strength = places.abs().mean((2, 3))
    return torch.cat([places.mean((2, 3)), strength], 1) / (strength.mean(1, keepdim=True) + 1e-3)
