"""The condition picture of a Stable-Diffusion-size model: LR enlarged, with sides that its autoencoder can halve.

The paper says nothing of sizes. Ours pads; the released inference enlarges by Pillow's 8-bit bicubic filter and then
shrinks to multiples of eight, which distorts a little (`released`).
"""

import numpy as np
import torch
from PIL import Image

from addsr.image.extend import extended
from addsr.image.resize import resize
from addsr.image.uint8 import from_uint8, to_uint8

MODEL_SCALE = 4  # the factor that the models are trained for
SHORT_SIDE = 512  # Stable Diffusion's own: a smaller picture is enlarged to it and shrunk again
LONG_SIDE = 2048  # but never to more than this, or a thin picture would become a huge one
SMALLEST = 64  # one latent at the U-Net's coarsest level


def conditioning_picture(lr: torch.Tensor, multiple: int, *, released: bool = False) -> torch.Tensor:
    """LR (3, h, w) in [0, 1] -> (3, H, W) in [0, 1], sides multiples of `multiple`, if possible at least 512."""
    if released:
        return _released(lr, multiple)
    height, width = lr.shape[1:]
    full, padded = enlarged_size(height, width), conditioning_size(height, width, multiple)
    return extended(resize(lr, full).clamp(0, 1), *padded)


def conditioning_size(height: int, width: int, multiple: int, *, released: bool = False) -> tuple[int, int]:
    """(H, W) of the condition picture of LR (height, width)."""
    enlarged = enlarged_size(height, width, released=released)
    if released:
        rows, columns = (side // multiple * multiple for side in enlarged)
    else:
        rows, columns = (max(side + -side % multiple, SMALLEST) for side in enlarged)
    return rows, columns


def enlarged_size(height: int, width: int, *, released: bool = False) -> tuple[int, int]:
    """(H, W) of the enlarged picture: four times LR, or more where LR is so small."""
    if released:
        # in floating point and cut, as there: 49 pixels become 127, not 128
        scale = max(1.0, SHORT_SIDE // MODEL_SCALE / min(height, width))
        return MODEL_SCALE * int(scale * height), MODEL_SCALE * int(scale * width)
    factor = max(float(MODEL_SCALE), min(SHORT_SIDE / min(height, width), LONG_SIDE / max(height, width)))
    return round(height * factor), round(width * factor)


def fitted(restored: torch.Tensor, lr: torch.Tensor, *, released: bool = False) -> torch.Tensor:
    """The restored picture, its padding cut off, at four times LR."""
    height, width = lr.shape[1:]
    size = (height * MODEL_SCALE, width * MODEL_SCALE)
    if released:
        image = Image.fromarray(to_uint8(restored)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return from_uint8(np.asarray(image))
    return resize(restored, size)


def _released(lr: torch.Tensor, multiple: int) -> torch.Tensor:
    image = Image.fromarray(to_uint8(lr))
    size = lr.shape[1], lr.shape[2]
    height, width = enlarged_size(*size, released=True)
    image = image.resize((width // MODEL_SCALE, height // MODEL_SCALE)).resize((width, height))
    height, width = conditioning_size(*size, multiple, released=True)
    return from_uint8(np.asarray(image.resize((width, height))))
