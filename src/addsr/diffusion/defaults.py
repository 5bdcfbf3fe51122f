"""A model's defaults: what each may be, for a model's index, a run's settings and a user's options alike."""

from numbers import Integral, Real
from typing import Any

from addsr.diffusion.schedule import PREDICTION_TYPES
from addsr.image.color import COLOR_FIXES

START_POINTS = ("lr", "noise")
MOST_STEPS = {"addsr": 4, "ancestral": 999, "d3sr": 1}  # by sampler
WORDS = {
    "prediction_type": PREDICTION_TYPES, "start_point": START_POINTS, "color_fix": COLOR_FIXES, "sampler": tuple(MOST_STEPS),
}  # fmt: skip
NUMBERS: dict[str, tuple[type, int, int]] = {  # the steps' limit is the sampler's
    "psr_weight": (Real, 0, 1),
    "num_inference_steps": (Integral, 1, max(MOST_STEPS.values())),
    "one_step_timestep": (Integral, 0, 999),
    "guidance_scale": (Real, 0, 10_000),
    "released_overlap": (Integral, 0, 10_000),
}


def misfit(name: str, value: Any, sampler: str = "") -> str:
    """What a default must be where `value` is not that, such as "0 to 1" or "one of lr, noise"; empty where it fits.

    Args:
        name: as Restorer has it.
        value: anything.
        sampler: whose number of steps counts; where it is none, any sampler's.

    Raises:
        KeyError: for a name that is no default's.
    """
    if name in WORDS:
        return "" if isinstance(value, str) and value in WORDS[name] else f"one of {', '.join(WORDS[name])}"
    kind, low, high = NUMBERS[name]
    if name == "num_inference_steps":
        high = MOST_STEPS.get(sampler, high)
    number = isinstance(value, kind) and not isinstance(value, bool)
    if number and low <= value <= high:  # not a number is in no range
        return ""
    return f"{low} to {high}" if low < high else f"{low}"
