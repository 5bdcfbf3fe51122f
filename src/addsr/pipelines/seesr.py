"""SeeSR (Wu et al., CVPR 2024) as a diffusers pipeline: the same networks as AddSR, many ancestral steps, guidance."""

from typing import Any, ClassVar

from addsr.diffusion.samplers.ancestral import AncestralSampler
from addsr.diffusion.samplers.sampler import Sampler
from addsr.pipelines.addsr import AddSRPipeline


class SeeSRPipeline(AddSRPipeline):
    """Restores a picture that was already enlarged to its final size: 50 steps with guidance 5.5, as published.

    SeeSR-Turbo (SD-Turbo's U-Net with SeeSR's representation attentions) is the same with 2 steps and guidance 1.
    The arguments are AddSRPipeline's; `psr_weight` has no effect, as the condition stays the LR picture.
    """

    sampler: ClassVar[Sampler] = AncestralSampler()

    def __init__(
        self,
        unet: Any,
        vae: Any,
        scheduler: Any,
        controlnet: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        image_encoder: Any = None,
        start_point: str = "lr",
        psr_weight: float = 0.0,
        num_inference_steps: int = 50,
        color_fix: str = "adain",
        guidance_scale: float = 5.5,
        released_overlap: int = 4,
    ) -> None:
        super().__init__(
            unet,
            vae,
            scheduler,
            controlnet,
            text_encoder,
            tokenizer,
            image_encoder,
            start_point=start_point,
            psr_weight=psr_weight,
            num_inference_steps=num_inference_steps,
            color_fix=color_fix,
            guidance_scale=guidance_scale,
            released_overlap=released_overlap,
        )
