"""How much fine detail there is, by octave and direction: grain that should not be there, and detail that is missing.

Sharpness without anybody's feature network. LPIPS on SqueezeNet is pleased with a fine grain over flat surfaces; the eye,
LPIPS on other features and NIQE are not: that is the excess. L1 alone blurs what it cannot know: that is what is missing.
Which detail it is, does not count here, only its strength: L1 beside it says where an edge lies.

Asked for all of HR's detail where little can be known, a generator invents it at the wrong places. So of each octave it is
asked for less, the less it has got right of the next coarser one: nearly all of it in a clean picture, about seven
tenths of the finest in a hopeless one (with a doubt of a third).
"""

import torch
import torch.nn.functional as F

from addsr.image.detail import fine_detail
from addsr.image.smoothing import smoothed

OCTAVES = 3  # about 2 to 16 pixels
WINDOW = 7  # of an octave's own pixels along a side, over which its strength is taken


def excess_and_missing_detail(
    pictures: torch.Tensor, targets: torch.Tensor, doubt: float | torch.Tensor = 1 / 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over all places, and sums over octaves, of how much detail is too strong, and too weak.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides of at least 32 pixels; targets are HR.
        doubt: power of the correlation with HR of each octave that is the share of HR's strength asked for of the next
            finer one, or (N,) such powers; 0 asks for all of it.

    Returns:
        (N,) and (N,).
    """
    with torch.autocast(pictures.device.type, enabled=False):  # bf16's steps are as coarse as the grain
        return _excess_and_missing(pictures.float(), targets.float(), torch.as_tensor(doubt).to(pictures.device))


def _excess_and_missing(
    pictures: torch.Tensor, targets: torch.Tensor, doubt: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    octaves = _octaves(pictures, OCTAVES + 1)
    with torch.no_grad():
        wanted = _octaves(targets, OCTAVES + 1)
        known = [
            F.cosine_similarity(ours.flatten(1), theirs.flatten(1)).clamp(min=0)
            for ours, theirs in zip(octaves[1:], wanted[1:], strict=True)
        ]
        shares = [(correlation**doubt)[:, None, None, None] for correlation in known]
        strengths = [_strengths(theirs) * share for theirs, share in zip(wanted[:-1], shares, strict=True)]
    excess = missing = pictures.new_zeros(len(pictures))
    for ours, strength in zip(octaves[:-1], strengths, strict=True):
        difference = _strengths(ours) - strength
        excess = excess + F.relu(difference).mean((1, 2, 3))
        missing = missing + F.relu(-difference).mean((1, 2, 3))
    return excess, missing


def _octaves(pictures: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The fine detail of the pictures, of the pictures at half their size, and so on."""
    octaves = []
    for _ in range(count):
        octaves.append(fine_detail(pictures))
        pictures = (pictures - octaves[-1])[:, :, ::2, ::2]
    return octaves


def _strengths(detail: torch.Tensor) -> torch.Tensor:
    """Root mean square (N, 4, h, w) in a window of the grey detail's slopes: across, down and along both diagonals."""
    grey = detail.mean(1, keepdim=True)
    corner = grey[:, :, :-1, :-1]
    across, down = grey[:, :, :-1, 1:] - corner, grey[:, :, 1:, :-1] - corner
    slopes = torch.cat([across, down, (across + down) / 2**0.5, (across - down) / 2**0.5], 1)
    return (smoothed(slopes.square(), (1.0,) * WINDOW, reflect=False) + 1e-6).sqrt()
