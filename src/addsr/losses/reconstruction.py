"""Pixel and perceptual distance to HR, and the balance between easy and hopeless pictures."""

import torch
import torch.nn.functional as F

from addsr.data.degradation import SCALE
from addsr.data.draws import Draws
from addsr.image.resize import resize
from addsr.losses.lpips import SqueezeLPIPS
from addsr.losses.normalized_luminance import luminance

SHIFT = 8  # pixels that the pictures are shifted by at most before LPIPS
TYPICAL = 0.1  # loss of a typical picture, at which balancing leaves the gradient as it is
SURROUNDINGS = 9  # pixels along a side, over which luminance spans what it does
SPANS = (0.3, 0.7)  # of luminance: a fifth of photos spans more than the first, and nine tenths of letters


def balanced(losses: torch.Tensor, balance: float) -> torch.Tensor:
    """The pictures' losses (N,) on a logarithmic scale: the gradient falls as 1 / (loss + balance); 0 changes nothing.

    On a linear scale hopeless pictures drown the clean ones, which then come out as blurred as if they were hopeless too.
    """
    if not balance:
        return losses
    return (TYPICAL + balance) * torch.log1p(losses / balance)


def l1_at_contrasts(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean (N,) of the absolute difference in places where HR's luminance spans much within a few pixels, times how much,
    over all places: of letters, thin lines and outlines, which are read, so that there it counts which detail it is.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1]; targets are HR.
    """
    with torch.no_grad():
        grey, around = luminance(targets), (SURROUNDINGS, 1, SURROUNDINGS // 2)
        span = F.max_pool2d(grey, *around) + F.max_pool2d(-grey, *around)
        weights = ((span - SPANS[0]) / (SPANS[1] - SPANS[0])).clamp(0, 1)
    return (weights * (pictures - targets).abs()).mean((1, 2, 3))


def l1_of_the_known(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean (N,) of the absolute difference when both are as small as LR: of what clean LR shows of HR, and no invented
    detail has a reason to change. L1 at full size is nearly all of the detail.

    Args:
        pictures, targets: (N, 3, H, W), sides a multiple of `SCALE`.
    """
    height, width = pictures.shape[2:]
    with torch.autocast(pictures.device.type, enabled=False):  # bf16 would round what is weighed here
        return resize((pictures - targets).float(), (height // SCALE, width // SCALE)).abs().mean((1, 2, 3))


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
