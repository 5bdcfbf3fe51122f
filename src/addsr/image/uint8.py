"""Between pictures as tensors in [0, 1] and as arrays of bytes."""

import numpy as np
import torch


def to_uint8(picture: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8, rounded."""
    return picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()


def from_uint8(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)
