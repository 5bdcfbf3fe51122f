"""The autoencoder at work: pictures to latents and back, whole, in feathered tiles, or in tiles that go in step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from addsr.diffusion.lockstep import InStep, coded_in_step
from addsr.diffusion.noise import POSTERIOR_STEP
from addsr.diffusion.samplers.sampler import FreshNoise
from addsr.diffusion.tiled import Tiling, blend, plan_tiles
from addsr.models.autoencoder_passage import decoding, encoding, posterior_of


@dataclass(frozen=True)
class LatentCoder:
    """Pictures in [0, 1] <-> scaled latents.

    Attributes:
        vae: PixelShuffleAutoencoder or diffusers' AutoencoderKL.
        factor: pixels a latent, along a side.
        align: tiles but the last start at its multiples, in latents: the U-Net's, whose tiles these are.
        released: how its tiles go in step where the released inference is asked for; None where that has none.
        placement: a tensor where it computes, for its device and dtype.
    """

    vae: Any
    factor: int
    align: int
    released: InStep | None
    placement: torch.Tensor

    def encode(
        self,
        picture: torch.Tensor,
        noise: FreshNoise | None,
        tiling: Tiling | None = None,
        on_tile: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """Scaled latents of a picture (N, 3, H, W) in [0, 1]: the posterior's mode, or drawn from it by `noise`."""
        factor = self.factor
        sides = [side // factor for side in picture.shape[2:]]
        spread_noise: torch.Tensor | None = None

        def part(rows: slice, columns: slice) -> torch.Tensor:
            return picture[..., rows, columns].to(self.placement) * 2 - 1

        def drawn(posterior: Any, rows: slice, columns: slice) -> torch.Tensor:
            nonlocal spread_noise
            latents = posterior.mode()
            if noise is not None and hasattr(posterior, "std"):
                spread_noise = noise(POSTERIOR_STEP) if spread_noise is None else spread_noise
                latents = latents + posterior.std * spread_noise[..., rows, columns]
            return latents * self.vae.config["scaling_factor"]

        def run(rows: slice, columns: slice) -> torch.Tensor:
            posterior = self.vae.encode(part(scaled(rows, factor), scaled(columns, factor))).latent_dist
            latents = drawn(posterior, rows, columns)
            if on_tile is not None:
                on_tile()
            return latents

        if (in_step := self.in_step(tiling)) is None:
            return blend(run, plan_tiles(sides[0], sides[1], _feathered(tiling), self.align))
        everywhere = (slice(0, sides[0]), slice(0, sides[1]))
        if in_step.encoder is None or not in_step.encoder.cuts(picture.shape[2:]):
            return run(*everywhere)
        self._bring_vae()
        moments = coded_in_step(
            lambda rows, columns: encoding(self.vae, part(rows, columns)),
            picture.shape[2:],
            in_step.encoder,
            Fraction(1, factor),
            on_tile,
        )
        return drawn(posterior_of(moments), *everywhere)

    def decode(
        self,
        latents: torch.Tensor,
        tiling: Tiling | None = None,
        on_tile: Callable[[], None] | None = None,
        to: torch.device | None = None,
    ) -> torch.Tensor:
        """Scaled latents -> picture (N, 3, H, W) in float32, about [0, 1], not clamped, kept on the device `to`."""
        factor = self.factor
        latents = latents / self.vae.config["scaling_factor"]
        if tiling is None:  # training's way
            return from_symmetric(self.vae.decode(latents).sample)

        def run(rows: slice, columns: slice) -> torch.Tensor:
            picture = self.vae.decode(latents[..., _divided(rows, factor), _divided(columns, factor)]).sample
            if on_tile is not None:
                on_tile()
            return from_symmetric(picture)

        height, width = latents.shape[2:]
        if (in_step := self.in_step(tiling)) is None:
            return blend(run, plan_tiles(height, width, _feathered(tiling), self.align, factor), to)
        if not in_step.decoder.cuts((height, width)):
            return run(slice(0, height * factor), slice(0, width * factor)).to(to or latents.device)
        self._bring_vae()
        decoded = coded_in_step(
            lambda rows, columns: decoding(self.vae, latents[..., rows, columns]),
            (height, width),
            in_step.decoder,
            factor,
            on_tile,
            to,
        )
        return from_symmetric(decoded)

    def in_step(self, tiling: Tiling | None) -> InStep | None:
        """How the tiles go in step, if they do; only Stable Diffusion's autoencoder can."""
        if tiling is None or not hasattr(self.vae, "post_quant_conv"):
            return None
        wanted = tiling.window == "gaussian" if tiling.in_step is None else tiling.in_step
        return self.released if wanted else None

    def tile_counts(self, sides: Sequence[int], tiling: Tiling | None) -> tuple[int, int]:
        """Tiles of encoding and of decoding, of latents (height, width)."""
        if (in_step := self.in_step(tiling)) is None:
            count = len(plan_tiles(sides[0], sides[1], _feathered(tiling), self.align))
            return count, count
        pixels = [side * self.factor for side in sides]
        return 1 if in_step.encoder is None else in_step.encoder.count(pixels), in_step.decoder.count(sides)

    def _bring_vae(self) -> None:
        """Let diffusers' offloading by model bring the autoencoder, whose own methods are not called where tiles go in step.
        (That by module, `enable_sequential_cpu_offload`, cannot do such tiles.)
        """
        if (hook := getattr(self.vae, "_hf_hook", None)) is not None:
            hook.pre_forward(self.vae)


def from_symmetric(picture: torch.Tensor) -> torch.Tensor:
    """[-1, 1], the autoencoders' range, -> [0, 1]; in float32, as half precision has too few steps near 1."""
    return picture.float() / 2 + 0.5


def scaled(part: slice, factor: int) -> slice:
    """Where a part of latents lies in pixels."""
    return slice(part.start * factor, part.stop * factor)


def _divided(part: slice, factor: int) -> slice:
    return slice(part.start // factor, part.stop // factor)


def _feathered(tiling: Tiling | None) -> Tiling | None:
    """The autoencoder's tiles are feathered, whatever the window of the latents; they overlap by 16 at least."""
    if tiling is None:
        return None
    half = tiling.size // 2
    return Tiling(tiling.size, max(min(tiling.overlap, half), min(16, half)))
