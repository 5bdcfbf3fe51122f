"""Of which frequencies fine detail is, whatever its strength: no period, and no direction, that HR has not.

What a generator invents where little is known, it makes by a few habits: stripes along the axes and a canvas of always the
same periods, some of them seven times as strong as in photos. Each is faint among edges, and neither LPIPS nor the strength
of detail by octave minds; in the power spectrum of a picture, averaged over its places, they stand out.
"""

import torch

from addsr.losses.normalized_luminance import locally_normalized, luminance

WINDOW = 32  # pixels along a side, over which a spectrum is taken; the next window is half of it away
FAINT = 0.1  # of the mean power: added to HR's, so that frequencies which it nearly lacks do not outweigh all others


def spectral_distance(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared difference of the power spectra of locally normalized luminance in units of HR's (chi-squared), as a mean over
    frequencies. Both are shares of the whole power: how much detail there is, does not count.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides of at least 32 pixels; targets are HR.

    Returns:
        (N,).
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours = _shares(pictures.float())
        with torch.no_grad():
            theirs = _shares(targets.float())
        return ((ours - theirs).square() / (theirs + FAINT)).mean((1, 2))


def _shares(pictures: torch.Tensor) -> torch.Tensor:
    """(N, WINDOW, WINDOW / 2 + 1): mean power by frequency over all windows, about 1 on average over frequencies."""
    hann = torch.hann_window(WINDOW, device=pictures.device)
    grey = locally_normalized(luminance(pictures))[:, 0]
    windows = grey.unfold(1, WINDOW, WINDOW // 2).unfold(2, WINDOW, WINDOW // 2) * hann * hann[:, None]
    power = torch.fft.rfft2(windows).abs().square().mean((1, 2))
    return power / (power.mean((1, 2), keepdim=True) + 1e-3)
