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


def _fade(tile: slice, overlap: tuple[int, int] | None, outside: float) -> torch.Tensor:
    """At the positions of `tile`: 0 before the overlap (start, stop), 1 after it, rising smoothly over its middle half.

    The outer quarters stay with one tile, as the outermost positions of the other know least of their surroundings.
    Without an overlap, `outside` everywhere.
    """
    positions = torch.arange(tile.start, tile.stop, dtype=torch.float64) + 0.5
    if overlap is None:
        return torch.full_like(positions, outside)
    middle, half = (overlap[0] + overlap[1]) / 2, max((overlap[1] - overlap[0]) / 4, 0.5)
    ramp = ((positions - middle) / half).clamp(-1, 1) / 2 + 0.5
    return ramp * ramp * (3 - 2 * ramp)


def plan_axis(length: int, tile: int, overlap: int, align: int) -> list[AxisTile]:
    """Cut 0..length into tiles of `tile`, spread evenly at multiples of `align`, neighbours overlapping by about `overlap`.
    The last one ends where the axis does, whatever that is a multiple of; a tile not shorter than the axis covers it alone.
    """
    if tile >= length:
        return [AxisTile(0, length, torch.ones(length))]
    stride = tile - overlap
    count = -(-(length - overlap) // stride)
    step = (length - tile) / (count - 1)
    starts = [int(i * step) // align * align for i in range(count - 1)] + [length - tile]
    overlaps = [(start, before + tile) for before, start in pairwise(starts)]
    tiles = []
    for start, ours, following in zip(starts, [None, *overlaps], [*overlaps, None], strict=True):
        # A tile's share is what its own fade-in has over the next one's: the sum telescopes to 1 whatever overlaps.
        here = slice(start, start + tile)
        tiles.append(AxisTile(start, start + tile, (_fade(here, ours, 1.0) - _fade(here, following, 0.0)).float()))
    return tiles
