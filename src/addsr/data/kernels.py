"""Blur kernels of the Real-ESRGAN degradation (Wang et al. 2021, section 3), each a float32 array that sums to 1."""

import numpy as np
import torch

SHAPES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float, rotation: float, *, shape: str = "gaussian", beta: float = 1.0
) -> np.ndarray:
    """Rotated (generalised) Gaussian or plateau kernel.

    Args:
        size: odd side in pixels.
        sigma_x, sigma_y: standard deviations in pixels along the rotated axes.
        rotation: radians.
        shape: `gaussian`, `generalized` (exp(-q^beta / 2)) or `plateau` (1 / (1 + q^beta)).
        beta: exponent of the last two.
    """
    axis = np.arange(size) - size // 2
    x, y = np.meshgrid(axis, axis)
    cosine, sine = np.cos(rotation), np.sin(rotation)
    q = ((cosine * x + sine * y) / sigma_x) ** 2 + ((cosine * y - sine * x) / sigma_y) ** 2  # Mahalanobis distance²
    kernel = 1 / (1 + q**beta) if shape == "plateau" else np.exp(-0.5 * (q if shape == "gaussian" else q**beta))
    return (kernel / kernel.sum()).astype(np.float32)


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """Circular low-pass filter, which rings as sharpening and resampling do.

    Args:
        size: odd side in pixels.
        cutoff: radians a pixel, in (0, pi].
    """
    axis = np.arange(size) - size // 2
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    radius[size // 2, size // 2] = 1  # any value but 0: the centre is set below
    kernel = cutoff * torch.special.bessel_j1(torch.from_numpy(cutoff * radius)).numpy() / (2 * np.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * np.pi)
    return (kernel / kernel.sum()).astype(np.float32)
