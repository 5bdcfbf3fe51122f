"""Tile geometry: where the tiles of an axis lie, and how they fade into each other. Pure numbers, no networks."""

from dataclasses import dataclass
from itertools import pairwise

import torch


@dataclass(frozen=True)
class AxisTile:
    """One tile of an axis.

    Attributes:
        start, stop: what it covers.
        weights: (stop - start,) its share of each position; the shares of all tiles of the axis sum to 1.
    """

    start: int
    stop: int
    weights: torch.Tensor


def _fade(length: int, start: int, stop: int) -> torch.Tensor:
    """0 before the overlap start..stop, 1 after it; rises smoothly over the overlap's middle half.

    The outer quarters stay with one tile, as the outermost positions of the other know least of their surroundings.
    """
    middle, half = (start + stop) / 2, max((stop - start) / 4, 0.5)
    positions = torch.arange(length, dtype=torch.float64) + 0.5
    ramp = ((positions - middle) / half).clamp(-1, 1) / 2 + 0.5
    return ramp * ramp * (3 - 2 * ramp)


def plan_axis(length: int, tile: int, overlap: int, align: int) -> list[AxisTile]:
    """Cut 0..length into tiles of `tile`, spread evenly at multiples of `align`, neighbours overlapping by about `overlap`.

    `length` and `tile` are multiples of `align`; a tile not shorter than the axis covers it alone.
    """
    if tile >= length:
        return [AxisTile(0, length, torch.ones(length))]
    stride = tile - overlap
    count = -(-(length - overlap) // stride)
    step = (length - tile) / (count - 1)
    starts = [int(i * step) // align * align for i in range(count - 1)] + [length - tile]
    # A tile's share is what its own fade-in has over the next one's: the sum telescopes to 1 whatever overlaps.
    fades = [torch.ones(length, dtype=torch.float64)]
    fades += [_fade(length, start, before + tile) for before, start in pairwise(starts)]
    fades.append(torch.zeros(length, dtype=torch.float64))
    return [
        AxisTile(start, start + tile, (fades[i] - fades[i + 1])[start : start + tile].float())
        for i, start in enumerate(starts)
    ]
