"""All samplers."""

from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.ancestral import AncestralSampler
from addsr.diffusion.samplers.d3sr import TIMESTEP, D3SRSampler
from addsr.diffusion.samplers.sampler import Sampler

SAMPLERS: dict[str, type[Sampler]] = {kind.name: kind for kind in (AddSRSampler, AncestralSampler, D3SRSampler)}


def sampler_named(name: str, one_step_timestep: int = TIMESTEP) -> Sampler:
    """A sampler, with T_L where it has one.

    Raises:
        KeyError: for an unknown name.
    """
    return D3SRSampler(one_step_timestep) if SAMPLERS[name] is D3SRSampler else SAMPLERS[name]()
