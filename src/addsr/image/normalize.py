"""The normalisation that networks trained on ImageNet expect."""

import torch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENCODER_SIDE = 384  # pixels of the square picture that RAM takes


def imagenet_normalized(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [0, 1] -> zero mean and unit variance over ImageNet, by channel."""
    mean, std = (pictures.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures - mean) / std
