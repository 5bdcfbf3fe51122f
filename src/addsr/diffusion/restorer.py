"""AddSR itself: the networks and the numbers that belong to their weights, from the LR picture to the restored one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from addsr.diffusion.noise import POSTERIOR_STEP, positional_noise
from addsr.diffusion.sampler import StepCallback, sample
from addsr.diffusion.schedule import add_noise, student_timesteps
from addsr.image.normalize import imagenet_normalized

Noise = Callable[[int], torch.Tensor]
START_POINTS = ("lr", "noise")


class Restorer:
    """Restores picture tensors. AddSRPipeline gives it diffusers' interface, Upscaler files and tiles.

    Args:
        unet: AddSRUNet.
        vae: PixelShuffleAutoencoder or diffusers' AutoencoderKL.
        alphas_cumprod: abar_t of the schedule, (1000,).
        prediction_type: of the U-Net: `epsilon`, `v_prediction` or `sample`.
        controlnet: AddSRControlNet; None where the U-Net takes the condition picture itself.
        image_encoder: picture (N, 3, 384, 384), ImageNet-normalised -> tokens (N, L, D); None without them.
        start_point: default; the first latents are noised `lr` latents (SeeSR's LRE) or pure `noise`.
        psr_weight: default weight of prediction-based self-refinement.
        num_inference_steps: default number of steps.
        color_fix: default of the Upscaler, see `addsr.image.color`.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        alphas_cumprod: torch.Tensor,
        prediction_type: str = "epsilon",
        *,
        controlnet: Any = None,
        image_encoder: nn.Module | None = None,
        start_point: str = "lr",
        psr_weight: float = 0.5,
        num_inference_steps: int = 4,
        color_fix: str = "adain",
    ) -> None:
        self.unet, self.vae, self.controlnet, self.image_encoder = unet, vae, controlnet, image_encoder
        self.alphas_cumprod, self.prediction_type = alphas_cumprod, prediction_type
        self.start_point, self.psr_weight = start_point, psr_weight
        self.num_inference_steps, self.color_fix = num_inference_steps, color_fix

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a latent, along a side."""
        config = self.vae.config
        return config["factor"] if "factor" in config else 2 ** (len(config["block_out_channels"]) - 1)

    @property
    def size_multiple(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.vae_scale_factor * self.unet.downscale

    def to(self, *args: Any, **kwargs: Any) -> None:
        """Move or cast all networks, as nn.Module.to."""
        for network in (self.unet, self.vae, self.controlnet, self.image_encoder):
            if network is not None:
                nn.Module.to(network, *args, **kwargs)  # diffusers' own version imports its offloading first: 2 seconds

    @property
    def placement(self) -> torch.Tensor:
        """A parameter of the U-Net, for its device and dtype."""
        return self.unet.conv_in.weight

    @torch.no_grad()
    def __call__(
        self,
        lr: torch.Tensor,
        *,
        num_inference_steps: int | None = None,
        psr_weight: float | None = None,
        conditioning_scale: float = 1.0,
        start_point: str | None = None,
        seed: int = 0,
        positions: Sequence[tuple[int, int]] | None = None,
        noise: Noise | None = None,
        prompt_embeds: torch.Tensor | None = None,
        image_encoder_hidden_states: torch.Tensor | None = None,
        callback: StepCallback | None = None,
    ) -> torch.Tensor:
        """The last x0.

        Args:
            lr: LR pictures at their final size, (N, 3, H, W) in [0, 1]; sides multiples of `size_multiple`.
            seed: of all noise, which depends on it, the step and the position only.
            positions: (top, left) in latents of each picture within a larger one, for tiles; default (0, 0).
            noise: overrides the seeded noise: called with the step (0 first latents, 1.. later, -1 the VAE's posterior).
            callback: see `addsr.diffusion.sampler.sample`.
            (others): see AddSRPipeline; None stands for the model's default.

        Returns:
            Latents (N, C, H/f, W/f), multiplied by the scaling factor.

        Raises:
            ValueError: for an argument out of its range; the message names it.
        """
        # 1. Defaults that belong to the weights, and checks
        timesteps = student_timesteps(self.num_inference_steps if num_inference_steps is None else num_inference_steps)
        psr_weight = self.psr_weight if psr_weight is None else psr_weight
        start_point = self.start_point if start_point is None else start_point
        self._check(lr, psr_weight, start_point, positions)

        # 2. Representation of the LR picture (N, L, D)
        lr = lr.to(self.placement).contiguous(memory_format=torch.channels_last)
        if image_encoder_hidden_states is None and self.image_encoder is not None:
            image_encoder_hidden_states = self.encode_image(lr)
        prompt_embeds, first_tokens = (
            context if context is None else context.to(lr) for context in (prompt_embeds, image_encoder_hidden_states)
        )

        # 3. First latents (N, C, H/f, W/f)
        factor = self.vae_scale_factor
        shape = (self.unet.config["in_channels"], lr.shape[2] // factor, lr.shape[3] // factor)
        draw = noise or self.seeded_noise(seed, positions or [(0, 0)] * len(lr), shape)

        def fresh_noise(step: int) -> torch.Tensor:
            return draw(step).to(lr)

        latents = fresh_noise(0)
        if start_point == "lr":
            latents = add_noise(self.encode_latents(lr, fresh_noise), latents, timesteps[0], self.alphas_cumprod)

        # 4. Steps
        def denoise(latents: torch.Tensor, timestep: int, condition: torch.Tensor) -> torch.Tensor:
            tokens = first_tokens
            if condition is not lr and self.image_encoder is not None:
                tokens = self.encode_image(condition)  # the refined picture's representation, not LR's
            return self.predict(latents, timestep, condition, prompt_embeds, tokens, conditioning_scale)

        return sample(
            denoise,
            self.decode_latents,
            latents,
            lr,
            timesteps=timesteps,
            alphas_cumprod=self.alphas_cumprod,
            noise=fresh_noise,
            prediction_type=self.prediction_type,
            psr_weight=psr_weight,
            callback=callback,
        )

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
            The U-Net's prediction (N, C, H/f, W/f): see `prediction_type`.
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
        if any(side % self.size_multiple for side in lr.shape[-2:]):
            size = f"{lr.shape[-1]}×{lr.shape[-2]}"
            raise ValueError(f"image is {size}; its sides must be multiples of {self.size_multiple}")
        if not 0 <= psr_weight <= 1:
            raise ValueError(f"psr_weight is {psr_weight}; it must be 0 to 1")
        if start_point not in START_POINTS:
            raise ValueError(f"start_point is {start_point!r}; it must be one of {', '.join(START_POINTS)}")
        if positions is not None and len(positions) != len(lr):
            raise ValueError(f"positions has {len(positions)} entries for {len(lr)} pictures")

    def encode_image(self, picture: torch.Tensor) -> torch.Tensor:
        """Representation tokens (N, L, D) of a picture (N, 3, H, W) in [0, 1]."""
        pixels = F.interpolate(picture.float(), (384, 384), mode="bicubic", align_corners=False)
        assert self.image_encoder is not None
        return self.image_encoder(imagenet_normalized(pixels).to(picture.dtype)).to(picture.dtype)

    def encode_latents(self, picture: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Scaled latents of a picture (N, 3, H, W) in [0, 1], drawn from the posterior where it has a spread."""
        posterior = self.vae.encode(picture * 2 - 1).latent_dist
        latents = posterior.mode()
        if hasattr(posterior, "std"):
            latents = latents + posterior.std * noise(POSTERIOR_STEP)
        return latents * self.vae.config["scaling_factor"]

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents -> picture (N, 3, H, W), about [-1, 1]."""
        return self.vae.decode(latents / self.vae.config["scaling_factor"]).sample

    @staticmethod
    def seeded_noise(seed: int, positions: Sequence[tuple[int, int]], shape: tuple[int, int, int]) -> Noise:
        """Noise that depends on seed, step and position only; `shape` is (C, H, W) of each picture's latents."""
        channels, height, width = shape

        def draw(step: int) -> torch.Tensor:
            regions = [(slice(top, top + height), slice(left, left + width)) for top, left in positions]
            return torch.cat([positional_noise(seed, step, channels, rows, columns) for rows, columns in regions])

        return draw
