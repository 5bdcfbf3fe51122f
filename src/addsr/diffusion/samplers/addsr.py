"""AddSR's sampler: one to four steps from noise, each refining its own condition."""

from dataclasses import dataclass

from addsr.diffusion.samplers.sampler import Sampler
from addsr.diffusion.schedule import STUDENT_TIMESTEPS, Schedule, student_timesteps


@dataclass(frozen=True)
class AddSRSampler(Sampler):
    """The first steps of 999, 749, 499 and 249; between two of them x0 gets fresh noise, and refines the condition."""

    name = "addsr"
    title = "AddSR"
    most_steps = len(STUDENT_TIMESTEPS)
    refines = True

    def timesteps(self, num_inference_steps: int, schedule: Schedule) -> list[int]:
        return list(student_timesteps(num_inference_steps))
