"""Hinge and cross-entropy losses, and the weight that holds the adversarial gradient at a share of the reconstruction's."""

from collections.abc import Callable

import torch
import torch.nn.functional as F


def hinge_discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean relu(1 - D(real)) + mean relu(1 + D(fake))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """-mean D(fake)."""
    return -fake.mean()


def clamped(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in [0, 1], as the discriminator learns them, with the gradient of those that they were."""
    return pictures + (pictures.clamp(0, 1) - pictures).detach()


def adaptive_weight(
    others: torch.Tensor,
    adversarial: torch.Tensor,
    picture: torch.Tensor,
    share: float,
    mean: Callable[[torch.Tensor], torch.Tensor] = lambda value: value,
) -> torch.Tensor:
    """The factor of `adversarial` at which its gradient at `picture` has `share` of the norm of the other losses'.

    A fixed weight would have to follow the discriminator's scale, which drifts as it trains (compare VQGAN, Eq. 7).
    `mean` averages the norms over processes, so that all use the same factor.
    """
    norms = [torch.autograd.grad(loss, picture, retain_graph=True)[0].norm() for loss in (others, adversarial)]
    of_others, of_adversarial = mean(torch.stack(norms))
    return share * of_others / (of_adversarial + 1e-8)


def bce_discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """-E log D(real) - E log(1 - D(fake)), of logits (D³SR)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def bce_generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E log D(fake), of logits: non-saturating (D³SR)."""
    return F.softplus(-fake).mean()
