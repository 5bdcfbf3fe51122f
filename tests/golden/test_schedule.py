"""The schedule against the official scheduler."""

import torch

from addsr.diffusion.schedule import add_noise, predict_x0, scaled_linear_alphas_cumprod


def test_schedule_agrees(load, agrees):
    inputs, outputs = load("scheduler", "inputs"), load("scheduler", "outputs")
    z0, eps, timesteps = inputs["z0"], inputs["eps"], inputs["timesteps"]
    alphas_cumprod = scaled_linear_alphas_cumprod()
    agrees(alphas_cumprod, outputs["alphas_cumprod"])
    noisy = add_noise(z0, eps, timesteps, alphas_cumprod)
    agrees(noisy, outputs["noisy"])
    agrees(predict_x0(eps, noisy, timesteps, alphas_cumprod), outputs["z0_back"])
    velocity = predict_x0(outputs["velocity"], noisy, timesteps, alphas_cumprod, "v_prediction")
    agrees(velocity, z0)
    assert torch.equal(predict_x0(z0, noisy, timesteps, alphas_cumprod, "sample"), z0)
    for t in (249, 499, 749, 999):
        agrees(add_noise(z0[:1], eps[:1], t, alphas_cumprod), outputs[f"noisy_scalar_t{t}"])
