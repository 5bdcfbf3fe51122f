"""A picture through the networks, with the words that go with it: in tiles, again in float32 where half precision
overflows, and in smaller tiles where memory is short.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, product
from typing import Any

import torch

from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.released import RELEASED_TILES
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.tiled import Tiling, blend
from addsr.errors import AddSRError
from addsr.image.conditioning import MODEL_SCALE
from addsr.image.extend import extended
from addsr.image.resize import resize_region
from addsr.image.tiling import AxisTile, plan_axis
from addsr.options import MIN_TILE, RestoreOptions
from addsr.prompts.describe import Describer
from addsr.runtime.device import is_out_of_memory

OVERLAP = 128  # output pixels that neighbouring tiles share
NOT_FINITE = "the model gave values that are not finite, in float32 too; its weights are damaged"

Progress = Callable[[int, int], None]  # tiles done, tiles in all


@dataclass(frozen=True)
class Run:
    """One restoration.

    Attributes:
        picture: LR (3, h, w), or, for a model that is not local, its condition picture (3, H, W), in [0, 1].
        options: as the user gave them.
        asked: what they leave open included.
        progress: called after each tile.
        photo: what the words and tokens are of, (3, h, w) in [0, 1].
        words: gets those that were found.
    """

    picture: torch.Tensor
    options: RestoreOptions
    asked: ModelDefaults
    progress: Progress | None
    photo: torch.Tensor
    words: dict[str, Any]


class Runner:
    """Runs one model; threads that share it take turns.

    Args:
        restorer: the model.
        describer: what tells the networks of a photo in words and tokens; None for a model without.
    """

    def __init__(self, restorer: Restorer, describer: Describer | None) -> None:
        self.restorer, self.describer = restorer, describer
        self._lock = threading.RLock()

    def __call__(self, run: Run) -> torch.Tensor:
        """The picture (3, H, W) in [0, 1], at the model's own size, float32 on the CPU.

        Where half precision overflows, the whole picture is made once more in float32. One thread at a time: that casts
        the networks, and offloading moves them.

        Raises:
            AddSRError: where the memory does not suffice, or the weights are damaged.
        """
        with self._lock:
            try:
                return self._run_with_less_memory(run)
            except _NotFiniteError:
                dtype = self.restorer.placement.dtype
                if dtype == torch.float32:
                    raise AddSRError(NOT_FINITE) from None
            try:
                self.restorer.to(torch.float32)
                return self._run_with_less_memory(run)
            except _NotFiniteError:
                raise AddSRError(NOT_FINITE) from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = "half precision overflowed, and the memory does not hold the weights in float32"
                raise AddSRError(f"{message}; use --device cpu") from error
            finally:
                self.restorer.to(dtype)  # a cast that broke off has left some networks behind

    def _run_with_less_memory(self, run: Run) -> torch.Tensor:
        """Run; where the memory does not suffice, first without tiles that go in step, then in smaller tiles."""
        tile, smallest = self.tile_sides(run.options)
        in_step = not self.restorer.is_local and self.restorer.coder.in_step(self.tiling(tile, run.options)) is not None
        while True:
            try:
                if self.restorer.is_local:
                    return self._run_tiles(run, tile)
                tiling = self.tiling(tile, run.options)
                return self._run_whole(run, tiling if in_step else replace(tiling, in_step=False))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # outside the handler: the traceback would keep the tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if in_step:
                in_step = False
                continue
            if tile <= smallest:
                message = f"out of memory even with tiles of {tile} pixels"
                on_cpu = self.restorer.placement.device.type == "cpu"
                raise AddSRError(f"{message}; use {'a smaller --scale' if on_cpu else '--device cpu'}")
            tile = max(smallest, tile // 2)

    def local_tiles(self, full: tuple[int, ...], tile: int) -> tuple[list[AxisTile], list[AxisTile]]:
        """Rows and columns of a local model's tiles over its own result of (height, width), padded to its multiple."""
        multiple = self.restorer.size_multiple
        side = -(-tile // multiple) * multiple
        overlap = min(OVERLAP, side // 2)
        rows, columns = (plan_axis(-(-length // multiple) * multiple, side, overlap, multiple) for length in full)
        return rows, columns

    def tile_sides(self, options: RestoreOptions) -> tuple[int, int]:
        """Side of the tiles in pixels of the model's own result, and the smallest that memory may force them to."""
        chosen, smallest = (1024, MIN_TILE) if self.restorer.is_local else (768, 256)
        if options.tile is not None:  # in output pixels; the model's own are finer where its result is shrunk
            chosen = round(options.tile * max(1.0, MODEL_SCALE / options.scale))
        return chosen, min(chosen, smallest)

    def tiling(self, tile: int, options: RestoreOptions) -> Tiling:
        """How a model that is not local cuts its networks' evaluations, for tiles of so many pixels."""
        factor = self.restorer.vae_scale_factor
        side = max(tile // factor, 1)
        whole = options.tile is None and tile == self.tile_sides(options)[0]
        sampler = self.restorer.sampler.name
        if sampler in RELEASED_TILES and options.compat == "released" and whole:  # as long as memory suffices
            return Tiling(RELEASED_TILES[sampler], self.restorer.defaults.released_overlap, "gaussian")
        coarsest = self.restorer.unet.downscale
        side = -(-side // coarsest) * coarsest
        return Tiling(side, min(OVERLAP // factor, side // 2) // coarsest * coarsest or side // 2)

    @torch.no_grad()
    def _run_whole(self, run: Run, tiling: Tiling) -> torch.Tensor:
        """All steps over the whole picture, each evaluation of the networks in tiles; float32 on the CPU."""
        restorer, options, asked, condition = self.restorer, run.options, run.asked, run.picture
        height, width = condition.shape[1:]
        done = 0

        def on_tile() -> None:
            nonlocal done
            done += 1
            if run.progress is not None:
                run.progress(done, total)

        context: dict[str, Any] = {}
        if self.describer is not None:
            released = options.compat == "released"
            description = self.describer(run.photo, options.words, asked.guidance_scale, antialias=not released)
            names = ("prompt_embeds", "negative_prompt_embeds", "image_encoder_hidden_states")
            context = {name: getattr(description, name) for name in names}
            if description.prompt_embeds is not None:
                run.words.update(recognised=description.tags, full_prompt=description.prompt)
        total = restorer.tile_count(height, width, tiling, asked)
        x0 = restorer(
            condition[None],
            num_inference_steps=asked.num_inference_steps,
            psr_weight=asked.psr_weight,
            guidance_scale=asked.guidance_scale,
            start_point=asked.start_point,
            seed=options.seed,
            tiling=tiling,
            on_tile=on_tile,
            **context,
        )
        restored = restorer.decode_latents(x0, tiling, on_tile, torch.device("cpu"))[0]
        if not bool(restored.isfinite().all()):
            raise _NotFiniteError
        return restored.clamp_(0, 1)

    def _run_tiles(self, run: Run, tile: int) -> torch.Tensor:
        """LR, enlarged by 4 in feathered tiles, float32 on the CPU."""
        height, width = (length * MODEL_SCALE for length in run.picture.shape[1:])
        axes = self.local_tiles((height, width), tile)
        tiles, full = list(product(*axes)), (axes[0][-1].stop, axes[1][-1].stop)
        lr = extended(run.picture, full[0] // MODEL_SCALE, full[1] // MODEL_SCALE)
        done = count(1)

        def restored(rows: slice, columns: slice) -> torch.Tensor:
            part = self._run_tile(run, resize_region(lr, full, rows, columns).clamp(0, 1), rows, columns)
            if run.progress is not None:
                run.progress(next(done), len(tiles))
            return part

        return blend(restored, tiles)[0, :, :height, :width]

    @torch.no_grad()
    def _run_tile(self, run: Run, condition: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
        factor = self.restorer.vae_scale_factor
        x0 = self.restorer(
            condition[None],
            num_inference_steps=run.asked.num_inference_steps,
            psr_weight=run.asked.psr_weight,
            start_point=run.asked.start_point,
            seed=run.options.seed,
            positions=[(rows.start // factor, columns.start // factor)],
        )
        restored = self.restorer.decode_latents(x0)
        if not bool(restored.isfinite().all()):
            raise _NotFiniteError
        return restored.clamp(0, 1).cpu()


class _NotFiniteError(ArithmeticError):
    """A tile has values that are not finite."""
