"""What a model's defaults may be."""

import math

import numpy as np
import pytest

from addsr.diffusion.defaults import misfit


@pytest.mark.parametrize(
    ("name", "value", "sampler"),
    [
        ("psr_weight", 0, ""),
        ("psr_weight", np.float32(0.5), ""),
        ("num_inference_steps", 4, "addsr"),
        ("num_inference_steps", np.int64(999), ""),
        ("guidance_scale", 5.5, ""),
        ("start_point", "noise", ""),
    ],
)
def test_what_fits(name, value, sampler):
    assert misfit(name, value, sampler) == ""


@pytest.mark.parametrize(
    ("name", "value", "sampler", "must"),
    [
        ("psr_weight", 1.5, "", "0 to 1"),
        ("psr_weight", math.nan, "", "0 to 1"),
        ("psr_weight", True, "", "0 to 1"),
        ("psr_weight", "0.5", "", "0 to 1"),
        ("guidance_scale", 10**400, "", "0 to 10000"),
        ("num_inference_steps", 5, "addsr", "1 to 4"),
        ("num_inference_steps", 2.0, "addsr", "1 to 4"),
        ("num_inference_steps", 2, "d3sr", "1"),
        ("guidance_scale", math.inf, "", "0 to 10000"),
        ("start_point", ["lr"], "", "one of lr, noise"),
    ],
)
def test_what_does_not_fit(name, value, sampler, must):
    assert misfit(name, value, sampler) == must
