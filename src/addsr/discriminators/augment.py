"""Differentiable augmentation (Zhao et al. 2020): what keeps a discriminator from learning a small data set by heart."""

import torch

from addsr.data.draws import Draws

TRANSLATION, CUTOUT = 0.125, 0.2  # shares of the side


def augment(pictures: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Shift each picture (N, C, H, W) by up to an eighth of its side, zeros coming in, and cut a fifth-sided square out."""
    height, width = pictures.shape[2:]
    rows, columns = torch.arange(height, device=pictures.device), torch.arange(width, device=pictures.device)

    def place(extent: int, reach: int) -> torch.Tensor:
        """(N, 1) integers in -reach..extent+reach-1."""
        return draws.integers(extent + 2 * reach, 1) - reach

    reach_y, reach_x = int(TRANSLATION * height + 0.5), int(TRANSLATION * width + 0.5)
    source_y, source_x = rows + place(1, reach_y), columns + place(1, reach_x)  # (N, H), (N, W)
    inside = ((source_y >= 0) & (source_y < height))[:, :, None] & ((source_x >= 0) & (source_x < width))[:, None, :]
    index = torch.arange(len(pictures), device=pictures.device)[:, None, None]
    shifted = pictures.permute(0, 2, 3, 1)[
        index, source_y.clamp(0, height - 1)[:, :, None], source_x.clamp(0, width - 1)[:, None, :]
    ]
    side_y, side_x = int(CUTOUT * height + 0.5), int(CUTOUT * width + 0.5)
    top, left = place(height, 0) - side_y // 2, place(width, 0) - side_x // 2
    hole = ((rows >= top) & (rows < top + side_y))[:, :, None] & ((columns >= left) & (columns < left + side_x))[
        :, None
    ]
    return (shifted * (inside & ~hole)[..., None]).permute(0, 3, 1, 2)
