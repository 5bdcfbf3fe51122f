"""Photos degraded one way at a time, at several strengths: what lies between the clean and the ruined cases.

    python benchmarks/strengths.py HR OUT
    python benchmarks/quality.py compact --cases OUT --hr HR --tools TOOLS --steps 1

writes OUT/noise-5 and the like (sigma of noise in levels of 255, sigma of blur in HR pixels, quality of JPEG), with LR
pictures a quarter of HR's size by the same names; every photo has its own seed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from addsr.data.degradation import SCALE, add_gaussian_noise, filter2d, jpeg
from addsr.data.kernels import gaussian_kernel
from addsr.image.resize import resize
from addsr.image.uint8 import from_uint8, to_uint8

Degradation = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]


def shrunk(hr: torch.Tensor) -> torch.Tensor:
    """(3, H, W) -> (3, H/4, W/4), bicubic."""
    return resize(hr, (hr.shape[1] // SCALE, hr.shape[2] // SCALE))


def degradations() -> dict[str, Degradation]:
    """By folder."""
    found: dict[str, Degradation] = {}
    for sigma in (2, 5, 10, 20):
        found[f"noise-{sigma:02}"] = lambda hr, rng, sigma=sigma: add_gaussian_noise(shrunk(hr), sigma, False, rng)
    for sigma in (1, 3):
        kernel = gaussian_kernel(21, sigma, sigma, 0.0)
        found[f"blur-{sigma}"] = lambda hr, _, kernel=kernel: shrunk(filter2d(hr, kernel))
    for quality in (90, 70):
        found[f"jpeg-{quality}"] = lambda hr, _, quality=quality: jpeg(shrunk(hr), quality)
    return found


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hr", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for name, degrade in degradations().items():
        folder = options.out / name
        folder.mkdir(parents=True)
        for index, path in enumerate(sorted(options.hr.glob("*.png"))):
            hr = from_uint8(np.asarray(Image.open(path).convert("RGB")))
            Image.fromarray(to_uint8(degrade(hr, np.random.default_rng(index)))).save(folder / path.name)


if __name__ == "__main__":
    main()
