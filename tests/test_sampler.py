import pytest
import torch

from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.refinement import refine_condition
from addsr.diffusion.schedule import Schedule, add_noise, predict_x0, scaled_linear_alphas_cumprod, student_timesteps

ALPHAS = scaled_linear_alphas_cumprod()


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_n_steps_run_n_times_at_the_students_timesteps(steps):
    seen = []

    def denoise(latents, timestep, condition):
        seen.append(timestep)
        return latents

    schedule = Schedule(ALPHAS)
    AddSRSampler().sample(
        denoise,
        torch.zeros(1, 3, 2, 2),
        torch.zeros(1, 3, 2, 2),
        timesteps=AddSRSampler().timesteps(steps, schedule),
        schedule=schedule,
        noise=lambda step: torch.zeros(1, 3, 2, 2),
        decode=lambda x0: x0 / 2 + 0.5,
        psr_weight=0.5,
    )
    assert seen == [999, 749, 499, 249][:steps]


@pytest.mark.parametrize("steps", [0, 5, -1])
def test_other_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match="1 to 4"):
        student_timesteps(steps)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_x0_from_a_perfect_prediction(kind):
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    t = torch.tensor([249, 749])
    abar = ALPHAS[t].view(2, 1, 1, 1)
    prediction = noise if kind == "epsilon" else abar.sqrt() * noise - (1 - abar).sqrt() * x0
    torch.testing.assert_close(predict_x0(prediction, add_noise(x0, noise, t, ALPHAS), t, ALPHAS, kind), x0)


def test_unknown_prediction_type_is_refused():
    with pytest.raises(ValueError, match="prediction_type"):
        predict_x0(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0, ALPHAS, "noise")


def test_the_condition_is_refined_from_the_second_step_on():
    lr, conditions = torch.full((1, 3, 2, 2), 0.2), []

    def denoise(latents, timestep, condition):
        conditions.append(condition)
        return torch.zeros_like(latents)  # x0 = 0 decodes to mid-grey

    AddSRSampler().sample(
        denoise,
        torch.zeros(1, 3, 2, 2),
        lr,
        timesteps=(999, 749, 499),
        schedule=Schedule(ALPHAS, "sample"),
        noise=lambda step: torch.zeros(1, 3, 2, 2),
        decode=lambda x0: x0 / 2 + 0.5,
        psr_weight=0.25,
    )
    assert conditions[0] is lr
    torch.testing.assert_close(conditions[1], torch.full((1, 3, 2, 2), 0.25 * 0.5 + 0.75 * 0.2))
    torch.testing.assert_close(conditions[2], conditions[1])  # always from the original LR, not the running mix


def test_refinement_clamps_the_picture():
    mixed = refine_condition(torch.tensor([-3.0, 3.0]), torch.tensor([0.5, 0.5]), 1.0)
    assert mixed.tolist() == [0.0, 1.0]
