"""What the pipelines take."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from addsr.image.read import read_pil

ImageInput = Image.Image | Sequence[Image.Image] | np.ndarray | torch.Tensor


def to_tensor(image: ImageInput) -> torch.Tensor:
    """PIL images, a float array (N, H, W, 3) or a tensor (N, 3, H, W) in [0, 1] -> (N, 3, H, W) in [0, 1].

    PIL images may have any mode and must have one size; they are turned upright, and transparency is dropped.

    Raises:
        ValueError: for another shape or type.
        InputImageError: for a PIL image that is damaged or too large.
    """
    if isinstance(image, Image.Image):
        image = [image]
    if not isinstance(image, np.ndarray | torch.Tensor):
        image = torch.stack([read_pil(picture).pixels for picture in image])
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image).permute(0, 3, 1, 2) if image.ndim == 4 else torch.from_numpy(image)
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(f"image is {image.dtype} of shape {tuple(image.shape)}; expected float (N, 3, H, W)")
    return image.float() if image.dtype == torch.float64 else image  # which MPS does not have
