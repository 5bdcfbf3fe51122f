"""AddSR itself: the networks and the numbers that belong to their weights, from the LR picture to the restored one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from addsr.diffusion.coder import LatentCoder, scaled
from addsr.diffusion.defaults import ModelDefaults, misfit
from addsr.diffusion.guidance import guided, is_guided
from addsr.diffusion.noise import positional_noise
from addsr.diffusion.released import RELEASED_AUTOENCODER
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.sampler import FreshNoise, Sampler, StepCallback
from addsr.diffusion.schedule import STUDENT_TIMESTEPS, Schedule, add_noise
from addsr.diffusion.tiled import Tiling, blend, plan_tiles
from addsr.image.normalize import ENCODER_SIDE, imagenet_normalized
from addsr.models.attention import use_rowwise_attention
from addsr.runtime.device import fused_attention_is_fastest
from addsr.runtime.offload import Offload
from addsr.runtime.widening import computing_dtype


@dataclass(frozen=True)
class Runs:
    """How often a restoration evaluates the denoiser (twice as often under guidance), the VAE's encoder and its decoder.

    The picture's tokens are made anew for each decoding, but the last, which only shows the result; once at the start.
    """

    steps: int
    encodings: int
    decodings: int


class Restorer:
    """Restores picture tensors. AddSRPipeline gives it diffusers' interface, Upscaler files and tiles.

    Args:
        unet: AddSRUNet.
        vae: PixelShuffleAutoencoder or diffusers' AutoencoderKL.
        schedule: of its noise, with what the U-Net predicts.
        sampler: how its steps go.
        defaults: see there; of a sampler with fewer steps, as many as it has.
        controlnet: AddSRControlNet; None where the U-Net takes the condition picture itself.
        image_encoder: picture (N, 3, 384, 384), ImageNet-normalised -> tokens (N, L, D); None without them.
        fixed_prompt: FixedPrompt, the text embedding of a model that takes no words.

    Raises:
        ValueError: for a schedule or a number of steps that the sampler cannot take.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        schedule: Schedule,
        sampler: Sampler | None = None,
        defaults: ModelDefaults | None = None,
        *,
        controlnet: Any = None,
        image_encoder: nn.Module | None = None,
        fixed_prompt: nn.Module | None = None,
    ) -> None:
        self.unet, self.vae, self.controlnet, self.image_encoder = unet, vae, controlnet, image_encoder
        self.fixed_prompt = fixed_prompt
        self.schedule, self.sampler = schedule, sampler or AddSRSampler()
        most = min(ModelDefaults.num_inference_steps, self.sampler.most_steps)
        self.defaults = defaults or ModelDefaults(num_inference_steps=most)
        self.timesteps()  # impossible ones are known now, not at the first picture
        self.offload = Offload()

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a latent, along a side."""
        config = self.vae.config
        return config["factor"] if "factor" in config else 2 ** (len(config["block_out_channels"]) - 1)

    @property
    def size_multiple(self) -> int:
        """Pixels along a side of the coarsest level: tiles that start at its multiples see what the whole would."""
        return self.vae_scale_factor * self.unet.downscale

    @property
    def memory_format(self) -> torch.memory_format:
        """How the U-Net's weights lie in memory; pictures must lie likewise, or convolutions reorder them each time."""
        last = self.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if last else torch.contiguous_format

    @property
    def is_local(self) -> bool:
        """No statistics and no attention over space: away from its border a tile computes what the whole would."""
        config = self.unet.config
        attends = config["cross_attention_dim"] is not None or config["use_image_cross_attention"]
        return self.controlnet is None and config["norm_type"] == "channel" and not attends

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Move or cast all networks, as nn.Module.to."""
        for network in self.networks:
            nn.Module.to(network, *args, **kwargs)  # diffusers' own version imports its offloading first: 2 seconds

    def lay_out(self, device: torch.device) -> None:
        """Channels last in memory, where that is faster.

        On a CPU the large networks stay as their file has them: mapped into memory, read as they are used, never copied.
        """
        networks = self.networks if self.is_local or device.type != "cpu" else [self.vae]
        for network in networks:
            nn.Module.to(network, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def choose_attention(self, device: torch.device) -> None:
        """The fastest there in the networks' dtype: to be called after `to`, and not undone by a later one."""
        if not self.is_local and not fused_attention_is_fastest(device, self.unet.conv_in.weight.dtype):
            for network in (self.unet, self.controlnet, self.vae):
                if network is not None:
                    use_rowwise_attention(network)

    @property
    def networks(self) -> list[Any]:
        """Those that are there."""
        every = (self.unet, self.vae, self.controlnet, self.image_encoder, self.fixed_prompt)
        return [network for network in every if network is not None]

    @property
    def placement(self) -> torch.Tensor:
        """A tensor where the networks compute, for its device and dtype."""
        weight = self.unet.conv_in.weight
        return weight if self.offload.device is None else torch.empty(0, dtype=weight.dtype, device=self.offload.device)

    @torch.no_grad()
    def __call__(
        self,
        lr: torch.Tensor,
        *,
        num_inference_steps: int | None = None,
        psr_weight: float | None = None,
        guidance_scale: float | None = None,
        conditioning_scale: float = 1.0,
        start_point: str | None = None,
        seed: int = 0,
        positions: Sequence[tuple[int, int]] | None = None,
        noise: FreshNoise | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        image_encoder_hidden_states: torch.Tensor | None = None,
        tiling: Tiling | None = None,
        on_tile: Callable[[], None] | None = None,
        callback: StepCallback | None = None,
    ) -> torch.Tensor:
        """The last x0.

        Args:
            lr: LR pictures at their final size, (N, 3, H, W) in [0, 1]; sides multiples of `vae_scale_factor`.
            guidance_scale: of classifier-free guidance; 1 or less runs none, more needs both embeddings.
            seed: of all noise, which depends on it, the step and the position only.
            positions: (top, left) in latents of each picture within a larger one, for tiles; default (0, 0).
            noise: overrides the seeded noise: called with the step (0 first latents, 1.. later, -1 the VAE's posterior).
            tiling: cut each evaluation of the networks into tiles; `lr` then stays where it is, and may be large.
            on_tile: called after each tile of each evaluation, see `tile_count`.
            callback: see Sampler.sample.
            (others): see AddSRPipeline; None stands for the model's default.

        Returns:
            Latents (N, C, H/f, W/f), multiplied by the scaling factor.

        Raises:
            ValueError: for an argument out of its range; the message names it.
        """
        # 1. Defaults that belong to the weights, and checks
        timesteps = self.timesteps(num_inference_steps)
        defaults = self.defaults
        psr_weight = defaults.psr_weight if psr_weight is None else psr_weight
        start_point = defaults.start_point if start_point is None else start_point
        guidance_scale = defaults.guidance_scale if guidance_scale is None else guidance_scale
        self._check(lr, psr_weight, start_point, positions)
        if prompt_embeds is None and self.fixed_prompt is not None:
            prompt_embeds = self.fixed_prompt(len(lr))
        if prompt_embeds is None or self.fixed_prompt is not None:
            guidance_scale = 1.0  # nothing to guide by
        elif is_guided(guidance_scale) and negative_prompt_embeds is None:
            raise ValueError(f"guidance_scale is {guidance_scale:g}; above 1 it needs negative_prompt_embeds")

        # 2. Representation of the LR picture (N, L, D)
        if tiling is None:
            lr = lr.to(self.placement).contiguous(memory_format=self.memory_format)
        if image_encoder_hidden_states is None and self.image_encoder is not None:
            image_encoder_hidden_states = self.encode_image(lr)
        positive, negative, first_tokens = (
            context if context is None else context.to(self.placement)
            for context in (prompt_embeds, negative_prompt_embeds, image_encoder_hidden_states)
        )
        if positive is not None and negative is not None and torch.equal(positive, negative):
            guidance_scale = 1.0  # nothing to lead away from

        # 3. First latents (N, C, H/f, W/f)
        factor = self.vae_scale_factor
        shape = (self.unet.config["in_channels"], lr.shape[2] // factor, lr.shape[3] // factor)
        draw = noise or self.seeded_noise(seed, positions or [(0, 0)] * len(lr), shape)

        def fresh_noise(step: int) -> torch.Tensor:
            return draw(step).to(self.placement)

        if self.sampler.starts_from_noise:
            latents = fresh_noise(0)
            if start_point == "lr":
                encoded = self.encode_latents(lr, fresh_noise, tiling, on_tile)
                latents = add_noise(encoded, latents, STUDENT_TIMESTEPS[0], self.schedule.alphas_cumprod)
        else:
            latents = self.encode_latents(lr, None, tiling, on_tile)

        # 4. Steps
        tiles = plan_tiles(*shape[1:], tiling, self.unet.downscale)
        tokens_of_lr: torch.Tensor | None = None

        def denoise(latents: torch.Tensor, timestep: int, condition: torch.Tensor) -> torch.Tensor:
            nonlocal tokens_of_lr
            tokens = first_tokens
            if self.sampler.refines and timestep != timesteps[0] and self.image_encoder is not None:
                # the refined picture's representation: of the enlarged LR itself where nothing is mixed in
                if condition is not lr:
                    tokens = self.encode_image(condition)
                else:
                    tokens = tokens_of_lr = self.encode_image(lr) if tokens_of_lr is None else tokens_of_lr
            self.offload.use("denoiser")
            at = torch.tensor(timestep, device=self.placement.device)  # a number would be compiled in

            def run(rows: slice, columns: slice) -> torch.Tensor:
                part = latents[..., rows, columns].contiguous(memory_format=self.memory_format)
                picture = condition[..., scaled(rows, factor), scaled(columns, factor)].to(part)
                picture = picture.contiguous(memory_format=self.memory_format)
                predicted = self.predict(part, at, picture, positive, tokens, conditioning_scale)
                if is_guided(guidance_scale):
                    unguided = self.predict(part, at, picture, negative, tokens, conditioning_scale)
                    predicted = guided(predicted, unguided, guidance_scale)
                if on_tile is not None:
                    on_tile()
                return predicted

            return blend(run, tiles)

        def decode(x0: torch.Tensor) -> torch.Tensor:
            return self.decode_latents(x0, tiling, on_tile, None if tiling is None else lr.device)

        return self.sampler.sample(
            denoise,
            latents,
            lr,
            timesteps=timesteps,
            schedule=self.schedule,
            noise=fresh_noise,
            decode=decode,
            psr_weight=psr_weight,
            callback=callback,
        )

    def timesteps(self, num_inference_steps: int | None = None) -> list[int]:
        """The timesteps of so many steps of the model's sampler; None stands for the model's default.

        Raises:
            ValueError: if the sampler has none of so many.
        """
        steps = self.defaults.num_inference_steps if num_inference_steps is None else num_inference_steps
        return self.sampler.timesteps(steps, self.schedule)

    def runs(self, asked: ModelDefaults | None = None) -> Runs:
        """How often each network runs; None stands for the model's defaults.

        Raises:
            ValueError: for a number of steps that the sampler does not have.
        """
        asked = asked or self.defaults
        steps = len(self.timesteps(asked.num_inference_steps))
        refining = self.sampler.refines and asked.psr_weight > 0
        from_lr = not self.sampler.starts_from_noise or asked.start_point == "lr"
        return Runs(steps, int(from_lr), steps if refining else 1)

    def tile_count(self, height: int, width: int, tiling: Tiling | None, asked: ModelDefaults | None = None) -> int:
        """How often `on_tile` is called for a picture of so many pixels, its last decoding included."""
        sides = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        runs = self.runs(asked)
        evaluations = len(plan_tiles(*sides, tiling, self.unet.downscale))
        encoding, decoding = self.coder.tile_counts(sides, tiling)
        return runs.steps * evaluations + runs.encodings * encoding + runs.decodings * decoding

    def predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor | int,
        condition: torch.Tensor,
        prompt_embeds: torch.Tensor | None = None,
        image_encoder_hidden_states: torch.Tensor | None = None,
        conditioning_scale: float = 1.0,
    ) -> torch.Tensor:
        """One evaluation of the networks, with gradient where it is wanted (training calls this too).

        Args:
            latents: noisy latents (N, C, H/f, W/f).
            timestep: 0..999, an int or (N,).
            condition: condition picture (N, 3, H, W) in [0, 1].
            prompt_embeds: text embeddings (N, L, D), where there is text attention.
            image_encoder_hidden_states: representation tokens (N, L', D'), likewise.
            conditioning_scale: factor of the ControlNet's residuals.

        Returns:
            The U-Net's prediction (N, C, H/f, W/f): see `Schedule.prediction_type`.
        """
        context = {
            "encoder_hidden_states": prompt_embeds,
            "image_encoder_hidden_states": image_encoder_hidden_states,
        }
        if self.controlnet is None:
            return self.unet(latents, timestep, controlnet_cond=condition, **context)
        control = self.controlnet(latents, timestep, condition, conditioning_scale=conditioning_scale, **context)
        return self.unet(
            latents,
            timestep,
            down_block_additional_residuals=control.down_block_res_samples,
            mid_block_additional_residual=control.mid_block_res_sample,
            **context,
        )

    def _check(
        self, lr: torch.Tensor, psr_weight: float, start_point: str, positions: Sequence[tuple[int, int]] | None
    ) -> None:
        multiple = self.vae_scale_factor
        if any(side % multiple for side in lr.shape[-2:]):
            raise ValueError(f"image is {lr.shape[-1]}×{lr.shape[-2]}; its sides must be multiples of {multiple}")
        for name, value in (("psr_weight", psr_weight), ("start_point", start_point)):
            if must := misfit(name, value):
                raise ValueError(f"{name} is {value!r}; it must be {must}")
        if positions is not None and len(positions) != len(lr):
            raise ValueError(f"positions has {len(positions)} entries for {len(lr)} pictures")

    def encode_image(self, picture: torch.Tensor) -> torch.Tensor:
        """Representation tokens (N, L, D) of a picture (N, 3, H, W) in [0, 1], wherever it lies."""
        pixels = F.interpolate(picture.float(), (ENCODER_SIDE, ENCODER_SIDE), mode="bicubic", align_corners=False)
        return self.represent(imagenet_normalized(pixels))

    def represent(self, pixels: torch.Tensor) -> torch.Tensor:
        """Representation tokens (N, L, D) of what the image encoder takes: (N, 3, 384, 384), ImageNet-normalised."""
        assert self.image_encoder is not None
        self.offload.use("image_encoder")
        precision = computing_dtype(self.image_encoder)  # `from_pretrained` keeps a file's own, whatever the U-Net's
        return self.image_encoder(pixels.to(self.placement.device, precision)).to(self.placement)

    @property
    def coder(self) -> LatentCoder:
        """The autoencoder with what it needs to know of the model."""
        released = RELEASED_AUTOENCODER.get(self.sampler.name)
        return LatentCoder(self.vae, self.vae_scale_factor, self.unet.downscale, released, self.placement)

    def encode_latents(
        self,
        picture: torch.Tensor,
        noise: FreshNoise | None,
        tiling: Tiling | None = None,
        on_tile: Callable[[], None] | None = None,
    ) -> torch.Tensor:
        """See LatentCoder.encode."""
        self.offload.use("vae")
        return self.coder.encode(picture, noise, tiling, on_tile)

    def decode_latents(
        self,
        latents: torch.Tensor,
        tiling: Tiling | None = None,
        on_tile: Callable[[], None] | None = None,
        to: torch.device | None = None,
    ) -> torch.Tensor:
        """See LatentCoder.decode."""
        self.offload.use("vae")
        return self.coder.decode(latents, tiling, on_tile, to)

    @staticmethod
    def seeded_noise(seed: int, positions: Sequence[tuple[int, int]], shape: tuple[int, int, int]) -> FreshNoise:
        """Noise that depends on seed, step and position only; `shape` is (C, H, W) of each picture's latents."""
        channels, height, width = shape

        def draw(step: int) -> torch.Tensor:
            regions = [(slice(top, top + height), slice(left, left + width)) for top, left in positions]
            return torch.cat([positional_noise(seed, step, channels, rows, columns) for rows, columns in regions])

        return draw
