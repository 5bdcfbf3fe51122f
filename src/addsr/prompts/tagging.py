"""Tags of a photo by a tagger alone."""

from typing import Any

import torch
import torch.nn.functional as F

from addsr.image.normalize import ENCODER_SIDE, imagenet_normalized


def encoder_pixels(lr: torch.Tensor, antialias: bool = True) -> torch.Tensor:
    """A photo (3, h, w) in [0, 1] at its own size -> (1, 3, 384, 384), squeezed square and ImageNet-normalised.

    The released code does not filter a larger photo before it shrinks it (`antialias=False`).
    """
    pixels = F.interpolate(
        lr[None], (ENCODER_SIDE, ENCODER_SIDE), mode="bilinear", align_corners=False, antialias=antialias
    )
    return imagenet_normalized(pixels)


class Tagging:
    """A tagger that takes photos.

    Args:
        tagger: a Tagger.
    """

    def __init__(self, tagger: Any) -> None:
        self.tagger = tagger

    @torch.no_grad()
    def tags(self, lr: torch.Tensor) -> list[str]:
        """The tags of a photo (3, h, w) in [0, 1].

        Raises:
            ModelError: where the tagger came without its tag list.
        """
        return self.tagger.tags(self.tagger(encoder_pixels(lr).to(self.tagger.fc.weight)))[0]
