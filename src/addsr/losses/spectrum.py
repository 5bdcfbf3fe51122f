"""Of which frequencies fine detail is, hardly how strong it is: no period, and no direction, that HR has not.

What a generator invents where little is known, it makes by a few habits: strokes along the axes and a canvas of always the
same periods, some of them seven times as strong as in photos. Each is faint among edges, and neither LPIPS nor the strength
of detail by octave minds; in the power spectrum of a picture, averaged over its places, they stand out.
"""

import torch

from addsr.losses.normalized_luminance import local_contrast

WINDOW = 32  # pixels along a side, over which a spectrum is taken; the next window is half of it away
VISIBLE = 4 / 255  # contrast from which a place counts about as much as any other
FEW = 0.05  # mean power of pictures that are mostly flat, and count less
FAINT = 0.05  # share of the power, of the mean, below which a frequency counts less


def spectral_distance(pictures: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared logarithm of the ratio of the power spectra of each locally normalized colour, over frequencies. Both are
    shares of the whole power, plus FAINT: how much detail there is, counts only where it is faint. Of each colour, as
    periods would go from luminance into colour. Of small pictures much is chance, as they have few windows: independent
    noise of 64², 128² and 256² is 0.2, 0.04 and 0.008 from one another.

    Args:
        pictures, targets: (N, 3, H, W) in about [0, 1], sides of at least 32 pixels; targets are HR.

    Returns:
        (N,).
    """
    with torch.autocast(pictures.device.type, enabled=False):
        ours = power_shares(pictures.float())
        with torch.no_grad():
            theirs = power_shares(targets.float())
        return mean_over_frequencies(((ours + FAINT) / (theirs + FAINT)).log().square()).mean(1)


def power_shares(pictures: torch.Tensor) -> torch.Tensor:
    """(N, C, WINDOW, WINDOW / 2 + 1) of (N, C, H, W): power by frequency, a mean over all windows, in units of its mean."""
    power = local_power(pictures).mean((2, 3))
    return power / (mean_over_frequencies(power)[..., None, None] + FEW)


def local_power(pictures: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w, WINDOW, WINDOW / 2 + 1) of (N, C, H, W): power by frequency of each window of the locally normalized
    channels; its mean over frequencies is about 1 where contrast is high.
    """
    hann = torch.hann_window(WINDOW, device=pictures.device)
    taper = hann * hann[:, None]
    centred, variance = local_contrast(pictures)
    detail = centred / ((variance + 1e-6).sqrt() + VISIBLE)
    windows = detail.unfold(2, WINDOW, WINDOW // 2).unfold(3, WINDOW, WINDOW // 2) * taper
    return torch.fft.rfft2(windows).abs().square() / taper.square().sum()


def mean_over_frequencies(spectra: torch.Tensor) -> torch.Tensor:
    """(...) of (..., WINDOW, WINDOW / 2 + 1): of the whole spectrum, of which `rfft2` leaves out the mirrored half."""
    return (spectra * column_weights().to(spectra.device)).sum(-1).mean(-1)


def column_weights() -> torch.Tensor:
    """(WINDOW / 2 + 1,) that sums to 1: the part of the whole spectrum that each column of the half stands for."""
    weights = torch.full((WINDOW // 2 + 1,), 2 / WINDOW)
    weights[0] = weights[-1] = 1 / WINDOW
    return weights
