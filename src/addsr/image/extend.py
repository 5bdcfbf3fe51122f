"""A picture continued beyond its bottom and right borders, for networks that take certain sizes only."""

import torch


def extended(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`picture` (..., h, w), mirrored at its borders to (..., height, width), neither smaller; itself where it is as large.

    Mirrored, because what lies beyond should look like what is there: repeated border pixels turn noise into streaks, which
    restorers take for texture.
    """
    if tuple(picture.shape[-2:]) == (height, width):
        return picture
    for axis, length in ((-2, height), (-1, width)):
        there = picture.shape[axis]
        # folded again and again, where the margin is larger than the picture
        place = torch.arange(length, device=picture.device) % (2 * there)
        picture = picture.index_select(axis, torch.where(place < there, place, 2 * there - 1 - place))
    return picture
