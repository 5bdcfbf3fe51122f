"""Upscaler: any picture in, a restored and enlarged one out. Sizes, colour and transparency are its business."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from addsr.dial import Dial
from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.released import RELEASED_PSR_WEIGHT
from addsr.diffusion.restorer import Restorer
from addsr.errors import InputImageError
from addsr.image.color import fix_color
from addsr.image.conditioning import MODEL_SCALE, conditioning_picture, enlarged_size, fitted
from addsr.image.picture import Picture, from_array
from addsr.image.read import read_picture, read_pil
from addsr.image.resize import resize, resize_region
from addsr.image.transparency import fill_clear
from addsr.options import RestoreOptions
from addsr.prompts.describe import Describer
from addsr.prompts.options import PromptOptions
from addsr.runner import Progress, Run, Runner

MAX_OUTPUT_PIXELS = 1_000_000_000

Photo = str | Path | Image.Image | np.ndarray


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
        self.runner = Runner(restorer, describer)
        self._sha256 = sha256

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
            was, the photo's colour profile, EXIF, XMP and resolution in its `info`, for the caller to save along.

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
        elif isinstance(photo, str | Path):
            picture = read_picture(Path(photo))
        else:
            raise InputImageError(f"a photo is a path, a PIL image or an array, not a {type(photo).__name__}")
        return self.restore(picture, options, progress).to_pil()

    def made_by(self, options: RestoreOptions) -> dict[str, Any]:
        """What the metadata of a result says."""
        if options.fidelity is not None:
            return self.at_fidelity(options.fidelity).made_by(replace(options, fidelity=None))
        sampler, asked = self.restorer.sampler, self.asked(options)
        return {
            "model": self.name,
            "sha256": self.sha256,
            "scale": options.scale,
            "steps": asked.num_inference_steps,
            "seed": options.seed,
            "color_fix": asked.color_fix,
            **({"psr_weight": asked.psr_weight} if sampler.refines else {}),
            **({"start_point": asked.start_point} if sampler.starts_from_noise else {}),
            **({} if self.dial is None else {"fidelity": self.fidelity}),
            **({} if self.describer is None else self._made_by_words(options, asked.guidance_scale)),
        }

    def _made_by_words(self, options: RestoreOptions, guidance_scale: float) -> dict[str, Any]:
        words = options.words
        return {
            "guidance_scale": guidance_scale,
            "prompt": words.prompt,
            "tags": words.tags,
            "added_prompt": words.added_prompt,
            "negative_prompt": words.negative_prompt,
            "compat": options.compat,
        }

    def asked(self, options: RestoreOptions) -> ModelDefaults:
        """How a restoration asks the model: as the options say, else as its defaults do.

        PSR's weight is the released code's under `compat` `released`; else the model's own, which goes to zero with the
        dial, as the refined condition sharpens: on the bundled model, four steps at weight 0.5 lost 0.5 dB to weight 0, and
        gained 0.5 in NIQE (docs/training-log.md, fifth weights).
        """
        defaults = self.restorer.defaults
        released = options.compat == "released" and self.restorer.sampler.refines and not self.restorer.is_local
        given = {
            "start_point": options.start_point,
            "psr_weight": options.psr_weight,
            "num_inference_steps": options.steps,
            "color_fix": options.color_fix,
            "guidance_scale": options.guidance_scale,
        }
        if self.describer is None:
            given["guidance_scale"] = 1.0  # nothing to guide by
        given = {name: value for name, value in given.items() if value is not None}
        weight = RELEASED_PSR_WEIGHT if released else defaults.psr_weight * (1 - self.fidelity)
        return replace(defaults, **({"psr_weight": weight} | given))

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
        photo, released, asked = lr, options.compat == "released", self.asked(options)
        if (working := self.working_size((lr.shape[1], lr.shape[2]), options.scale)) != lr.shape[1:]:
            lr = resize(lr, working).clamp(0, 1)
        if self.restorer.is_local:
            condition, restored = lr, self.runner(Run(lr, options, asked, progress, photo, words))
        else:
            height, width = enlarged_size(*lr.shape[1:], released=released)
            if height * width > MAX_OUTPUT_PIXELS:
                needed, limit = height * width / 1e6, MAX_OUTPUT_PIXELS / 1e6
                raise InputImageError(f"the photo takes {needed:.0f} megapixels to restore, the limit is {limit:.0f}")
            condition = conditioning_picture(lr, self.restorer.vae_scale_factor, released=released)
            restored = self.runner(Run(condition, options, asked, progress, photo, words))
            if not released:  # what was padded must not count in the colours
                condition, restored = (picture[:, :height, :width] for picture in (condition, restored))
                restored = restored.contiguous()
        full = (restored.shape[1], restored.shape[2])
        exact = self.restorer.is_local or not released
        if not exact:
            restored.mul_(255).round_().div_(255)  # the released colour fix takes 8-bit pictures
        fix_color(
            restored, lambda rows: resize_region(condition, full, rows, slice(0, full[1])).clamp(0, 1), asked.color_fix
        )
        if not exact:
            restored.clamp_(0, 1).mul_(255).floor_().div_(255)  # and cuts off what is between two levels
        if not self.restorer.is_local:  # what was enlarged beyond the factor goes again
            restored = fitted(restored, lr, released=released)
        return resize(restored.clamp_(0, 1), size).clamp_(0, 1)


def _halves(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    """Of the progress of a picture, that of its colours and that of its transparency."""
    if progress is None:
        return None, None
    return lambda done, total: progress(done, 2 * total), lambda done, total: progress(total + done, 2 * total)
