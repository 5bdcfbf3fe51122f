"""A tiny random model, as a pipeline and as an upscaler."""

import pytest
import torch
from diffusers import DDPMScheduler

from addsr.pipelines.addsr import AddSRPipeline
from addsr.upscaler import Upscaler
from tests.tiny import SCHEDULE, tiny_unet, tiny_vae


@pytest.fixture
def compact_pipeline():
    torch.manual_seed(0)
    vae = tiny_vae()
    scheduler = DDPMScheduler(prediction_type="sample", **SCHEDULE)
    return AddSRPipeline(tiny_unet(), vae, scheduler, start_point="noise", num_inference_steps=1, color_fix="none")


@pytest.fixture
def tiny_upscaler(compact_pipeline):
    return Upscaler(compact_pipeline.restorer, "tiny", "0" * 64)
