"""AddSR as a diffusers pipeline, for the compact and the SD-2-size model alike."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin
from PIL import Image

from addsr.diffusion.noise import POSTERIOR_STEP, positional_noise
from addsr.diffusion.sampler import sample
from addsr.diffusion.schedule import add_noise, student_timesteps
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet
from addsr.pipelines.output import OUTPUT_TYPES, RestorationOutput, to_output

Noise = Callable[[int], torch.Tensor]
START_POINTS = ("lr", "noise")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class AddSRPipeline(DiffusionPipeline):
    """Restores a picture that was already enlarged to its final size, in one to four steps.

    For files, scale factors, tiles and colour fix use `addsr.Upscaler`, which runs this pipeline.

    Args:
        unet: predicts from noisy latents and conditions.
        vae: diffusers' AutoencoderKL or the compact PixelShuffleAutoencoder.
        scheduler: only its `alphas_cumprod` and `prediction_type` are used (diffusers' DDPM, DDIM, PNDM … alike).
        controlnet: brings the condition picture in; None where the U-Net takes it itself.
        text_encoder, tokenizer: CLIP; None for a model without text cross-attention.
        image_encoder: picture (N, 3, 384, 384), ImageNet-normalised -> tokens (N, L, D); None without them.
        start_point: the first latents are noised `lr` latents (SeeSR's LRE) or pure `noise`.
        psr_weight: default weight of prediction-based self-refinement.
        num_inference_steps: default number of steps.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->controlnet->unet->vae"
    _optional_components = ["controlnet", "text_encoder", "tokenizer", "image_encoder"]  # noqa: RUF012 (diffusers' API)
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    unet: AddSRUNet
    vae: AutoencoderKL | PixelShuffleAutoencoder
    controlnet: AddSRControlNet | None

    def __init__(
        self,
        unet: AddSRUNet,
        vae: AutoencoderKL | PixelShuffleAutoencoder,
        scheduler: Any,
        controlnet: AddSRControlNet | None = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        image_encoder: ModelMixin | None = None,
        start_point: str = "lr",
        psr_weight: float = 0.5,
        num_inference_steps: int = 4,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet,
            vae=vae,
            scheduler=scheduler,
            controlnet=controlnet,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
        )
        self.register_to_config(
            start_point=start_point, psr_weight=psr_weight, num_inference_steps=num_inference_steps
        )

    @property
    def vae_scale_factor(self) -> int:
        """Pixels a latent, along a side."""
        if isinstance(self.vae, PixelShuffleAutoencoder):
            return self.vae.config.factor
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def size_multiple(self) -> int:
        """The sides of a picture must be multiples of this."""
        return self.vae_scale_factor * self.unet.downscale

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image] | np.ndarray | torch.Tensor,
        prompt: str | Sequence[str] | None = None,
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
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["AddSRPipeline", int, int, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> RestorationOutput | tuple[Any]:
        """Restore pictures.

        Args:
            image: the degraded picture, already at its final size: PIL, float array (N, H, W, 3) or tensor (N, 3, H, W)
                in [0, 1]; sides multiples of `size_multiple`.
            prompt: where there is a text encoder; one for all, or one a picture. Default: the empty prompt.
            num_inference_steps: 1 to 4 of the timesteps 999, 749, 499, 249. Default: the model's own.
            psr_weight: 0 to 1, weight of the last prediction in the condition from the second step on.
            conditioning_scale: multiplies the ControlNet's residuals.
            start_point: `lr` or `noise`.
            seed: of all noise, which depends on it, the step and the position only.
            positions: (top, left) in latents of each picture within a larger one, for tiles; default (0, 0).
            noise: overrides the seeded noise: called with the step (0 first latents, 1.. later, -1 the VAE's posterior).
            prompt_embeds, image_encoder_hidden_states: computed beforehand, instead of by the encoders.
            output_type: see RestorationOutput.
            return_dict: False for a plain tuple.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": x0}); may return a new "latents".
            callback_on_step_end_tensor_inputs: the tensors that the callback wants; `latents` is the only one.

        Raises:
            ValueError: for an argument out of its range; the message names it.
        """
        # 0. Defaults that belong to the weights
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        weight = self.config.psr_weight if psr_weight is None else psr_weight
        start = self.config.start_point if start_point is None else start_point

        # 1. Check inputs
        timesteps = student_timesteps(steps)
        lr = self.prepare_image(image)  # (N, 3, f·H, f·W) in [0, 1]
        count, _, height, width = lr.shape
        self.check_inputs(lr, weight, start, positions, output_type, callback_on_step_end_tensor_inputs)

        # 2. Text and representation of the LR picture
        if prompt_embeds is None and self.text_encoder is not None:
            prompt_embeds = self.encode_prompt(prompt or "", count)
        if prompt_embeds is not None:
            prompt_embeds = prompt_embeds.to(lr)
        if image_encoder_hidden_states is None and self.image_encoder is not None:
            image_encoder_hidden_states = self.encode_image(lr)
        if image_encoder_hidden_states is not None:
            image_encoder_hidden_states = image_encoder_hidden_states.to(lr)

        # 3. First latents (N, C, H, W)
        shape = (self.unet.config.in_channels, height // self.vae_scale_factor, width // self.vae_scale_factor)
        draw = noise or self.seeded_noise(seed, positions or [(0, 0)] * count, shape)

        def fresh_noise(step: int) -> torch.Tensor:
            return draw(step).to(lr)

        alphas_cumprod = self.scheduler.alphas_cumprod
        latents = fresh_noise(0)
        if start == "lr":
            latents = add_noise(self.encode_latents(lr, fresh_noise), latents, timesteps[0], alphas_cumprod)

        # 4. Steps
        def denoise(latents: torch.Tensor, timestep: int, condition: torch.Tensor) -> torch.Tensor:
            tokens = image_encoder_hidden_states
            if condition is not lr and self.image_encoder is not None:
                tokens = self.encode_image(condition)  # the refined picture's representation, not LR's
            context = {"encoder_hidden_states": prompt_embeds, "image_encoder_hidden_states": tokens}
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

        def after_step(step: int, x0: torch.Tensor) -> torch.Tensor | None:
            if callback_on_step_end is None:
                return None
            return callback_on_step_end(self, step, timesteps[step], {"latents": x0}).get("latents")

        x0 = sample(
            denoise,
            self.decode_latents,
            latents,
            lr,
            timesteps=timesteps,
            alphas_cumprod=alphas_cumprod,
            noise=fresh_noise,
            prediction_type=self.scheduler.config.prediction_type,
            psr_weight=weight,
            callback=after_step,
        )

        # 5. Picture
        images = x0 if output_type == "latent" else to_output(self.decode_latents(x0) / 2 + 0.5, output_type)
        self.maybe_free_model_hooks()
        return RestorationOutput(images=images) if return_dict else (images,)

    def prepare_image(self, image: Image.Image | Sequence[Image.Image] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Any accepted picture -> (N, 3, H, W) in [0, 1] on the pipeline's device, in its dtype."""
        if isinstance(image, Image.Image):
            image = [image]
        if not isinstance(image, np.ndarray | torch.Tensor):
            image = np.stack([np.asarray(picture.convert("RGB"), np.float32) / 255 for picture in image])
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(image).permute(0, 3, 1, 2) if image.ndim == 4 else torch.from_numpy(image)
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(f"image is {image.dtype} of shape {tuple(image.shape)}; expected float (N, 3, H, W)")
        return image.to(self._execution_device, self.unet.dtype, memory_format=torch.channels_last)

    def check_inputs(
        self,
        lr: torch.Tensor,
        psr_weight: float,
        start_point: str,
        positions: Sequence[tuple[int, int]] | None,
        output_type: str,
        tensor_inputs: Sequence[str],
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
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}")
        if unknown := set(tensor_inputs) - {"latents"}:
            raise ValueError(f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; only 'latents' is available")

    def encode_prompt(self, prompt: str | Sequence[str], count: int) -> torch.Tensor:
        """Last hidden state of CLIP, (count, 77, D), padded with the tokenizer's pad token, without attention mask."""
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if len(prompts) != count:
            raise ValueError(f"prompt has {len(prompts)} entries for {count} pictures")
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    def encode_image(self, picture: torch.Tensor) -> torch.Tensor:
        """Representation tokens (N, L, D) of a picture (N, 3, H, W) in [0, 1]."""
        pixels = F.interpolate(picture.float(), (384, 384), mode="bicubic", align_corners=False)
        mean, std = (pixels.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self.image_encoder(((pixels - mean) / std).to(picture.dtype)).to(picture.dtype)

    def encode_latents(self, picture: torch.Tensor, noise: Noise) -> torch.Tensor:
        """Scaled latents of a picture (N, 3, H, W) in [0, 1], drawn from the posterior where it has a spread."""
        posterior = self.vae.encode(picture * 2 - 1).latent_dist
        latents = posterior.mode()
        if hasattr(posterior, "std"):
            latents = posterior.mean + posterior.std * noise(POSTERIOR_STEP)
        return latents * self.vae.config.scaling_factor

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents -> picture, about [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    @staticmethod
    def seeded_noise(seed: int, positions: Sequence[tuple[int, int]], shape: tuple[int, int, int]) -> Noise:
        """Noise that depends on seed, step and position only; `shape` is (C, H, W) of each picture's latents."""
        channels, height, width = shape

        def draw(step: int) -> torch.Tensor:
            regions = [(slice(top, top + height), slice(left, left + width)) for top, left in positions]
            return torch.cat([positional_noise(seed, step, channels, rows, columns) for rows, columns in regions])

        return draw
