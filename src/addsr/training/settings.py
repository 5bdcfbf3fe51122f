"""Checks of settings, with errors that name the setting and its limits."""

import math
from collections.abc import Sequence

from addsr.errors import TrainingError


def ranged(name: str, value: float, low: float | None, high: float | None) -> None:
    """Raises TrainingError unless low <= value <= high, where None is no limit but infinity."""
    if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"{low} to {high}"
        raise TrainingError(f"{name} is {value}; it must be {limits}")


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises TrainingError unless the value is one of the choices."""
    if value not in choices:
        raise TrainingError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
