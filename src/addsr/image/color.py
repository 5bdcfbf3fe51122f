"""Global colour fix: take the low frequencies (wavelet) or the channel statistics (AdaIN) from the LR picture.

Always over the whole picture, never per tile, but in strips, so that only one picture-sized buffer exists.
Formulas: StableSR's wavelet fix and AdaIN (Huang & Belongie 2017), as the official code applies them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

COLOR_FIXES = ("wavelet", "adain", "none")
LEVELS = 5
REACH = 2**LEVELS - 1  # rows to each side that a low-passed row depends on
STRIP = 128  # rows at a time
COLUMNS = 2048  # and columns

# a slice of rows -> those rows of the source (3, rows, W) in [0, 1]
SourceRows = Callable[[slice], torch.Tensor]


def low_frequencies(picture: torch.Tensor) -> torch.Tensor:
    """(3, H, W) after five dilated 3×3 binomial blurs, dilations 1 to 16, at replicated borders."""
    taps = torch.tensor([0.25, 0.5, 0.25], device=picture.device, dtype=picture.dtype)
    kernel = (taps[:, None] * taps).expand(3, 1, 3, 3)
    for level in range(LEVELS):
        radius = 2**level
        padded = F.pad(picture[None], (radius,) * 4, mode="replicate")
        picture = F.conv2d(padded, kernel, groups=3, dilation=radius)[0]
    return picture


def _wavelet(target: torch.Tensor, source_rows: SourceRows) -> None:
    """Target += low(source - target): blurring is linear, so this is high(target) + low(source)."""
    height, width = target.shape[1:]
    kept, kept_from = target[:, :0], 0  # original rows above the strip, which are overwritten by then
    for start in range(0, height, STRIP):
        stop = min(start + STRIP, height)
        top, bottom = max(start - REACH, 0), min(stop + REACH, height)
        original = torch.cat([kept[:, top - kept_from :], target[:, start:bottom]], dim=1)
        kept_from = max(stop - REACH, 0)
        kept = original[:, kept_from - top : stop - top].clone()
        difference = source_rows(slice(top, bottom)).sub_(original)
        for left in range(0, width, COLUMNS):
            right = min(left + COLUMNS, width)
            west, east = max(left - REACH, 0), min(right + REACH, width)
            low = low_frequencies(difference[:, :, west:east])
            target[:, start:stop, left:right] += low[:, start - top : stop - top, left - west : right - west]


def _statistics(rows: SourceRows, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sqrt(unbiased variance + 1e-5) of each channel, (3, 1, 1)."""
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for start in range(0, height, STRIP):
        strip = rows(slice(start, min(start + STRIP, height))).double()
        count += strip[0].numel()
        total += strip.sum((1, 2)).cpu()
        squares += strip.square().sum((1, 2)).cpu()
    mean = total / count
    variance = (squares - count * mean**2).clamp_min(0) / max(count - 1, 1)
    return mean.float().view(3, 1, 1), (variance + 1e-5).sqrt().float().view(3, 1, 1)


def _adain(target: torch.Tensor, source_rows: SourceRows) -> None:
    height = target.shape[1]
    mean, std = _statistics(lambda rows: target[:, rows], height)
    source_mean, source_std = _statistics(source_rows, height)
    target.sub_(mean).div_(std).mul_(source_std).add_(source_mean)


def fix_color(target: torch.Tensor, source_rows: SourceRows, kind: str) -> None:
    """Correct `target` (3, H, W) in [0, 1] in place; the result may leave [0, 1].

    Args:
        target: the restored picture, float32 on the CPU.
        source_rows: gives rows of the LR picture at the same size, as a tensor of their own.
        kind: `wavelet`, `adain` or `none`.

    Raises:
        ValueError: for another kind.
    """
    if kind not in COLOR_FIXES:
        raise ValueError(f"unknown colour fix {kind!r}: expected one of {', '.join(COLOR_FIXES)}")
    if kind == "wavelet":
        _wavelet(target, source_rows)
    elif kind == "adain":
        _adain(target, source_rows)
