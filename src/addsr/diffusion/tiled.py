"""Networks over a picture in tiles: each evaluation is cut, run and blended again, so that all steps see the whole.

Blending each step (MultiDiffusion, Bar-Tal et al. 2023) keeps the overlaps of networks with statistics or attention over
space from drifting apart, as whole restorations of tiles would.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from addsr.image.tiling import AxisTile, plan_axis

WINDOWS = ("feather", "gaussian")
VARIANCE = 0.01  # of the released Gaussian window, in units of the tile's side


@dataclass(frozen=True)
class Tiling:
    """How the latents are cut.

    Attributes:
        size: side of a tile in latents.
        overlap: latents that neighbours share.
        window: `feather` (shares fade over the overlap), or `gaussian`: square tiles from the top left, the last one
            pulled back to the border, weighted as SeeSR's released code weights them.
        in_step: whether Stable Diffusion's autoencoder runs as the released code runs it, whole or in its own tiles that
            share the statistics of its norms (see `addsr.diffusion.lockstep`); else its tiles are as those of the
            latents, and always feathered. Default: with the released window.
    """

    size: int = 96
    overlap: int = 16
    window: str = "feather"
    in_step: bool | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"a tile of {self.size} latents cannot overlap by {self.overlap}")
        if self.window not in WINDOWS:
            raise ValueError(f"window is {self.window!r}; it must be one of {', '.join(WINDOWS)}")


Tiles = Sequence[tuple[AxisTile, AxisTile]]


def plan_tiles(height: int, width: int, tiling: Tiling | None, align: int = 1, scale: int = 1) -> Tiles:
    """The (row, column) tiles of latents (height, width); one for all of it where there is nothing to cut.

    Args:
        height, width: in latents.
        tiling: None for one tile.
        align: tiles but the last start at multiples of it, in latents.
        scale: the result counts in latents times this: 8 for the pixels of Stable Diffusion's autoencoder.
    """
    if tiling is None or (tiling.window == "gaussian" and height * width <= tiling.size**2):
        tiling = Tiling(max(height, width), 0)
    if tiling.window == "feather":
        axes = [
            plan_axis(length * scale, tiling.size * scale, tiling.overlap * scale, align * scale)
            for length in (height, width)
        ]
    else:
        size = min(tiling.size, height, width)
        axes = [
            _gaussian_axis(length * scale, size * scale, tiling.overlap * scale, middle)
            for length, middle in ((height, size * scale / 2), (width, (size * scale - 1) / 2))
        ]
    return [(row, column) for row in axes[0] for column in axes[1]]


def _gaussian_axis(length: int, size: int, overlap: int, middle: float) -> list[AxisTile]:
    positions = torch.arange(size, dtype=torch.float64)
    window = torch.exp(-((positions - middle) ** 2) / size**2 / (2 * VARIANCE)) / math.sqrt(2 * math.pi * VARIANCE)
    stride = max(size - overlap, 1)
    count = max(1, -(-(length - overlap) // stride))
    starts = [min(i * stride, length - size) for i in range(count)]
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += window
    return [AxisTile(start, start + size, (window / total[start : start + size]).float()) for start in starts]


def blend(run: Callable[[slice, slice], torch.Tensor], tiles: Tiles, to: torch.device | None = None) -> torch.Tensor:
    """Run each tile and add it up by its weights.

    Args:
        run: rows and columns -> the result there (N, C, h, w).
        tiles: from `plan_tiles`, in the result's units.
        to: where the sum is kept; default: where the results are. A single tile's result is returned as it is.
    """
    if len(tiles) == 1:
        ((row, column),) = tiles
        only = run(slice(row.start, row.stop), slice(column.start, column.stop))
        return only if to is None else only.to(to)
    height, width = (max(tile[axis].stop for tile in tiles) for axis in (0, 1))
    total: torch.Tensor | None = None
    dtype = torch.float32
    for row, column in tiles:
        part = run(slice(row.start, row.stop), slice(column.start, column.stop))
        if total is None:
            dtype = part.dtype
            total = torch.zeros((*part.shape[:2], height, width), device=to or part.device)
        weights = (row.weights[:, None] * column.weights).to(total.device)
        total[..., row.start : row.stop, column.start : column.stop] += part.to(total) * weights
    assert total is not None
    return total.to(dtype)
