"""Tiles of an autoencoder that go through it in step and share the statistics of its norms, as the released code's do.

So brightness and contrast do not jump between tiles, and these are cut instead of faded: each reads somewhat more than it
keeps. The shared variance leaves out that of the tiles' means, and attention stays within a tile, so
the result is near that of the whole, not the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import torch
import torch.nn.functional as F

from addsr.models.autoencoder_passage import Normalize, Passage

GROUPS = 8  # whose statistics are taken at a time: those of half precision are computed in float32


@dataclass(frozen=True)
class Lockstep:
    """How a side of the input is cut: a tile keeps `size` at most (`pad` more at a border) and reads `pad` beyond."""

    size: int
    pad: int

    def cuts(self, sides: Sequence[int]) -> bool:
        """Whether an input of such sides is cut at all."""
        return max(sides) > self.size + 2 * self.pad

    def count(self, sides: Sequence[int]) -> int:
        """How many tiles it is cut into."""
        return math.prod(len(plan_parts(side, self)) for side in sides) if self.cuts(sides) else 1


@dataclass(frozen=True)
class InStep:
    """Of an autoencoder: its decoder's tiles in latents, its encoder's in pixels; None takes the picture whole."""

    decoder: Lockstep
    encoder: Lockstep | None = None


@dataclass(frozen=True)
class Part:
    """What a tile reads along a side, and what it keeps of that."""

    read: slice
    keep: slice


def plan_parts(length: int, lockstep: Lockstep) -> list[Part]:
    """The tiles along a side: equal ones, in the released way rounded up to a multiple of 32, 16, 8, 4 or 2 that fits."""
    size, pad = lockstep.size, lockstep.pad
    inner = length - 2 * pad
    count = max(1, math.ceil(inner / size))
    side = math.ceil(inner / count)
    side = next((up for multiple in (32, 16, 8, 4, 2) if (up := -(-side // multiple) * multiple) <= size), side)
    parts = []
    for i in range(count):
        start, stop = pad + i * side, min(pad + (i + 1) * side, length)
        keep = slice(start if i else 0, stop if stop < length - pad else length)
        parts.append(Part(slice(max(0, start - pad), min(length, stop + pad)), keep))
    return parts


def run_in_step(passages: Sequence[Passage]) -> list[torch.Tensor]:
    """Run the passages of all tiles from norm to norm, each norm with the tiles' common statistics; their results."""
    results: list[torch.Tensor] = []
    waiting = [next(passage) for passage in passages]
    while waiting:
        normalize = _common(waiting[0][0], [hidden_states for _, hidden_states in waiting])
        following = []
        for passage in passages:
            del waiting[0]  # what waited is the passage's alone now
            try:
                following.append(passage.send(normalize))
            except StopIteration as end:
                results.append(end.value)
        waiting = following
    return results


def _common(norm: torch.nn.GroupNorm, tiles: Sequence[torch.Tensor]) -> Normalize:
    """The norm with mean and variance within a tile, each averaged over the tiles' pixels, in float32."""
    groups, epsilon = norm.num_groups, norm.eps
    pixels = sum(tile.shape[2] * tile.shape[3] for tile in tiles)
    mean = variance = 0.0
    for tile in tiles:
        share = tile.shape[2] * tile.shape[3] / pixels
        parts = tile.unflatten(1, (groups, -1)).split(GROUPS, 1)
        own = [torch.var_mean(part.float(), dim=(2, 3, 4), correction=0) for part in parts]
        variance = variance + share * torch.cat([each for each, _ in own], 1)
        mean = mean + share * torch.cat([each for _, each in own], 1)
    assert isinstance(mean, torch.Tensor)
    assert isinstance(variance, torch.Tensor)
    # (N, groups) -> for each channel of each picture: batch norm takes them in float32, whatever the tile's precision
    every = [values.repeat_interleave(norm.num_channels // groups, 1).flatten() for values in (mean, variance)]
    affine = [values.float().repeat(len(tiles[0])) for values in (norm.weight, norm.bias)]

    def normalize(tile: torch.Tensor) -> torch.Tensor:
        flat = tile.reshape(1, -1, *tile.shape[2:]) if len(tile) > 1 else tile
        if tile.device.type == "mps":  # which, before torch 2.13, ends the program at half precision beside float32
            flat = flat.float()
        normed = F.batch_norm(flat, every[0], every[1], affine[0], affine[1], eps=epsilon)
        return normed.to(tile.dtype).reshape(tile.shape)

    return normalize


def coded_in_step(
    begin: Callable[[slice, slice], Passage],
    sides: Sequence[int],
    lockstep: Lockstep,
    factor: Fraction | int,
    on_tile: Callable[[], None] | None = None,
    to: torch.device | None = None,
) -> torch.Tensor:
    """The result of all tiles of an input of so many rows and columns, put together.

    Args:
        begin: rows and columns that a tile reads -> its passage.
        sides: rows and columns of the input.
        lockstep: how they are cut.
        factor: positions of the result to one of the input, along a side.
        on_tile: called for each tile, when all are done.
        to: where the result is kept; default: where the tiles' are.
    """
    tiles = list(product(*(plan_parts(side, lockstep) for side in sides)))
    results = run_in_step([begin(row.read, column.read) for row, column in tiles])
    shape = (*results[0].shape[:2], *(int(side * factor) for side in sides))
    whole = results[0].new_empty(shape, device=to)
    for row, column in tiles:
        kept = results.pop(0)[(..., *(_moved(part.keep, -part.read.start, factor) for part in (row, column)))]
        whole[(..., *(_moved(part.keep, 0, factor) for part in (row, column)))] = kept.to(whole.device)
        if on_tile is not None:
            on_tile()
    return whole


def _moved(part: slice, by: int, factor: Fraction | int) -> slice:
    return slice(int((part.start + by) * factor), int((part.stop + by) * factor))
