"""D³SR (Li et al., NeurIPS 2025) as a diffusers pipeline, at SD-2.1 size and compact alike."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline

from addsr.diffusion.defaults import ModelDefaults
from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.d3sr import TIMESTEP, D3SRSampler
from addsr.diffusion.schedule import Schedule
from addsr.diffusion.tiled import Tiling
from addsr.models.autoencoder import PixelShuffleAutoencoder
from addsr.models.fixed_prompt import FixedPrompt
from addsr.models.unet import AddSRUNet
from addsr.pipelines.input import ImageInput, to_tensor
from addsr.pipelines.output import OUTPUT_TYPES, RestorationOutput, to_output
from addsr.runtime.offload import Offload


class D3SRPipeline(DiffusionPipeline):
    """Restores a picture that was already enlarged to its final size, in one step and without noise.

    Args:
        unet: predicts from the latents of LR; LoRA is merged into it.
        vae: diffusers' AutoencoderKL or the compact PixelShuffleAutoencoder.
        scheduler: only its `alphas_cumprod` and `prediction_type` are used.
        fixed_prompt: the text embedding; None for a U-Net without text cross-attention.
        one_step_timestep: T_L.
        color_fix: default of the Upscaler.
    """

    model_cpu_offload_seq = "fixed_prompt->unet->vae"
    _optional_components = ["fixed_prompt"]  # noqa: RUF012 (diffusers' API)

    def __init__(
        self,
        unet: AddSRUNet,
        vae: AutoencoderKL | PixelShuffleAutoencoder,
        scheduler: Any,
        fixed_prompt: FixedPrompt | None = None,
        one_step_timestep: int = TIMESTEP,
        color_fix: str = "none",
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae, scheduler=scheduler, fixed_prompt=fixed_prompt)
        self.register_to_config(one_step_timestep=one_step_timestep, color_fix=color_fix)

    @property
    def restorer(self) -> Restorer:
        """The same networks without diffusers' interface."""
        restorer = Restorer(
            self.unet,
            self.vae,
            Schedule(self.scheduler.alphas_cumprod, self.scheduler.config.prediction_type),
            D3SRSampler(self.config["one_step_timestep"]),
            ModelDefaults(num_inference_steps=1, color_fix=self.config["color_fix"]),
            fixed_prompt=self.fixed_prompt,
        )
        restorer.offload = Offload(device=self._execution_device)  # where diffusers' offloading computes
        return restorer

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        *,
        tiling: Tiling | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[["D3SRPipeline", int, int, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> RestorationOutput | tuple[Any]:
        """Restore pictures.

        Args:
            image: the degraded picture, already at its final size: PIL, float array (N, H, W, 3) or tensor (N, 3, H, W)
                in [0, 1]; sides multiples of `restorer.vae_scale_factor`.
            tiling: cut the networks' evaluations into tiles.
            output_type: see RestorationOutput.
            return_dict: False for a plain tuple.
            callback_on_step_end: called as (pipeline, 0, T_L, {"latents": x0}); may return a new "latents".

        Raises:
            ValueError: for an argument out of its range; the message names it.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}")
        lr, restorer = to_tensor(image).to(self._execution_device), self.restorer

        def after_step(step: int, x0: torch.Tensor) -> torch.Tensor | None:
            if callback_on_step_end is None:
                return None
            return callback_on_step_end(self, step, restorer.timesteps()[0], {"latents": x0}).get("latents")

        x0 = restorer(lr, tiling=tiling, callback=after_step)
        decoded = x0 if output_type == "latent" else restorer.decode_latents(x0, tiling)
        images = x0 if output_type == "latent" else to_output(decoded, output_type)
        self.maybe_free_model_hooks()
        return RestorationOutput(images=images) if return_dict else (images,)
