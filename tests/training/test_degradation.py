"""The degradation, as pure functions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from addsr.data.degradation import (
    CASES,
    DegradationSettings,
    _noise,
    area,
    filter2d,
    fixed_case,
    poisson,
    two_order,
)
from addsr.data.kernels import gaussian_kernel, sinc_kernel
from addsr.data.mild import MildSettings, mild


@pytest.mark.parametrize(
    "kernel",
    [
        gaussian_kernel(7, 1.0, 1.0, 0.0),
        gaussian_kernel(21, 3.0, 0.5, 0.7),
        gaussian_kernel(9, 2.0, 1.0, 1.0, shape="generalized", beta=0.6),
        gaussian_kernel(9, 2.0, 1.0, 1.0, shape="plateau", beta=1.5),
        sinc_kernel(13, 1.2),
    ],
)
def test_kernels_sum_to_one_and_are_point_symmetric(kernel):
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)


def test_filter2d_is_a_correlation_at_reflected_borders():
    picture, kernel = torch.rand(3, 20, 30), np.random.default_rng(0).random((5, 5)).astype(np.float32)
    padded = torch.nn.functional.pad(picture[None], (2, 2, 2, 2), mode="reflect")
    weight = torch.from_numpy(kernel).expand(3, 1, 5, 5)
    expected = torch.nn.functional.conv2d(padded, weight, groups=3)[0]
    torch.testing.assert_close(filter2d(picture, kernel), expected, atol=1e-4, rtol=0)


def test_degradation_is_a_function_of_the_generator():
    hr = torch.rand(3, 64, 96)
    results = [two_order(hr, DegradationSettings(), np.random.default_rng(s)) for s in range(12)]
    for seed, result in enumerate(results):
        assert result.shape == (3, 16, 24)
        assert result.min() >= 0
        assert result.max() <= 1
        assert torch.equal(result, two_order(hr, DegradationSettings(), np.random.default_rng(seed)))
    assert not torch.equal(results[0], results[1])


@pytest.mark.parametrize("case", CASES)
def test_fixed_cases(case):
    lr = fixed_case(torch.rand(3, 64, 96), case, np.random.default_rng(0))
    assert lr.shape == (3, 16, 24)
    torch.testing.assert_close(lr, (lr * 255).round() / 255)


def test_unknown_case_is_refused():
    with pytest.raises(ValueError, match="unknown case"):
        fixed_case(torch.rand(3, 64, 96), "fog", np.random.default_rng(0))


@pytest.mark.parametrize("mean", [3.0, 7.0, 9.0, 31.0, 33.0, 200.0])
def test_poisson_numbers_have_poissons_moments(mean):
    numbers = poisson(np.full(400_000, mean, np.float32), np.random.default_rng(0)).astype(np.float64)
    assert np.array_equal(numbers, np.rint(numbers))
    assert numbers.min() >= 0
    assert numbers.mean() == pytest.approx(mean, rel=0.005)
    assert numbers.var() == pytest.approx(mean, rel=0.02)
    assert ((numbers - numbers.mean()) ** 3).mean() == pytest.approx(mean, rel=0.15)


@pytest.mark.parametrize("size", [(100, 77), (300, 300), (64, 60), (1, 2)])
def test_area_is_adaptive_pooling(size):
    picture = torch.rand(3, 256, 240)
    expected = torch.nn.functional.interpolate(picture[None], size=size, mode="area")[0]
    torch.testing.assert_close(area(picture, size), expected)


def test_mild_degradation_is_a_function_of_the_generator():
    hr = torch.rand(3, 64, 96)
    results = [mild(hr, MildSettings(), np.random.default_rng(s)) for s in range(12)]
    for seed, result in enumerate(results):
        assert result.shape == (3, 16, 24)
        torch.testing.assert_close(result, ((result * 255).round() / 255).clamp(0, 1))
        assert torch.equal(result, mild(hr, MildSettings(), np.random.default_rng(seed)))
    assert not torch.equal(results[0], results[1])
    assert mild(torch.rand(3, 32, 32), MildSettings(), np.random.default_rng(0)).shape == (3, 8, 8)


def only(**chosen):
    """Settings of which nothing happens but what is chosen."""
    names = ("blur", "noise", "sharpening", "jpeg")
    return MildSettings(**({f"{name}_probability": 0.0 for name in names} | chosen))


@pytest.mark.parametrize(("smooth", "gray"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_mild_noise_has_the_sigma_asked_for_everywhere(smooth, gray):
    settings = only(
        noise_probability=1.0, noise_sigma=(8.0, 8.0), smooth_probability=smooth, gray_probability=gray,
        smoothness=(0.8, 0.8),
    )  # fmt: skip
    flat = torch.full((3, 128, 512), 0.5)
    noise = torch.cat([(mild(flat, settings, np.random.default_rng(seed)) - 0.5) * 255 for seed in range(8)])
    assert noise.std() == pytest.approx(8, rel=0.05)
    assert noise[:, 0].std() == pytest.approx(8, rel=0.1)  # at the border too
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.var()
    assert (neighbours > 0.1) == bool(smooth)
    assert torch.equal(noise[0], noise[1]) == bool(gray)


def test_mild_blur_sharpening_and_compression_do_what_they_say():
    edge = torch.zeros(3, 128, 128)
    edge[:, :, 64:] = 0.6

    def steepest(settings):
        lr = mild(edge + 0.2, settings, np.random.default_rng(0))
        return (lr[:, :, 1:] - lr[:, :, :-1]).amax().item(), lr

    plain, untouched = steepest(only())
    assert steepest(only(blur_probability=1.0, sigma=(5.0, 6.0)))[0] < 0.8 * plain
    assert steepest(only(sharpening_probability=1.0, sharpening=(0.5, 0.6)))[0] > 1.1 * plain
    assert not torch.equal(steepest(only(jpeg_probability=1.0, jpeg_quality=(30, 30)))[1], untouched)


def test_mild_leaves_a_picture_as_it_is_where_nothing_is_asked_for():
    lr = mild(torch.full((3, 64, 64), 0.25), only(), np.random.default_rng(0))
    torch.testing.assert_close(lr, torch.full((3, 16, 16), 64 / 255))


@pytest.mark.parametrize(
    "wrong",
    [
        {"blur_probability": 1.5},
        {"noise_sigma": (0.0, 3.0)},
        {"jpeg_quality": (50, 101)},
        {"sigma": (2.0, 1.0)},
        {"smoothness": (5.0, 5.0)},
    ],
)
def test_mild_ranges_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MildSettings(**wrong)


def test_noise_is_clipped_before_anything_else():
    rng = np.random.default_rng(0)
    for probability in (0.0, 1.0):  # Poisson, Gaussian
        stage = replace(DegradationSettings().second, gaussian_probability=probability, gaussian_sigma=(30, 30))
        for level in (0.02, 0.98):
            noisy = _noise(torch.full((3, 32, 32), level), stage, rng)
            assert 0 <= noisy.min() < noisy.max() <= 1
