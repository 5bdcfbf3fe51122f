"""AddSR as a diffusers pipeline, for the compact and the SD-2-size model alike."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, ModelMixin

import addsr.models.tagger  # noqa: F401  (`from_pretrained` finds a model's classes only in modules that are imported)
from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.guidance import is_guided
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.sampler import FreshNoise, Sampler
from addsr.diffusion.schedule import Schedule, clip_range
from addsr.diffusion.tiled import Tiling
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.controlnet import AddSRControlNet
from addsr.models.unet import AddSRUNet
from addsr.pipelines.input import ImageInput, to_tensor
from addsr.pipelines.output import OUTPUT_TYPES, RestorationOutput, to_output
from addsr.prompts.compose import NEGATIVE_PROMPT
from addsr.prompts.text import PromptEncoder
from addsr.runtime.offload import Offload


class AddSRPipeline(DiffusionPipeline):
    """Restores a picture that was already enlarged to its final size, in one to four steps.

    For files, scale factors, tiles and colour fix use `addsr.Upscaler`.

    Args:
        unet: predicts from noisy latents and conditions.
        vae: diffusers' AutoencoderKL or the compact PixelShuffleAutoencoder.
        scheduler: only its `alphas_cumprod`, `prediction_type`, `timestep_spacing`, `steps_offset` and `clip_sample` are
            used (diffusers' DDPM, DDIM, … alike).
        controlnet: brings the condition picture in; None where the U-Net takes it itself.
        text_encoder, tokenizer: CLIP; None for a model without text cross-attention.
        image_encoder: picture (N, 3, 384, 384), ImageNet-normalised -> tokens (N, L, D); None without them.
        start_point, psr_weight, num_inference_steps, color_fix, guidance_scale, released_overlap: defaults that belong to
            the weights, see `addsr.diffusion.defaults.ModelDefaults`.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->controlnet->unet->vae"
    _optional_components = ["controlnet", "text_encoder", "tokenizer", "image_encoder"]  # noqa: RUF012 (diffusers' API)
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012
    sampler: ClassVar[Sampler] = AddSRSampler()

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
        color_fix: str = "adain",
        guidance_scale: float = 1.0,
        released_overlap: int = 4,
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
            start_point=start_point,
            psr_weight=psr_weight,
            num_inference_steps=num_inference_steps,
            color_fix=color_fix,
            guidance_scale=guidance_scale,
            released_overlap=released_overlap,
        )

    @property
    def restorer(self) -> Restorer:
        """The same networks without diffusers' interface."""
        scheduler = self.scheduler
        schedule = Schedule(
            scheduler.alphas_cumprod,
            scheduler.config.prediction_type,
            scheduler.config.get("timestep_spacing") or "leading",
            scheduler.config.get("steps_offset", 0),
            clip_range(scheduler.config),
        )
        restorer = Restorer(
            self.unet,
            self.vae,
            schedule,
            self.sampler,
            ModelDefaults(**{field.name: self.config[field.name] for field in fields(ModelDefaults)}),
            controlnet=self.controlnet,
            image_encoder=self.image_encoder,
        )
        restorer.offload = Offload(device=self._execution_device)  # where diffusers' offloading computes
        return restorer

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] | None = None,
        *,
        num_inference_steps: int | None = None,
        psr_weight: float | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        conditioning_scale: float = 1.0,
        start_point: str | None = None,
        seed: int = 0,
        positions: Sequence[tuple[int, int]] | None = None,
        noise: FreshNoise | None = None,
        tiling: Tiling | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        image_encoder_hidden_states: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["AddSRPipeline", int, int, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> RestorationOutput | tuple[Any]:
        """Restore pictures.

        Args:
            image: the degraded picture, already at its final size: PIL, float array (N, H, W, 3) or tensor (N, 3, H, W)
                in [0, 1]; sides multiples of `restorer.vae_scale_factor`.
            prompt: where there is a text encoder; one for all, or one a picture. Default: the empty prompt.
            num_inference_steps: 1 to 4 of the timesteps 999, 749, 499, 249 (SeeSR's sampler: 1 to 999). Default: the
                model's own.
            psr_weight: 0 to 1, weight of the last prediction in the condition from the second step on.
            guidance_scale: of classifier-free guidance, where there is text; 1 or less for none.
            negative_prompt: what guidance leads away from. Default: SeeSR's.
            conditioning_scale: multiplies the ControlNet's residuals.
            start_point: `lr` or `noise`.
            seed: of all noise, which depends on it, the step and the position only.
            positions: (top, left) in latents of each picture within a larger one, for tiles; default (0, 0).
            noise: overrides the seeded noise: called with the step (0 first latents, 1.. later, -1 the VAE's posterior).
            tiling: cut the networks' evaluations into tiles, for pictures that are too large to run whole. The released
                tiles are `Tiling(320, 4, "gaussian")`, of 96 latents for SeeSR (Turbo's share 32).
            prompt_embeds, negative_prompt_embeds, image_encoder_hidden_states: computed beforehand, instead of by the
                encoders.
            output_type: see RestorationOutput.
            return_dict: False for a plain tuple.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": x0}); may return a new "latents".
            callback_on_step_end_tensor_inputs: the tensors that the callback wants; `latents` is the only one.

        Raises:
            ValueError: for an argument out of its range; the message names it.
        """
        # 1. Check inputs
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}")
        if unknown := set(callback_on_step_end_tensor_inputs) - {"latents"}:
            raise ValueError(f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; only 'latents' is available")
        lr = to_tensor(image).to(self._execution_device)  # (N, 3, f·H, f·W) in [0, 1]

        # 2. Text (N, 77, D)
        restorer = self.restorer
        scale = restorer.defaults.guidance_scale if guidance_scale is None else guidance_scale
        if prompt_embeds is None and self.text_encoder is not None:
            prompt_embeds = self.encode_prompt(prompt or "", len(lr))
        if negative_prompt_embeds is None and self.text_encoder is not None and is_guided(scale):
            negative = NEGATIVE_PROMPT if negative_prompt is None else negative_prompt
            negative_prompt_embeds = self.encode_prompt(negative, len(lr))

        # 3. Steps
        def after_step(step: int, x0: torch.Tensor) -> torch.Tensor | None:
            if callback_on_step_end is None:
                return None
            timestep = timesteps[step]
            return callback_on_step_end(self, step, timestep, {"latents": x0}).get("latents")

        timesteps = restorer.timesteps(num_inference_steps)
        x0 = restorer(
            lr,
            num_inference_steps=num_inference_steps,
            psr_weight=psr_weight,
            guidance_scale=guidance_scale,
            conditioning_scale=conditioning_scale,
            start_point=start_point,
            seed=seed,
            positions=positions,
            noise=noise,
            tiling=tiling,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            image_encoder_hidden_states=image_encoder_hidden_states,
            callback=after_step,
        )

        # 4. Picture
        images = x0 if output_type == "latent" else to_output(restorer.decode_latents(x0, tiling), output_type)
        self.maybe_free_model_hooks()
        return RestorationOutput(images=images) if return_dict else (images,)

    def encode_prompt(self, prompt: str | Sequence[str], count: int) -> torch.Tensor:
        """Prompts -> (count, 77, D), see PromptEncoder."""
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if len(prompts) != count:
            raise ValueError(f"prompt has {len(prompts)} entries for {count} pictures")
        return PromptEncoder(self.text_encoder, self.tokenizer, device=self._execution_device)(prompts)
