"""The two sides of an adversary pull where they should."""

import pytest
import torch

from addsr.losses.adversarial import (
    bce_discriminator_loss,
    bce_generator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
)
from addsr.training.adversary import Adversary
from addsr.training.task import Moment

LOSSES = [(hinge_generator_loss, hinge_discriminator_loss), (bce_generator_loss, bce_discriminator_loss)]


@pytest.mark.parametrize("losses", LOSSES)
def test_the_discriminator_learns_to_score_real_pictures_higher(losses):
    adversary = Adversary(torch.nn.Identity(), 0.5, False, 0.0, *losses)
    real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
    adversary.learns(real, fake)["total"].backward()
    assert (real.grad < 0).all()  # going down the gradient raises them
    assert (fake.grad > 0).all()


@pytest.mark.parametrize("losses", LOSSES)
def test_the_generator_learns_to_be_scored_higher(losses):
    adversary = Adversary(torch.nn.Identity(), 0.5, False, 0.0, *losses)
    pictures = torch.zeros(4, requires_grad=True)
    found = adversary.against(lambda: pictures * 1, pictures, torch.zeros(()), Moment(1.0, None))
    found["total"].backward()
    assert (pictures.grad < 0).all()


def test_scores_under_autocast_are_compared_in_float32():
    adversary = Adversary(torch.nn.Identity(), 0.5, False, 0.0, *LOSSES[0])
    scores = torch.full((3,), 0.301, dtype=torch.bfloat16)
    assert adversary.learns(scores, scores)["total"].dtype == torch.float32
