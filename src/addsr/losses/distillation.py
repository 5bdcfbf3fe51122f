"""The weights of adversarial diffusion distillation (AddSR, Eq. 3-5; ADD, Sauer et al. 2023, Eq. 4)."""

from collections.abc import Sequence

import torch

from addsr.diffusion.schedule import at_student_timesteps

# AddSR, section 3.4: 0.5 · 2.1^(s-1) for the student's timesteps 999, 749, 499, 249: gamma falls as the timestep rises
GAMMAS = (0.5, 1.05, 2.205, 4.63)
TEACHER_WEIGHTS = ("sqrt_alphas_cumprod", "uniform")


def timestep_adapting_weight(timestep: torch.Tensor, gammas: Sequence[float] = GAMMAS) -> torch.Tensor:
    """gamma(t) of the student's timesteps (N,), which must be 999, 749, 499 or 249.

    Late steps distil more, early ones leave more to the adversarial loss. (The released code looks the weight up by the
    first of two steps, and so gives 999 the largest; see docs/training.md.)
    """
    return at_student_timesteps(timestep, gammas)


def teacher_weight(timestep: torch.Tensor, alphas_cumprod: torch.Tensor, kind: str) -> torch.Tensor:
    """c(t) of the teacher's timesteps (N,): sqrt(abar_t), so that what it says of almost pure noise counts little, or 1.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind == "uniform":
        return torch.ones(len(timestep), device=timestep.device)
    if kind == "sqrt_alphas_cumprod":
        return alphas_cumprod.to(timestep.device)[timestep].sqrt()
    raise ValueError(f"unknown teacher weight {kind!r}: expected one of {', '.join(TEACHER_WEIGHTS)}")
