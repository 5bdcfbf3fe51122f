"""From loaded networks back to diffusers' pipeline, which knows how to be saved."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from addsr.diffusion.restorer import Restorer
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.ancestral import AncestralSampler
from addsr.diffusion.samplers.d3sr import D3SRSampler
from addsr.pipelines.addsr import AddSRPipeline
from addsr.pipelines.d3sr import D3SRPipeline
from addsr.pipelines.seesr import SeeSRPipeline


def pipeline_of(
    restorer: Restorer, scheduler: Any, text_encoder: Any = None, tokenizer: Any = None
) -> DiffusionPipeline:
    """The pipeline of a restorer's sampler, with its networks (not copies) and the defaults of its weights.

    Args:
        restorer: the model.
        scheduler: a diffusers scheduler with its schedule.
        text_encoder, tokenizer: where the model takes words.
    """
    networks = {"unet": restorer.unet, "vae": restorer.vae, "scheduler": scheduler}
    if isinstance(restorer.sampler, D3SRSampler):
        return D3SRPipeline(
            **networks,
            fixed_prompt=restorer.fixed_prompt,  # pyright: ignore[reportArgumentType]
            one_step_timestep=restorer.sampler.one_step_timestep,
            color_fix=restorer.defaults.color_fix,
        )
    pipeline_class = {AddSRSampler: AddSRPipeline, AncestralSampler: SeeSRPipeline}[type(restorer.sampler)]
    return pipeline_class(
        **networks,
        controlnet=restorer.controlnet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        image_encoder=restorer.image_encoder,  # pyright: ignore[reportArgumentType]
        **asdict(restorer.defaults),
    )


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Write a pipeline's folder, without the places that its parts were loaded from, which are nobody's business."""
    pipeline.save_pretrained(folder)
    for path in folder.glob("*/config.json"):
        config = {key: value for key, value in json.loads(path.read_text()).items() if key != "_name_or_path"}
        path.write_text(json.dumps(config, indent=2) + "\n")
