"""Upscaler: any picture in, a restored and enlarged one out. Sizes, tiles, colour and transparency are its business."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from addsr.diffusion.restorer import Restorer
from addsr.errors import AddSRError, InputImageError
from addsr.image.color import COLOR_FIXES, fix_color
from addsr.image.picture import Picture, from_array
from addsr.image.read import read_picture, read_pil
from addsr.image.resize import resize, resize_region
from addsr.image.tiling import AxisTile, plan_axis
from addsr.image.transparency import fill_clear
from addsr.runtime.device import is_out_of_memory

MODEL_SCALE = 4  # the factor that the models are trained for
MAX_OUTPUT_PIXELS = 1_000_000_000
AUTO_TILE, MIN_TILE = 1024, 128  # output pixels along a side
OVERLAP = 128  # output pixels that neighbouring tiles share

Photo = str | Path | Image.Image | np.ndarray
Progress = Callable[[int, int], None]  # tiles done, tiles in all


@dataclass(frozen=True)
class RestoreOptions:
    """How a picture is restored; None stands for the model's own default.

    Attributes:
        scale: factor of the result, from 1 (restore only).
        steps: 1 to 4.
        seed: of all noise.
        psr_weight: 0 to 1, prediction-based self-refinement from the second step on.
        tile: side of the tiles in output pixels; None chooses.
        color_fix: `wavelet`, `adain` or `none`.
    """

    scale: float = 4.0
    steps: int | None = None
    seed: int = 0
    psr_weight: float | None = None
    tile: int | None = None
    color_fix: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 1):
            raise AddSRError(f"scale is {self.scale:g}; it must be 1 or more")
        if self.steps is not None and not 1 <= self.steps <= 4:
            raise AddSRError(f"steps is {self.steps}; it must be 1 to 4")
        if self.psr_weight is not None and not 0 <= self.psr_weight <= 1:
            raise AddSRError(f"psr_weight is {self.psr_weight:g}; it must be 0 to 1")
        if self.tile is not None and self.tile < MIN_TILE:
            raise AddSRError(f"tile is {self.tile}; it must be at least {MIN_TILE}")
        if self.color_fix is not None and self.color_fix not in COLOR_FIXES:
            raise AddSRError(f"color_fix is {self.color_fix!r}; it must be one of {', '.join(COLOR_FIXES)}")


class Upscaler:
    """Restores pictures with one loaded model.

    Args:
        restorer: the model, with the defaults that belong to its weights.
        name: how the model is called in messages and metadata.
        sha256: of its weights.
    """

    def __init__(self, restorer: Restorer, name: str, sha256: str = "") -> None:
        self.restorer, self.name, self.sha256 = restorer, name, sha256

    def __call__(
        self,
        photo: Photo,
        *,
        scale: float = 4.0,
        steps: int | None = None,
        seed: int = 0,
        psr_weight: float | None = None,
        tile: int | None = None,
        color_fix: str | None = None,
        progress: Progress | None = None,
    ) -> Image.Image:
        """Restore one photo.

        Args:
            photo: a path, a PIL image of any mode, or an array (H, W[, 1 to 4]), uint8 or float in [0, 1].
            progress: called after each tile.
            (others): see RestoreOptions.

        Returns:
            An 8-bit image of round(width · scale) × round(height · scale), at least 1×1: L, LA, RGB or RGBA as the input
            was.

        Raises:
            InputImageError: if the photo cannot be read or is too large.
            AddSRError: for an option out of its range.
        """
        options = RestoreOptions(scale, steps, seed, psr_weight, tile, color_fix)
        if isinstance(photo, np.ndarray):
            picture = from_array(photo)
        elif isinstance(photo, Image.Image):
            picture = read_pil(photo)
        else:
            picture = read_picture(Path(photo))
        return self.restore(picture, options, progress).to_pil()

    def made_by(self, options: RestoreOptions) -> dict[str, Any]:
        """What the metadata of a result says."""
        model = self.restorer
        return {
            "model": self.name,
            "sha256": self.sha256,
            "scale": options.scale,
            "steps": options.steps or model.num_inference_steps,
            "seed": options.seed,
            "psr_weight": model.psr_weight if options.psr_weight is None else options.psr_weight,
            "color_fix": options.color_fix or model.color_fix,
        }

    @staticmethod
    def output_size(picture: Picture, scale: float) -> tuple[int, int]:
        """(height, width) of the result: Python's round(side · scale), at least 1.

        Raises:
            InputImageError: if that, or the model's own result at MODEL_SCALE, is more than MAX_OUTPUT_PIXELS.
        """
        height, width = (max(1, round(side * scale)) for side in picture.size)
        working = max(scale, MODEL_SCALE) ** 2 * picture.size[0] * picture.size[1]
        if working > MAX_OUTPUT_PIXELS:
            limit, needed = MAX_OUTPUT_PIXELS / 1e6, working / 1e6
            size = f"{picture.size[1]}×{picture.size[0]} at scale {scale:g}"
            raise InputImageError(f"{size} takes {needed:.0f} megapixels to restore, the limit is {limit:.0f}")
        return height, width

    def restore(self, picture: Picture, options: RestoreOptions, progress: Progress | None = None) -> Picture:
        """Restore a decoded picture; see __call__."""
        size = self.output_size(picture, options.scale)
        pixels = picture.pixels if picture.alpha is None else fill_clear(picture.pixels, picture.alpha)
        pixels = self._restore_planes(pixels, size, options, progress)
        if picture.gray:
            pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
        alpha = None if picture.alpha is None else self._restore_alpha(picture.alpha, size, options)
        return replace(picture, pixels=pixels, alpha=alpha)

    def _restore_alpha(self, alpha: torch.Tensor, size: tuple[int, int], options: RestoreOptions) -> torch.Tensor:
        """As a grey picture; what is wholly opaque or wholly clear, with its surroundings, stays exactly so."""
        restored = self._restore_planes(alpha.expand(3, -1, -1), size, replace(options, color_fix="wavelet"), None)
        restored = restored.mean(0, keepdim=True).clamp(0, 1)
        highest = F.max_pool2d(alpha[None], 5, 1, 2)[0]
        lowest = -F.max_pool2d(-alpha[None], 5, 1, 2)[0]
        for value, flat in ((0.0, highest == 0), (1.0, lowest == 1)):
            restored[F.interpolate(flat[None].float(), size, mode="nearest")[0] > 0] = value
        return restored

    def _restore_planes(
        self, lr: torch.Tensor, size: tuple[int, int], options: RestoreOptions, progress: Progress | None
    ) -> torch.Tensor:
        """(3, h, w) -> (3, *size). The model enlarges by 4; other factors resample its result, or its input beyond 4."""
        if options.scale > MODEL_SCALE:
            lr = resize(lr, (-(-size[0] // MODEL_SCALE), -(-size[1] // MODEL_SCALE))).clamp(0, 1)
        restored = self._run_in_full_range(lr, options, progress)
        kind = options.color_fix or self.restorer.color_fix
        full = (restored.shape[1], restored.shape[2])
        fix_color(restored, lambda rows: resize_region(lr, full, rows, slice(0, full[1])).clamp(0, 1), kind)
        return resize(restored.clamp_(0, 1), size).clamp_(0, 1)

    def _run_in_full_range(self, lr: torch.Tensor, options: RestoreOptions, progress: Progress | None) -> torch.Tensor:
        """Run the tiles; where half precision overflows, the whole picture once more in float32."""
        try:
            return self._run_with_less_memory(lr, options, progress)
        except _NotFiniteError:
            dtype = self.restorer.placement.dtype
        self.restorer.to(torch.float32)
        try:
            return self._run_with_less_memory(lr, options, progress)
        except _NotFiniteError:
            message = "the model gave values that are not finite, in float32 too; its weights are damaged"
            raise AddSRError(message) from None
        finally:
            self.restorer.to(dtype)

    def _run_with_less_memory(
        self, lr: torch.Tensor, options: RestoreOptions, progress: Progress | None
    ) -> torch.Tensor:
        """Run the tiles; where the memory does not suffice, smaller ones."""
        tile = AUTO_TILE
        if options.tile is not None:  # in output pixels; the model's own are finer where its result is shrunk
            tile = round(options.tile * max(1.0, MODEL_SCALE / options.scale))
        while True:
            try:
                return self._run_tiles(lr, tile, options, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside the handler: the traceback would keep the tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if tile <= MIN_TILE:
                raise AddSRError(f"out of memory even with tiles of {tile} pixels; use --device cpu")
            tile = max(MIN_TILE, tile // 2)

    def _run_tiles(
        self, lr: torch.Tensor, tile: int, options: RestoreOptions, progress: Progress | None
    ) -> torch.Tensor:
        """The picture (3, h, w), enlarged by 4 in feathered tiles, float32 on the CPU."""
        multiple = self.restorer.size_multiple
        full = (lr.shape[1] * MODEL_SCALE, lr.shape[2] * MODEL_SCALE)
        padded = tuple(-(-side // multiple) * multiple for side in full)
        side = -(-tile // multiple) * multiple
        overlap = min(OVERLAP, side // 2)
        rows, columns = (plan_axis(length, side, overlap, multiple) for length in padded)
        result = torch.zeros(3, *full)
        for done, (row, column) in enumerate((r, c) for r in rows for c in columns):
            restored = self._run_tile(_condition(lr, full, row, column), row, column, options)
            height, width = min(row.stop, full[0]) - row.start, min(column.stop, full[1]) - column.start
            weights = row.weights[:height, None] * column.weights[:width]
            region = result[:, row.start : row.start + height, column.start : column.start + width]
            region += restored[:, :height, :width] * weights
            if progress is not None:
                progress(done + 1, len(rows) * len(columns))
        return result

    @torch.no_grad()
    def _run_tile(
        self, condition: torch.Tensor, row: AxisTile, column: AxisTile, options: RestoreOptions
    ) -> torch.Tensor:
        factor = self.restorer.vae_scale_factor
        x0 = self.restorer(
            condition[None],
            num_inference_steps=options.steps,
            psr_weight=options.psr_weight,
            seed=options.seed,
            positions=[(row.start // factor, column.start // factor)],
        )
        restored = self.restorer.decode_latents(x0)[0].float() / 2 + 0.5
        if not bool(restored.isfinite().all()):
            raise _NotFiniteError
        return restored.clamp(0, 1).cpu()


class _NotFiniteError(ArithmeticError):
    """A tile has values that are not finite."""


def _condition(lr: torch.Tensor, full: tuple[int, int], row: AxisTile, column: AxisTile) -> torch.Tensor:
    """The tile of the LR picture enlarged to `full`, continued by replication where the tile reaches beyond it."""
    bottom, right = min(row.stop, full[0]), min(column.stop, full[1])
    part = resize_region(lr, full, slice(row.start, bottom), slice(column.start, right)).clamp(0, 1)
    return F.pad(part[None], (0, column.stop - right, 0, row.stop - bottom), mode="replicate")[0]
