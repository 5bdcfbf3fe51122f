"""D³SR's step (its fig. 1): from the latents of LR themselves, without noise, at one fixed timestep."""

from dataclasses import dataclass

from addsr.diffusion.samplers.sampler import Sampler
from addsr.diffusion.schedule import Schedule

TIMESTEP = 399
"""T_L. The paper leaves it to its supplement ("an intermediate timestep"); OSDFace of the same group, built the same way,
uses 399. The latents of LR are then taken for ones with sqrt(1 - abar) = 0.75 of noise, which is what they lack.
"""


@dataclass(frozen=True)
class D3SRSampler(Sampler):
    """x0 = (z_L - sqrt(1 - abar) epsilon(z_L, T_L)) / sqrt(abar), where z_L = E(x_L) are the first latents.

    Attributes:
        one_step_timestep: T_L.
    """

    one_step_timestep: int = TIMESTEP
    name = "d3sr"
    title = "D³SR"
    most_steps = 1
    starts_from_noise = False

    def timesteps(self, num_inference_steps: int, schedule: Schedule) -> list[int]:
        if num_inference_steps != 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be 1")
        return [self.one_step_timestep]
