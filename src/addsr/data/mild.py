"""A photo as cameras, telephones and the web leave most: a little soft, a little noisy, lightly compressed.

The two-order process ruins nearly every picture, and the paper's cases are clean or ruined: a model that has seen nothing
between takes the faint noise of a good camera for texture, and draws it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from addsr.data.degradation import SCALE, filter2d, jpeg, standard_normal
from addsr.data.kernels import gaussian_kernel
from addsr.data.ranges import Range, WholeRange, check_probability, check_range
from addsr.image.area import area
from addsr.image.resize import resize
from addsr.image.uint8 import from_uint8, to_uint8

KERNEL = 7  # LR pixels along a side, of what smooths noise and sharpens
BLUR_KERNEL = 21  # HR pixels
SHARPENED = 1.0  # LR pixels: the standard deviation below which sharpening exaggerates


@dataclass(frozen=True)
class MildSettings:
    """One order: lens, shrinking, sensor, the camera's own sharpening, JPEG; each may be left out.

    Attributes:
        blur_probability: how often the photo is blurred before it shrinks.
        sigma: standard deviations of the blur along its two axes, in HR pixels.
        noise_probability: how often there is noise.
        noise_sigma: its standard deviation in levels of 255, of which all octaves are alike frequent.
        gray_probability: the same noise in all channels this often.
        smooth_probability: how often it is correlated, as denoising and the sensor's mosaic leave it.
        smoothness: standard deviation of what it is smoothed with, in LR pixels.
        sharpening_probability: how often the result is sharpened, its noise too.
        sharpening: by how much of what a blur of one LR pixel takes away.
        jpeg_probability: how often it is compressed.
        jpeg_quality: lowest and highest, as libjpeg counts.
    """

    blur_probability: float = 0.8
    sigma: Range = (0.2, 2.8)
    noise_probability: float = 0.8
    noise_sigma: Range = (0.5, 20.0)
    gray_probability: float = 0.2
    smooth_probability: float = 0.5
    smoothness: Range = (0.4, 1.0)
    sharpening_probability: float = 0.3
    sharpening: Range = (0.0, 0.6)
    jpeg_probability: float = 0.6
    jpeg_quality: WholeRange = (60, 98)

    def __post_init__(self) -> None:
        for name in ("blur", "noise", "gray", "smooth", "sharpening", "jpeg"):
            check_probability(f"{name}_probability", getattr(self, f"{name}_probability"))
        for name, lowest, highest in (
            ("sigma", 0.01, BLUR_KERNEL / 3),
            ("noise_sigma", 0.01, np.inf),
            ("smoothness", 0.01, KERNEL / 6),
            ("sharpening", 0, np.inf),
            ("jpeg_quality", 1, 100),
        ):
            check_range(name, getattr(self, name), lowest, highest)


def mild(picture: torch.Tensor, settings: MildSettings, rng: np.random.Generator) -> torch.Tensor:
    """(3, H, W) in [0, 1], sides divisible by the scale and of 32 pixels at least -> (3, H/4, W/4), 8-bit values."""
    small = (picture.shape[1] // SCALE, picture.shape[2] // SCALE)
    out = picture
    if rng.random() < settings.blur_probability:
        sigma_x, sigma_y = rng.uniform(*settings.sigma), rng.uniform(*settings.sigma)
        out = filter2d(out, gaussian_kernel(BLUR_KERNEL, sigma_x, sigma_y, rng.uniform(-np.pi, np.pi)))
    out = resize(out, small) if rng.random() < 0.5 else area(out, small)
    if rng.random() < settings.noise_probability:
        out = (out + _noise(small, settings, rng)).clamp(0, 1)
    if rng.random() < settings.sharpening_probability:
        soft = filter2d(out, gaussian_kernel(KERNEL, SHARPENED, SHARPENED, 0.0))
        out = out + rng.uniform(*settings.sharpening) * (out - soft)
    if rng.random() < settings.jpeg_probability:
        out = jpeg(out, int(rng.integers(*settings.jpeg_quality, endpoint=True)))
    return from_uint8(to_uint8(out))


def _noise(size: tuple[int, int], settings: MildSettings, rng: np.random.Generator) -> torch.Tensor:
    """(3, h, w) or, of all channels alike, (1, h, w)."""
    low, high = np.log(settings.noise_sigma)
    sigma = float(np.exp(rng.uniform(low, high))) / 255
    channels = 1 if rng.random() < settings.gray_probability else 3
    if rng.random() >= settings.smooth_probability:
        return sigma * standard_normal((channels, *size), rng)
    smoothness, reach = rng.uniform(*settings.smoothness), KERNEL // 2
    kernel = gaussian_kernel(KERNEL, smoothness, smoothness, 0.0)
    wider = standard_normal((channels, size[0] + 2 * reach, size[1] + 2 * reach), rng)  # its border is cut off again
    smooth = filter2d(wider, kernel)[:, reach:-reach, reach:-reach]
    return sigma / float(np.sqrt(np.square(kernel).sum())) * smooth
