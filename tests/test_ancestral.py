"""A teacher's multi-step sampling, against diffusers' DDPM."""

import pytest
import torch
from diffusers import DDPMScheduler

from addsr.diffusion.samplers.ancestral import AncestralSampler, spaced_timesteps
from addsr.diffusion.schedule import Schedule, clip_range, scaled_linear_alphas_cumprod, schedule_from_config
from tests.tiny import SCHEDULE


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(("steps", "clip"), [(2, None), (4, None), (6, 0.4), (7, None), (13, 1.0), (50, None)])
def test_agrees_with_diffusers(prediction_type, spacing, steps, clip):
    clipping = {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}
    scheduler = DDPMScheduler(
        prediction_type=prediction_type, steps_offset=1, timestep_spacing=spacing, **(SCHEDULE | clipping)
    )
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == spaced_timesteps(steps, spacing)

    def denoise(latents, timestep, condition=None):
        return torch.tanh(latents * 0.7 + timestep / 1000)

    start = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs, generator = start, torch.Generator().manual_seed(1)
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(denoise(theirs, int(timestep)), timestep, theirs, generator=generator).prev_sample
    drawn = torch.Generator().manual_seed(1)
    schedule = Schedule(scaled_linear_alphas_cumprod(), prediction_type, spacing, clip_sample_range=clip)
    sampler = AncestralSampler()
    ours = sampler.sample(
        denoise,
        start,
        start,
        timesteps=sampler.timesteps(steps, schedule),
        schedule=schedule,
        noise=lambda step: torch.randn(start.shape, generator=drawn, dtype=torch.float64),
        decode=torch.nn.Identity(),
    )
    # after the last step diffusers returns the posterior's mean at abar = 1, which is x0
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_step_in_half_precision_is_rounded_once():
    schedule, generator = Schedule(scaled_linear_alphas_cumprod(), "epsilon"), torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 4, 32, 32, generator=generator).bfloat16() for _ in range(3)]

    def after(dtype):
        x0, latents, noise = (tensor.to(dtype) for tensor in tensors)
        return AncestralSampler().latents_after(x0, latents, 501, 481, schedule, noise)

    assert torch.equal(after(torch.bfloat16), after(torch.float32).bfloat16())


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_timesteps_are_diffusers(spacing, offset):
    scheduler = DDPMScheduler(steps_offset=offset, timestep_spacing=spacing, **SCHEDULE)
    for steps in (1, 2, 3, 27, 48, 333, 998, 999):
        scheduler.set_timesteps(steps)
        # rounding makes diffusers' trailing ones of 998 and 999 steps one too many, -1
        assert spaced_timesteps(steps, spacing, offset) == scheduler.timesteps.tolist()[:steps]


def test_the_schedulers_offset_is_the_samplers():
    assert schedule_from_config({"beta_schedule": "scaled_linear"}).steps_offset == 0
    assert schedule_from_config({"beta_schedule": "scaled_linear", "steps_offset": 1}).steps_offset == 1
    with pytest.raises(ValueError, match="steps_offset is 5"):
        schedule_from_config({"beta_schedule": "scaled_linear", "steps_offset": 5})


def test_the_schedulers_clipping_is_the_samplers():
    config = {"beta_schedule": "scaled_linear", "clip_sample": True, "clip_sample_range": 2}
    assert schedule_from_config(config).clip_sample_range == 2.0
    assert schedule_from_config(config | {"clip_sample": False}).clip_sample_range is None
    assert clip_range(DDPMScheduler().config) is None
    assert clip_range(DDPMScheduler(clip_sample=True).config) == 1.0
    with pytest.raises(ValueError, match="clip_sample_range is 0"):
        schedule_from_config(config | {"clip_sample_range": 0})
    with pytest.raises(ValueError, match="thresholding"):
        schedule_from_config(config | {"thresholding": True})


def test_restores_and_refuses(compact_pipeline):
    lr = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    restorer = compact_pipeline.restorer
    restorer.sampler = AncestralSampler()
    x0 = restorer(lr, num_inference_steps=5, seed=1)
    assert x0.shape == (2, 4, 8, 12)
    assert torch.equal(x0, restorer(lr, num_inference_steps=5, seed=1))
    assert not torch.equal(x0, restorer(lr, num_inference_steps=5, seed=2))
    with pytest.raises(ValueError, match="must be 1 to 999"):
        restorer(lr, num_inference_steps=0)
