"""Eq. 5 of the paper by hand, from what the teacher was asked."""

import pytest
import torch

from addsr.data.draws import Draws
from addsr.diffusion.schedule import predict_x0
from addsr.training.task import Moment
from tests.training.runs import student_task

ALONE = {"l1": 0.0, "lpips": 0.0, "lpips_final": 0.0, "balance": 0.0, "autoencoder": 0.0, "adversarial": 0.0}
GAMMAS = {999: 0.5, 749: 1.05, 499: 2.205, 249: 4.63}


@pytest.mark.parametrize("teacher_timesteps", [1, 2])
def test_the_distillation_is_equation_5(teacher_timesteps, lpips_weights):
    task = student_task(lpips_weights, **ALONE, refine=1, hr_latents=0.0, teacher_timesteps=teacher_timesteps)
    generator = torch.Generator().manual_seed(0)
    hr, lr = (torch.rand(6, 3, 64, 64, generator=generator) for _ in range(2))
    batch = {"hr": hr, "lr": lr, "place": torch.arange(6), "prompt": [""] * 6}
    asked, rollouts = [], []
    predict, distillation = task.teacher.predict, task._distillation

    def spy(latents, timestep, *others):
        prediction = predict(latents, timestep, *others)
        asked.append((latents, timestep, prediction))
        return prediction

    def kept(rollout, draws):
        rollouts.append(rollout)
        return distillation(rollout, draws)

    task.teacher.predict, task._distillation = spy, kept
    trained = set()
    for start in range(3):
        asked.clear()
        loss = task.losses("generator", batch, Moment(1.0, Draws(0, start, range(6 * start, 6 * start + 6))))[
            "distillation"
        ]
        assert len(asked) == teacher_timesteps
        torch.testing.assert_close(loss, by_hand(task, rollouts[-1], asked), rtol=1e-4, atol=1e-6)
        trained |= set(rollouts[-1].timestep.tolist())
    assert trained == set(GAMMAS)


def by_hand(task, rollout, asked):
    gamma = torch.tensor([GAMMAS[t] for t in rollout.timestep.tolist()])
    abars, total = task.teacher.schedule.alphas_cumprod, torch.zeros(())
    for latents, timestep, prediction in asked:
        abar = abars[timestep]
        share = abar.view(-1, 1, 1, 1)
        noise = (latents - share.sqrt() * rollout.x0.detach()) / (1 - share).sqrt()  # the student's x0, noised
        usual = (1 - abar) > 0.05  # where little was added, dividing by it says little
        assert 0.9 < float(noise[usual].std()) < 1.1
        assert abs(float((noise[usual] * rollout.x0.detach()[usual]).mean() / rollout.x0.detach().std())) < 0.1
        target = task.teacher.decode_latents(predict_x0(prediction, latents, timestep, abars, "sample")).clamp(0, 1)
        distance = (target - rollout.pictures).square().mean((1, 2, 3))
        total = total + (gamma * abar.sqrt() * distance).mean() / len(asked)
    return total
