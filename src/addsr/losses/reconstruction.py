"""Pixel and perceptual distance to HR, and the balance between easy and hopeless pictures."""

import torch

from addsr.data.draws import Draws
from addsr.losses.lpips import SqueezeLPIPS

SHIFT = 8  # pixels that the pictures are shifted by at most before LPIPS
TYPICAL = 0.1  # loss of a typical picture, at which balancing leaves the gradient as it is


def balanced(losses: torch.Tensor, balance: float) -> torch.Tensor:
    """The pictures' losses (N,) on a logarithmic scale: the gradient falls as 1 / (loss + balance); 0 changes nothing.

    On a linear scale hopeless pictures drown the clean ones, which then come out as blurred as if they were hopeless too.
    """
    if not balance:
        return losses
    return (TYPICAL + balance) * torch.log1p(losses / balance)


def shifted_lpips(lpips: SqueezeLPIPS, pictures: torch.Tensor, targets: torch.Tensor, draws: Draws) -> torch.Tensor:
    """LPIPS (N,) at a random offset: at a fixed one, the strides of the features would meet PixelShuffle's grid always
    alike, and a pattern of that grid could please them.
    """
    return lpips(*shifted(pictures, targets, draws))


def shifted(pictures: torch.Tensor, targets: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
    """Both cut at the same random offset, `SHIFT` pixels smaller."""
    height, width = (extent - SHIFT for extent in pictures.shape[2:])
    top, left = draws.shared_integers(SHIFT, 2)
    a, b = (x[:, :, top : top + height, left : left + width] for x in (pictures, targets))
    return a, b
