"""Ranges and shares that a degradation draws from, and what they must be."""

from collections.abc import Sequence

import numpy as np

Range = tuple[float, float]
WholeRange = tuple[int, int]


def check_probability(name: str, value: float) -> None:
    """Raises ValueError unless it is 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value:g}; it must be 0 to 1")


def check_probabilities(name: str, values: Sequence[float], count: int) -> None:
    """Raises ValueError unless they are `count` shares of 1."""
    if len(values) != count or min(values) < 0 or not abs(sum(values) - 1) < 1e-6:
        raise ValueError(f"{name} is {list(values)}; it must be {count} shares that add up to 1")


def check_range(name: str, values: Sequence[float], lowest: float, highest: float) -> None:
    """Raises ValueError unless they are two numbers within the limits, the smaller first."""
    low, high = values
    if not lowest <= low <= high <= highest or not np.isfinite(high):
        limits = f"{lowest:g} to {highest:.4g}" if np.isfinite(highest) else f"at least {lowest:g}"
        raise ValueError(f"{name} is ({low:g}, {high:g}); it must be two numbers of {limits}, the smaller first")


def check_around_one(name: str, values: Range) -> None:
    """Raises ValueError unless 1 lies between them."""
    low, high = values
    if not 0 < low <= 1 <= high < np.inf:
        raise ValueError(f"{name} is ({low:g}, {high:g}); it must be one of 0..1, then one from 1 on")
