"""A decoded picture and what must survive the restoration: its mode, transparency, colour profile, EXIF, XMP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from addsr.errors import InputImageError

ROWS = 256  # at a time, where a picture is converted


@dataclass(frozen=True)
class Picture:
    """What is restored.

    Attributes:
        pixels: (3, H, W) float32 in [0, 1], in the colour space of `icc_profile` (sRGB where that is None).
        mode: of the result: L, LA, RGB or RGBA.
        alpha: (1, H, W) float32 in [0, 1], not premultiplied; None where all is opaque.
        gray: the picture has no colour, so the result must have none, whatever its mode.
        icc_profile: bytes to write along, or None.
        exif: the photo's EXIF as bytes, upright, or None.
        xmp: its XMP as UTF-8, upright, or None.
        dpi: pixels an inch (across, down) as the file says, or None. A result says the same, as its EXIF does.
        words: of a result, for its metadata: the tags recognised and the whole prompt, where the model takes words.
    """

    pixels: torch.Tensor
    mode: str
    alpha: torch.Tensor | None = None
    gray: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    words: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def to_pil(self) -> Image.Image:
        """8-bit, of the picture's mode, values rounded; profile, EXIF, XMP and resolution are in `info`."""
        color = self.pixels[: 1 if self.mode.startswith("L") else 3]
        parts = [color]
        if self.mode.endswith("A"):
            parts.append(torch.ones_like(color[:1]) if self.alpha is None else self.alpha)
        array = np.empty((*self.size, sum(len(part) for part in parts)), np.uint8)
        for top in range(0, self.size[0], ROWS):
            strip = torch.cat([part[:, top : top + ROWS] for part in parts])
            array[top : top + ROWS] = strip.clamp(0, 1).mul_(255).round_().byte().permute(1, 2, 0).numpy()
        image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        if self.icc_profile:
            image.info["icc_profile"] = self.icc_profile
        if self.exif:
            image.info["exif"] = self.exif
        if self.xmp:
            image.info["xmp"] = self.xmp
        if self.dpi:
            image.info["dpi"] = self.dpi
        return image


def from_array(array: np.ndarray) -> Picture:
    """A picture from an array (H, W) or (H, W, 1 | 2 | 3 | 4): grey, grey and alpha, RGB, RGBA.

    Args:
        array: uint8 in 0..255, uint16 in 0..65535, or floating in [0, 1].

    Raises:
        InputImageError: for another shape or dtype, an empty array, or values that are not finite or not in [0, 1].
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise InputImageError(f"an array of shape {array.shape} is no picture; expected (H, W) or (H, W, 1 to 4)")
    if array.dtype in (np.uint8, np.uint16):
        values = array.astype(np.float32) / np.iinfo(array.dtype).max
    elif np.issubdtype(array.dtype, np.floating):
        values = array.astype(np.float32)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise InputImageError("a float array must hold finite values in [0, 1]")
    else:
        raise InputImageError(f"an array of {array.dtype} is no picture; expected uint8, uint16 or float")
    planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
    mode = ("L", "LA", "RGB", "RGBA")[len(planes) - 1]
    color = planes[: 1 if mode.startswith("L") else 3]
    alpha = planes[len(color) :] if mode.endswith("A") else None
    if alpha is not None and bool((alpha == 1).all()):
        alpha = None
    gray = len(color) == 1 or bool((color[0] == color[1]).all() and (color[1] == color[2]).all())
    return Picture(color.expand(3, -1, -1).contiguous(), mode, alpha, gray)
