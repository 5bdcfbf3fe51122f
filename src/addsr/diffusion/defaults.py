"""A model's defaults, and what each may be, for a model's index, a run's settings and a user's options alike."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from addsr.diffusion.samplers.by_name import SAMPLERS
from addsr.diffusion.schedule import PREDICTION_TYPES, TRAIN_TIMESTEPS
from addsr.image.color import COLOR_FIXES

START_POINTS = ("lr", "noise")
WORDS = {
    "prediction_type": PREDICTION_TYPES, "start_point": START_POINTS, "color_fix": COLOR_FIXES, "sampler": tuple(SAMPLERS),
}  # fmt: skip
NUMBERS: dict[str, tuple[type, int, int]] = {  # the steps' limit is the sampler's
    "psr_weight": (Real, 0, 1),
    "num_inference_steps": (Integral, 1, max(kind.most_steps for kind in SAMPLERS.values())),
    "one_step_timestep": (Integral, 0, TRAIN_TIMESTEPS - 1),
    "guidance_scale": (Real, 0, 10_000),
    "released_overlap": (Integral, 0, 10_000),
}


@dataclass(frozen=True)
class ModelDefaults:
    """How a model is asked: unless one says otherwise, by the numbers that belong to its weights.

    Attributes:
        start_point: the first latents are noised ones of LR (`lr`, SeeSR's LRE) or noise (`noise`).
        psr_weight: weight of the last prediction in the condition from the second step on, 0 to 1.
        num_inference_steps: steps.
        color_fix: `adain`, `wavelet` or `none`, see `addsr.image.color`.
        guidance_scale: of classifier-free guidance, where there is text; 1 for none.
        released_overlap: latents that the tiles of the released inference share, for `--compat released`.
    """

    start_point: str = "lr"
    psr_weight: float = 0.5
    num_inference_steps: int = 4
    color_fix: str = "adain"
    guidance_scale: float = 1.0
    released_overlap: int = 4


def misfit(name: str, value: Any, sampler: str = "") -> str:
    """What a default must be where `value` is not that, such as "0 to 1" or "one of lr, noise"; empty where it fits.

    Args:
        name: of ModelDefaults, or `prediction_type`, `sampler` or `one_step_timestep`.
        value: anything.
        sampler: whose number of steps counts; where it is none, any sampler's.

    Raises:
        KeyError: for a name that is no default's.
    """
    if name in WORDS:
        return "" if isinstance(value, str) and value in WORDS[name] else f"one of {', '.join(WORDS[name])}"
    kind, low, high = NUMBERS[name]
    if name == "num_inference_steps":
        high = SAMPLERS[sampler].most_steps if sampler in SAMPLERS else high
    number = isinstance(value, kind) and not isinstance(value, bool)
    if number and low <= value <= high:  # not a number is in no range
        return ""
    return f"{low} to {high}" if low < high else f"{low}"
