"""Numbers that the official code computed. The large ones lie beside the checkout, not in it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
PLACES = (HERE / "data", Path(os.environ.get("ADDSR_GOLDENS", HERE.parents[2] / "shared" / "goldens")))

Agrees = Callable[[torch.Tensor, torch.Tensor], None]


@pytest.fixture
def golden() -> Callable[[str], Path]:
    """The folder of a case; skips the test where its files are not at hand."""

    def find(case: str) -> Path:
        for place in PLACES:
            if (place / case).exists():
                return place / case
        pytest.skip(f"no goldens of {case}: set ADDSR_GOLDENS to their folder")

    return find


@pytest.fixture
def load(golden: Callable[[str], Path]) -> Callable[[str, str], dict[str, torch.Tensor]]:
    return lambda case, name: load_file(golden(case) / f"{name}.safetensors")


@pytest.fixture
def agrees() -> Agrees:
    """max|ours - golden| <= 1e-4 max|golden|; uint8: at most 1 level on at most 0.1 % of the values."""

    def check(ours: torch.Tensor, expected: torch.Tensor) -> None:
        assert ours.shape == expected.shape
        if expected.dtype == torch.uint8:
            difference = (ours.int() - expected.int()).abs()
            assert difference.max() <= 1
            assert (difference > 0).float().mean() <= 1e-3
        else:
            assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()

    return check
