"""Upscaler: any picture in, a restored and enlarged one out. Sizes, words, colour and transparency are its business."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from addsr.dial import Dial
from addsr.diffusion.defaults import misfit
from addsr.diffusion.released import RELEASED_PSR_WEIGHT, RELEASED_TILES
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.sampler import Sampler
from addsr.diffusion.tiled import Tiling, blend
from addsr.errors import AddSRError, InputImageError
from addsr.image.color import fix_color
from addsr.image.conditioning import MODEL_SCALE, conditioning_picture, enlarged_size, fitted
from addsr.image.picture import Picture, from_array
from addsr.image.read import read_picture, read_pil
from addsr.image.resize import resize, resize_region
from addsr.image.tiling import AxisTile, plan_axis
from addsr.image.transparency import fill_clear
from addsr.prompts.describe import Describer
from addsr.prompts.options import PromptOptions
from addsr.runtime.device import is_out_of_memory

MAX_OUTPUT_PIXELS = 1_000_000_000
MIN_TILE = 128  # output pixels along a side
OVERLAP = 128  # output pixels that neighbouring tiles share
COMPAT = ("paper", "released")

Photo = str | Path | Image.Image | np.ndarray
Progress = Callable[[int, int], None]  # tiles done, tiles in all


@dataclass(frozen=True)
class RestoreOptions:
    """How a picture is restored; None stands for the model's own default.

    Attributes:
        scale: factor of the result, from 1 (restore only).
        steps: 1 to 4; SeeSR's sampler 1 to 999, D³SR's 1.
        seed: of all noise.
        psr_weight: 0 to 1, prediction-based self-refinement from the second step on.
        tile: side of the tiles in output pixels; None chooses.
        color_fix: `wavelet`, `adain` or `none`.
        words: prompt and tags, for a model with text.
        guidance_scale: of classifier-free guidance, for a model with text; 1 or less for none.
        start_point: `lr` or `noise`.
        compat: `paper`, or `released` for what the published inference does otherwise, see docs/published.md.
        fidelity: from 0, most detailed, to 1, most faithful, for a model with a set of weights for either.
    """

    scale: float = 4.0
    steps: int | None = None
    seed: int = 0
    psr_weight: float | None = None
    tile: int | None = None
    color_fix: str | None = None
    words: PromptOptions = field(default_factory=PromptOptions)
    guidance_scale: float | None = None
    start_point: str | None = None
    compat: str = "paper"
    fidelity: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 1):
            raise AddSRError(f"scale is {self.scale:g}; it must be 1 or more")
        if self.tile is not None and self.tile < MIN_TILE:
            raise AddSRError(f"tile is {self.tile}; it must be at least {MIN_TILE}")
        for name in ("psr_weight", "color_fix", "guidance_scale", "start_point"):
            value = getattr(self, name)
            if value is not None and (must := misfit(name, value)):
                raise AddSRError(f"{name} is {value!r}; it must be {must}")
        if self.fidelity is not None and not 0 <= self.fidelity <= 1:
            raise AddSRError(f"fidelity is {self.fidelity:g}; it must be 0 to 1")
        if self.compat not in COMPAT:
            raise AddSRError(f"compat is {self.compat!r}; it must be one of {', '.join(COMPAT)}")

    def check(self, sampler: Sampler, has_faithful: bool) -> None:
        """Whether a model can do it, of which the sampler is given, and whether it has faithful weights beside its own.

        Raises:
            AddSRError: for a number of steps that it does not have, fidelity that it cannot choose, or PSR without AddSR's
                sampler.
        """
        if self.fidelity and not has_faithful:
            raise AddSRError("fidelity cannot be chosen: the model has one set of weights only")
        if self.psr_weight and not sampler.refines:
            raise AddSRError("psr_weight has no effect: only AddSR's sampler refines its own prediction; leave it out")
        if self.steps is not None and (must := misfit("num_inference_steps", self.steps, sampler.name)):
            raise AddSRError(f"steps is {self.steps}; it must be {must}")


class Upscaler:
    """Restores pictures with one loaded model; threads that share it take turns.

    Args:
        restorer: the model, with the defaults that belong to its weights.
        name: how the model is called in messages and metadata.
        sha256: of its weights, or what computes it (gigabytes take a while) when it is first asked for.
        describer: what tells the networks of a photo in words and tokens; None for a model without.
        fidelity: where the weights stand between the model's own (0) and its faithful ones (1).

    Attributes:
        dial: has the model at other fidelities; None for one with a single set of weights.
    """

    def __init__(
        self,
        restorer: Restorer,
        name: str,
        sha256: str | Callable[[], str] = "",
        describer: Describer | None = None,
        fidelity: float = 0.0,
    ) -> None:
        self.restorer, self.name, self.describer, self.fidelity = restorer, name, describer, fidelity
        self.dial: Dial | None = None
        self._sha256 = sha256
        self._lock = threading.RLock()

    def at_fidelity(self, fidelity: float | None) -> "Upscaler":
        """The same model where the dial from most detailed (0) to most faithful (1) says; None: as it is.

        Raises:
            AddSRError: if the model has one set of weights only.
        """
        RestoreOptions(fidelity=fidelity).check(self.restorer.sampler, self.dial is not None)
        if fidelity is None or fidelity == self.fidelity or self.dial is None:
            return self
        return self.dial.at(fidelity)

    @property
    def sha256(self) -> str:
        """Of the weights."""
        if not isinstance(self._sha256, str):
            self._sha256 = self._sha256()
        return self._sha256

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
        prompt: str = "",
        tags: bool = True,
        added_prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        start_point: str | None = None,
        compat: str = "paper",
        fidelity: float | None = None,
        progress: Progress | None = None,
    ) -> Image.Image:
        """Restore one photo.

        Args:
            photo: a path, a PIL image of any mode (F in [0, 1], I in 0..65535), or an array (H, W[, 1 to 4]), uint8 or
                float in [0, 1].
            prompt, tags, added_prompt, negative_prompt: words for a model with text, see PromptOptions.
            progress: called after each tile.
            (others): see RestoreOptions.

        Returns:
            An 8-bit image of round(width · scale) × round(height · scale), at least 1×1: L, LA, RGB or RGBA as the input
            was.

        Raises:
            InputImageError: if the photo cannot be read or is too large.
            AddSRError: for an option out of its range.
        """
        words = PromptOptions(prompt, tags, added_prompt, negative_prompt)
        options = RestoreOptions(
            scale, steps, seed, psr_weight, tile, color_fix, words, guidance_scale, start_point, compat, fidelity
        )
        if isinstance(photo, np.ndarray):
            picture = from_array(photo)
        elif isinstance(photo, Image.Image):
            picture = read_pil(photo)
        else:
            picture = read_picture(Path(photo))
        return self.restore(picture, options, progress).to_pil()

    def made_by(self, options: RestoreOptions) -> dict[str, Any]:
        """What the metadata of a result says."""
        if options.fidelity is not None:
            return self.at_fidelity(options.fidelity).made_by(replace(options, fidelity=None))
        sampler, defaults = self.restorer.sampler, self.restorer.defaults
        return {
            "model": self.name,
            "sha256": self.sha256,
            "scale": options.scale,
            "steps": options.steps or defaults.num_inference_steps,
            "seed": options.seed,
            "color_fix": options.color_fix or defaults.color_fix,
            **({"psr_weight": self.psr_weight(options)} if sampler.refines else {}),
            **({"start_point": options.start_point or defaults.start_point} if sampler.starts_from_noise else {}),
            **({} if self.dial is None else {"fidelity": self.fidelity}),
            **({} if self.describer is None else self._made_by_words(options)),
        }

    def _made_by_words(self, options: RestoreOptions) -> dict[str, Any]:
        words = options.words
        return {
            "guidance_scale": self.guidance_scale(options),
            "prompt": words.prompt,
            "tags": words.tags,
            "added_prompt": words.added_prompt,
            "negative_prompt": words.negative_prompt,
            "compat": options.compat,
        }

    def psr_weight(self, options: RestoreOptions) -> float:
        """Of a restoration: the user's, the released code's, or the model's own, which goes to zero with the dial.

        The refined condition sharpens: on the bundled model, four steps at weight 0.5 lose 0.5 dB to weight 0, and
        gain 0.5 in NIQE (docs/training-log.md, fifth weights).
        """
        if options.psr_weight is not None:
            return options.psr_weight
        released = options.compat == "released" and self.restorer.sampler.refines and not self.restorer.is_local
        return RELEASED_PSR_WEIGHT if released else self.restorer.defaults.psr_weight * (1 - self.fidelity)

    def guidance_scale(self, options: RestoreOptions) -> float:
        """Of a restoration."""
        return self.restorer.defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale

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

    @staticmethod
    def working_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
        """(height, width) of LR as the model takes it: enlarged first, where the scale is beyond the model's."""
        if scale <= MODEL_SCALE:
            return size
        height, width = (-(-max(1, round(side * scale)) // MODEL_SCALE) for side in size)
        return height, width

    def local_tiles(self, full: tuple[int, ...], tile: int) -> tuple[list[AxisTile], list[AxisTile]]:
        """Rows and columns of a local model's tiles over its own result of (height, width), padded to its multiple."""
        multiple = self.restorer.size_multiple
        side = -(-tile // multiple) * multiple
        overlap = min(OVERLAP, side // 2)
        rows, columns = (plan_axis(-(-length // multiple) * multiple, side, overlap, multiple) for length in full)
        return rows, columns

    def restore(self, picture: Picture, options: RestoreOptions, progress: Progress | None = None) -> Picture:
        """Restore a decoded picture; see __call__."""
        if options.fidelity is not None:
            other = self.at_fidelity(options.fidelity)
            return other.restore(picture, replace(options, fidelity=None), progress)
        options.check(self.restorer.sampler, self.dial is not None)
        size = self.output_size(picture, options.scale)
        pixels = picture.pixels if picture.alpha is None else fill_clear(picture.pixels, picture.alpha)
        words: dict[str, Any] = {}
        colours, opacity = _halves(progress) if picture.alpha is not None else (progress, None)
        pixels = self._restore_planes(pixels, size, options, colours, words)
        if picture.gray:
            pixels = pixels.mean(0, keepdim=True).expand(3, -1, -1)
        alpha = None if picture.alpha is None else self._restore_alpha(picture.alpha, size, options, opacity)
        return replace(picture, pixels=pixels, alpha=alpha, words=words)

    def _restore_alpha(
        self, alpha: torch.Tensor, size: tuple[int, int], options: RestoreOptions, progress: Progress | None
    ) -> torch.Tensor:
        """As a grey picture; what is wholly opaque or wholly clear, with its surroundings, stays exactly so."""
        plain = replace(options, color_fix="wavelet", words=PromptOptions(tags=False))
        restored = self._restore_planes(alpha.expand(3, -1, -1), size, plain, progress, {})
        restored = restored.mean(0, keepdim=True).clamp(0, 1)
        highest = F.max_pool2d(alpha[None], 5, 1, 2)[0]
        lowest = -F.max_pool2d(-alpha[None], 5, 1, 2)[0]
        for value, flat in ((0.0, highest == 0), (1.0, lowest == 1)):
            restored[F.interpolate(flat[None].float(), size, mode="nearest")[0] > 0] = value
        return restored

    def _restore_planes(
        self,
        lr: torch.Tensor,
        size: tuple[int, int],
        options: RestoreOptions,
        progress: Progress | None,
        words: dict[str, Any],
    ) -> torch.Tensor:
        """(3, h, w) -> (3, *size), `words` filled. The model enlarges by 4; other factors resample its result, or its input
        beyond 4.
        """
        photo, released = lr, options.compat == "released"
        if (working := self.working_size((lr.shape[1], lr.shape[2]), options.scale)) != lr.shape[1:]:
            lr = resize(lr, working).clamp(0, 1)
        if self.restorer.is_local:
            condition, restored = lr, self._run_safely(_Run(lr, options, progress, photo, words))
        else:
            height, width = enlarged_size(*lr.shape[1:], released=released)
            if height * width > MAX_OUTPUT_PIXELS:
                needed, limit = height * width / 1e6, MAX_OUTPUT_PIXELS / 1e6
                raise InputImageError(f"the photo takes {needed:.0f} megapixels to restore, the limit is {limit:.0f}")
            condition = conditioning_picture(lr, self.restorer.vae_scale_factor, released=released)
            restored = self._run_safely(_Run(condition, options, progress, photo, words))
            if not released:  # what was padded must not count in the colours
                condition, restored = (picture[:, :height, :width] for picture in (condition, restored))
                restored = restored.contiguous()
        kind = options.color_fix or self.restorer.defaults.color_fix
        full = (restored.shape[1], restored.shape[2])
        exact = self.restorer.is_local or not released
        if not exact:
            restored.mul_(255).round_().div_(255)  # the released colour fix takes 8-bit pictures
        fix_color(restored, lambda rows: resize_region(condition, full, rows, slice(0, full[1])).clamp(0, 1), kind)
        if not exact:
            restored.clamp_(0, 1).mul_(255).floor_().div_(255)  # and cuts off what is between two levels
        if not self.restorer.is_local:  # what was enlarged beyond the factor goes again
            restored = fitted(restored, lr, released=released)
        return resize(restored.clamp_(0, 1), size).clamp_(0, 1)

    def _run_safely(self, run: "_Run") -> torch.Tensor:
        """Run; where half precision overflows, the whole picture once more in float32. One thread at a time: that casts the
        networks, and offloading moves them.
        """
        with self._lock:
            try:
                return self._run_with_less_memory(run)
            except _NotFiniteError:
                dtype = self.restorer.placement.dtype
            try:
                self.restorer.to(torch.float32)
                return self._run_with_less_memory(run)
            except _NotFiniteError:
                message = "the model gave values that are not finite, in float32 too; its weights are damaged"
                raise AddSRError(message) from None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = "half precision overflowed, and the memory does not hold the weights in float32"
                raise AddSRError(f"{message}; use --device cpu") from error
            finally:
                self.restorer.to(dtype)  # a cast that broke off has left some networks behind

    def _run_with_less_memory(self, run: "_Run") -> torch.Tensor:
        """Run; where the memory does not suffice, first without tiles that go in step, then in smaller tiles."""
        tile, smallest = self.tile_sides(run.options)
        in_step = not self.restorer.is_local and self.restorer.in_step(self.tiling(tile, run.options)) is not None
        while True:
            try:
                if self.restorer.is_local:
                    return self._run_tiles(run.picture, tile, run.options, run.progress)
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
    def _run_whole(self, run: "_Run", tiling: Tiling) -> torch.Tensor:
        """All steps over the whole picture, each evaluation of the networks in tiles; float32 on the CPU."""
        restorer, options, condition = self.restorer, run.options, run.picture
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
            scale = self.guidance_scale(options)
            description = self.describer(run.photo, options.words, scale, antialias=not released)
            names = ("prompt_embeds", "negative_prompt_embeds", "image_encoder_hidden_states")
            context = {name: getattr(description, name) for name in names}
            if description.prompt_embeds is not None:
                run.words.update(recognised=description.tags, full_prompt=description.prompt)
        weight = self.psr_weight(options)
        start_point = options.start_point or restorer.defaults.start_point
        total = restorer.tile_count(height, width, tiling, options.steps, weight, start_point)
        x0 = restorer(
            condition[None],
            num_inference_steps=options.steps,
            psr_weight=weight,
            guidance_scale=self.guidance_scale(options),
            start_point=start_point,
            seed=options.seed,
            tiling=tiling,
            on_tile=on_tile,
            **context,
        )
        restored = restorer.decode_latents(x0, tiling, on_tile, torch.device("cpu"))[0]
        if not bool(restored.isfinite().all()):
            raise _NotFiniteError
        return restored.clamp_(0, 1)

    def _run_tiles(
        self, lr: torch.Tensor, tile: int, options: RestoreOptions, progress: Progress | None
    ) -> torch.Tensor:
        """The picture (3, h, w), enlarged by 4 in feathered tiles, float32 on the CPU."""
        full = (lr.shape[1] * MODEL_SCALE, lr.shape[2] * MODEL_SCALE)
        tiles = list(product(*self.local_tiles(full, tile)))
        done = count(1)

        def run(rows: slice, columns: slice) -> torch.Tensor:
            restored = self._run_tile(_condition(lr, full, rows, columns), rows, columns, options)
            if progress is not None:
                progress(next(done), len(tiles))
            return restored

        return blend(run, tiles)[0, :, : full[0], : full[1]]

    @torch.no_grad()
    def _run_tile(self, condition: torch.Tensor, rows: slice, columns: slice, options: RestoreOptions) -> torch.Tensor:
        factor = self.restorer.vae_scale_factor
        x0 = self.restorer(
            condition[None],
            num_inference_steps=options.steps,
            psr_weight=self.psr_weight(options),
            start_point=options.start_point,
            seed=options.seed,
            positions=[(rows.start // factor, columns.start // factor)],
        )
        restored = self.restorer.decode_latents(x0)
        if not bool(restored.isfinite().all()):
            raise _NotFiniteError
        return restored.clamp(0, 1).cpu()


@dataclass(frozen=True)
class _Run:
    """One restoration: LR, or, for a model that is not local, its condition picture; the photo itself for its words, and
    the metadata, where the run notes them.
    """

    picture: torch.Tensor
    options: RestoreOptions
    progress: Progress | None
    photo: torch.Tensor
    words: dict[str, Any]


def _halves(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    """Of the progress of a picture, that of its colours and that of its transparency."""
    if progress is None:
        return None, None
    return lambda done, total: progress(done, 2 * total), lambda done, total: progress(total + done, 2 * total)


class _NotFiniteError(ArithmeticError):
    """A tile has values that are not finite."""


def _condition(lr: torch.Tensor, full: tuple[int, int], rows: slice, columns: slice) -> torch.Tensor:
    """The tile of the LR picture enlarged to `full`, continued by replication where the tile reaches beyond it."""
    bottom, right = min(rows.stop, full[0]), min(columns.stop, full[1])
    part = resize_region(lr, full, slice(rows.start, bottom), slice(columns.start, right)).clamp(0, 1)
    return F.pad(part[None], (0, columns.stop - right, 0, rows.stop - bottom), mode="replicate")[0]
