"""What the pipelines return."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils.outputs import BaseOutput
from PIL import Image

from addsr.image.uint8 import to_uint8


@dataclass
class RestorationOutput(BaseOutput):
    """Result of a pipeline call.

    Attributes:
        images: by `output_type`: `pil`, a list of PIL images; `np`, float32 (N, H, W, 3) in [0, 1]; `pt`, a tensor
            (N, 3, H, W) in [0, 1]; `latent`, the last x0 (N, C, H/f, W/f), multiplied by the scaling factor.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor


OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def to_output(picture: torch.Tensor, output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
    """A picture (N, 3, H, W), about [0, 1] -> the wanted type; 8-bit values are rounded."""
    picture = picture.float().clamp(0, 1)
    if output_type == "pt":
        return picture
    if output_type == "np":
        return picture.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(to_uint8(one)) for one in picture.cpu()]
