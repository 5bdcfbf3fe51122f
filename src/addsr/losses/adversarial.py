"""Hinge losses, and the weight that holds the adversarial gradient at a share of the reconstruction gradient."""

import torch
import torch.nn.functional as F


def hinge_discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean relu(1 - D(real)) + mean relu(1 + D(fake))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """-mean D(fake)."""
    return -fake.mean()


def adaptive_weight(
    reconstruction: torch.Tensor, adversarial: torch.Tensor, picture: torch.Tensor, share: float
) -> torch.Tensor:
    """The factor of `adversarial` at which its gradient at `picture` has `share` of the norm of the reconstruction's.

    A fixed weight would have to follow the discriminator's scale, which drifts as it trains (compare VQGAN, Eq. 7).
    """
    of_reconstruction = torch.autograd.grad(reconstruction, picture, retain_graph=True)[0].norm()
    of_adversarial = torch.autograd.grad(adversarial, picture, retain_graph=True)[0].norm()
    return share * of_reconstruction / (of_adversarial + 1e-8)
