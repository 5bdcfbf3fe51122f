"""From a sharp photo to a degraded one a quarter of its size: the Real-ESRGAN two-order process and the paper's four cases.

Pure functions of (picture, settings, generator). Pictures are float32 tensors (3, H, W) in [0, 1]; generators are NumPy's.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from addsr.data.kernels import SHAPES, gaussian_kernel, sinc_kernel
from addsr.data.ranges import Range, WholeRange, check_around_one, check_probabilities, check_probability, check_range
from addsr.image.area import area
from addsr.image.resize import resize
from addsr.image.uint8 import from_uint8, to_uint8

SCALE = 4
EXACT_BELOW = 8  # mean of Poisson numbers
CASES = ("bicubic", "blur", "noise", "mix")


def _exactly(shares: Sequence[float]) -> np.ndarray:
    """Shares that add up to 1 as exactly as NumPy asks for."""
    return np.asarray(shares) / np.sum(shares)


@dataclass(frozen=True)
class StageSettings:
    """One of the two orders. Sigmas of noise are in levels of 255, JPEG qualities those of libjpeg.

    Attributes:
        blur_probability: how often the stage blurs at all.
        sinc_probability: how often its blur is a sinc filter.
        sigma: standard deviation of the blur in pixels.
        resize_probabilities: enlarge, shrink, keep.
        resize_range: the smallest and the largest factor.
        gaussian_probability: Gaussian noise this often, else Poisson noise.
        gaussian_sigma, poisson_scale: strength of the noise.
        gray_probability: the same noise in all channels this often.
        jpeg_quality: lowest and highest.
    """

    blur_probability: float
    sinc_probability: float
    sigma: Range
    resize_probabilities: tuple[float, float, float]
    resize_range: Range
    gaussian_probability: float
    gaussian_sigma: Range
    poisson_scale: Range
    gray_probability: float
    jpeg_quality: WholeRange

    def __post_init__(self) -> None:
        for name in ("blur_probability", "sinc_probability", "gaussian_probability", "gray_probability"):
            check_probability(name, getattr(self, name))
        check_probabilities("resize_probabilities", self.resize_probabilities, 3)
        for name, lowest, highest in (
            ("sigma", 0.01, np.inf),
            ("gaussian_sigma", 0, np.inf),
            ("poisson_scale", 0, np.inf),
            ("jpeg_quality", 1, 100),
        ):
            check_range(name, getattr(self, name), lowest, highest)
        check_around_one("resize_range", self.resize_range)


@dataclass(frozen=True)
class DegradationSettings:
    """The numbers of the released AddSR/SeeSR training pairs, one by one; HR stays unsharpened.

    Attributes:
        first, second: the two orders.
        kernel_sizes: odd sides of the blur kernels in pixels.
        shape_probabilities: of the kernels' shapes, in the order of `addsr.data.kernels.SHAPES`.
        beta_generalized, beta_plateau: shape parameter of those kernels.
        sinc_cutoff_small, sinc_cutoff_large: cut-off of sinc filters in radians a pixel, of sides below 13 and from 13 on.
        final_sinc_probability, final_sinc_cutoff: of the sinc filter at the end.
        final_jpeg_last: how often the last JPEG follows that filter instead of preceding it.
    """

    first: StageSettings = StageSettings(
        1.0, 0.1, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), 0.5, (1, 30), (0.05, 3.0), 0.4, (30, 95)
    )
    second: StageSettings = StageSettings(
        0.8, 0.1, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), 0.5, (1, 25), (0.05, 2.5), 0.4, (30, 95)
    )
    kernel_sizes: Sequence[int] = tuple(range(7, 22, 2))
    shape_probabilities: Sequence[float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    sinc_cutoff_small: Range = (np.pi / 3, np.pi)
    sinc_cutoff_large: Range = (np.pi / 5, np.pi)
    final_sinc_probability: float = 0.8
    final_sinc_cutoff: Range = (np.pi / 3, np.pi)
    final_jpeg_last: float = 0.5

    def __post_init__(self) -> None:
        if not self.kernel_sizes or any(
            size not in range(3, 64, 2) for size in self.kernel_sizes
        ):  # a crop is 32 or more
            raise ValueError(f"kernel_sizes is {list(self.kernel_sizes)}; it must hold odd numbers of 3 to 63")
        check_probabilities("shape_probabilities", self.shape_probabilities, len(SHAPES))
        for name in ("beta_generalized", "beta_plateau"):
            check_around_one(name, getattr(self, name))
        for name in ("sinc_cutoff_small", "sinc_cutoff_large", "final_sinc_cutoff"):
            check_range(name, getattr(self, name), 0.01, np.pi)
        for name in ("final_sinc_probability", "final_jpeg_last"):
            check_probability(name, getattr(self, name))


def filter2d(picture: torch.Tensor, kernel: np.ndarray) -> torch.Tensor:
    """Correlation with an odd square kernel at reflected borders, through the FFT (kernels reach 21×21)."""
    pad = kernel.shape[0] // 2
    padded = F.pad(picture[None], (pad,) * 4, mode="reflect")[0]
    size = [_fast_length(extent) for extent in padded.shape[-2:]]  # the zeros beyond wrap into what is cut off
    rows = torch.fft.rfft(torch.from_numpy(kernel), n=size[1])  # the kernel's few rows, before the zeros below them
    transform = torch.fft.fft(rows, n=size[0], dim=0).conj()  # conj: correlation, not convolution
    filtered = torch.fft.irfft2(torch.fft.rfft2(padded, s=size) * transform, s=size)
    return filtered[:, : picture.shape[1], : picture.shape[2]]


def _fast_length(extent: int) -> int:
    """The next multiple of 32, of which most are products of small primes: up to three times as fast."""
    return -(-extent // 32) * 32


def jpeg(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """Through libjpeg (Pillow's default 4:2:0) and back."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(picture)).save(buffer, "JPEG", quality=quality)
    return from_uint8(np.asarray(Image.open(buffer, formats=("JPEG",))))


def add_gaussian_noise(picture: torch.Tensor, sigma: float, gray: bool, rng: np.random.Generator) -> torch.Tensor:
    """`sigma` in levels of 255."""
    return picture + standard_normal((1 if gray else 3, *picture.shape[1:]), rng) * (sigma / 255)


def standard_normal(shape: Sequence[int], rng: np.random.Generator) -> torch.Tensor:
    """From torch's generator, which takes half the time of NumPy's, seeded by NumPy's."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(int(rng.integers(1 << 62))))


def add_poisson_noise(picture: torch.Tensor, scale: float, gray: bool, rng: np.random.Generator) -> torch.Tensor:
    """Shot noise: of variance value / levels, times scale²; `levels` is the power of two above the count of values."""
    signal = picture.clamp(0, 1)
    if gray:
        signal = (signal * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
    distinct = np.count_nonzero(np.bincount(signal.mul(255).round().byte().flatten().numpy(), minlength=256))
    levels = 2 ** np.ceil(np.log2(max(2, distinct)))
    noisy = poisson(signal.numpy() * np.float32(levels), rng) / np.float32(levels)
    return picture + (torch.from_numpy(noisy) - signal) * scale


def poisson(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson numbers as float32: exact up to a mean of 8, above it by the Cornish-Fisher expansion from a normal number,
    six times as fast and right to the third moment (0.3 per cent of the numbers are others at a mean of 8).
    """
    normal = standard_normal(mean.shape, rng).numpy()
    root = np.sqrt(np.maximum(mean, 1))
    numbers = np.maximum(np.rint(mean + root * normal + (normal * normal - 1) / 6), 0)
    few = mean < EXACT_BELOW
    numbers[few] = rng.poisson(mean[few])
    return numbers


def _interpolate(picture: torch.Tensor, size: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    """One of area, bilinear and bicubic, without antialiasing (as OpenCV resizes, and so the original process)."""
    mode = ("area", "bilinear", "bicubic")[rng.integers(3)]
    if mode == "area":
        return area(picture, size)
    return F.interpolate(picture[None], size=size, mode=mode)[0]


def _blur_kernel(stage: StageSettings, settings: DegradationSettings, rng: np.random.Generator) -> np.ndarray:
    size = int(rng.choice(settings.kernel_sizes))
    if rng.random() < stage.sinc_probability:
        return sinc_kernel(
            size, rng.uniform(*(settings.sinc_cutoff_small if size < 13 else settings.sinc_cutoff_large))
        )
    shape = SHAPES[rng.choice(len(SHAPES), p=_exactly(settings.shape_probabilities))]
    sigma_x = sigma_y = rng.uniform(*stage.sigma)
    rotation = 0.0
    if shape.endswith("aniso"):
        sigma_y, rotation = rng.uniform(*stage.sigma), rng.uniform(-np.pi, np.pi)
    if not shape.startswith(("generalized", "plateau")):
        return gaussian_kernel(size, sigma_x, sigma_y, rotation)
    low, high = settings.beta_plateau if shape.startswith("plateau") else settings.beta_generalized
    beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return gaussian_kernel(size, sigma_x, sigma_y, rotation, shape=shape.split("_")[0], beta=beta)


def _resize_factor(stage: StageSettings, rng: np.random.Generator) -> float:
    kind = rng.choice(3, p=_exactly(stage.resize_probabilities))
    low, high = stage.resize_range
    return float((rng.uniform(1, high), rng.uniform(low, 1), 1.0)[kind])


def _noise(picture: torch.Tensor, stage: StageSettings, rng: np.random.Generator) -> torch.Tensor:
    gray = rng.random() < stage.gray_probability
    if rng.random() < stage.gaussian_probability:
        noisy = add_gaussian_noise(picture, rng.uniform(*stage.gaussian_sigma), gray, rng)
    else:
        noisy = add_poisson_noise(picture, rng.uniform(*stage.poisson_scale), gray, rng)
    return noisy.clamp(0, 1)  # as a sensor clips, before anything is resized again


def two_order(picture: torch.Tensor, settings: DegradationSettings, rng: np.random.Generator) -> torch.Tensor:
    """Real-ESRGAN's high-order process: (3, H, W) in [0, 1], sides divisible by the scale -> (3, H/4, W/4), 8-bit values."""
    height, width = picture.shape[1:]
    small = (height // SCALE, width // SCALE)

    first = settings.first
    out = filter2d(picture, _blur_kernel(first, settings, rng)) if rng.random() < first.blur_probability else picture
    factor = _resize_factor(first, rng)
    out = _interpolate(out, (max(8, int(height * factor)), max(8, int(width * factor))), rng)
    out = jpeg(_noise(out, first, rng), int(rng.integers(*first.jpeg_quality, endpoint=True)))

    second = settings.second
    if rng.random() < second.blur_probability and min(out.shape[1:]) > max(settings.kernel_sizes):
        out = filter2d(out, _blur_kernel(second, settings, rng))
    factor = _resize_factor(second, rng)
    out = _interpolate(out, (max(8, int(small[0] * factor)), max(8, int(small[1] * factor))), rng)
    out = _noise(out, second, rng)

    def shrink(x: torch.Tensor) -> torch.Tensor:
        x = _interpolate(x, small, rng)
        if rng.random() >= settings.final_sinc_probability or min(small) <= max(settings.kernel_sizes) // 2:
            return x
        return filter2d(
            x, sinc_kernel(int(rng.choice(settings.kernel_sizes)), rng.uniform(*settings.final_sinc_cutoff))
        )

    quality = int(rng.integers(*second.jpeg_quality, endpoint=True))
    out = jpeg(shrink(out), quality) if rng.random() < settings.final_jpeg_last else shrink(jpeg(out, quality))
    return from_uint8(to_uint8(out))


def fixed_case(picture: torch.Tensor, case: str, rng: np.random.Generator, scale: int = SCALE) -> torch.Tensor:
    """The AddSR paper's Table 2: `bicubic`; `blur` (sigma 2); `noise` (sigma 40); `mix` (blur 2, noise 20, JPEG 50)."""
    if case not in CASES:
        raise ValueError(f"unknown case {case!r}: expected one of {', '.join(CASES)}")
    if case in ("blur", "mix"):
        picture = filter2d(picture, gaussian_kernel(17, 2.0, 2.0, 0.0))
    out = resize(picture, (picture.shape[1] // scale, picture.shape[2] // scale))
    if case == "noise":
        out = add_gaussian_noise(out, 40, False, rng)
    if case == "mix":
        out = jpeg(add_gaussian_noise(out, 20, False, rng), 50)
    return from_uint8(to_uint8(out))
