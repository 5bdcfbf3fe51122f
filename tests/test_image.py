"""Resampling, tiles and colour fix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from addsr.image import color
from addsr.image import resize as module
from addsr.image.conditioning import conditioning_picture, conditioning_size, enlarged_size
from addsr.image.extend import extended
from addsr.image.resize import resize, resize_region
from addsr.image.tiling import plan_axis


@pytest.mark.parametrize("size", [(148, 212), (9, 13), (50, 40), (1, 1), (37, 60)])
def test_resize_is_pillows_bicubic(size):
    image = torch.rand(3, 37, 53)
    planes = [Image.fromarray(plane.numpy()).resize(size[::-1], Image.Resampling.BICUBIC) for plane in image]
    np.testing.assert_allclose(resize(image, size).numpy(), np.stack(planes), atol=1e-5)


@pytest.mark.parametrize("size", [(148, 212), (60, 71), (20, 17)])
def test_resize_in_blocks_is_one_pass(monkeypatch, size):
    image = torch.rand(3, 37, 53)
    whole = resize(image, size)
    monkeypatch.setattr(module, "BLOCK", 7)
    torch.testing.assert_close(resize(image, size), whole)


@pytest.mark.parametrize("size", [(148, 212), (60, 71), (20, 17)])
def test_a_region_is_cut_from_the_whole(size):
    image = torch.rand(3, 37, 53)
    whole = resize(image, size)
    part = resize_region(image, size, slice(5, 18), slice(9, 17))
    torch.testing.assert_close(part, whole[:, 5:18, 9:17])


@given(st.integers(1, 200), st.integers(4, 40), st.integers(0, 20))
@settings(deadline=None)
def test_tiles_cover_the_axis_and_their_weights_sum_to_one(length, tile, overlap):
    length, tile = length * 8, tile * 8
    overlap = min(overlap * 8, tile // 2)
    total, end = torch.zeros(length), 0
    for piece in plan_axis(length, tile, overlap, 8):
        assert piece.start % 8 == 0
        assert piece.start <= end
        assert (piece.weights >= -1e-6).all()
        total[piece.start : piece.stop] += piece.weights
        end = piece.stop
    assert end == length
    torch.testing.assert_close(total, torch.ones(length), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["wavelet", "adain"])
def test_color_fix_in_strips_is_one_pass_over_the_whole(monkeypatch, kind):
    source, target = torch.rand(3, 300, 90), torch.rand(3, 300, 90)
    results = []
    for strip in (10_000, 64, 17):
        monkeypatch.setattr(color, "STRIP", strip)
        monkeypatch.setattr(color, "COLUMNS", strip)
        fixed = target.clone()
        color.fix_color(fixed, lambda rows: source[:, rows].clone(), kind)
        results.append(fixed)
    for strips in results[1:]:
        torch.testing.assert_close(strips, results[0], atol=1e-5, rtol=0)


def test_unknown_color_fix_is_refused():
    with pytest.raises(ValueError, match="colour fix"):
        color.fix_color(torch.zeros(3, 4, 4), lambda rows: torch.zeros(3, 4, 4), "lab")


@pytest.mark.parametrize(("short", "long", "height"), [(49, 60, 504), (98, 120, 504), (100, 100, 512), (200, 300, 800)])
def test_small_photos_are_enlarged_as_the_released_code_does(short, long, height):
    """`int(128 / 49 * 49)` is 127: in floating point, and cut, not rounded."""
    picture = conditioning_picture(torch.rand(3, short, long), 8, released=True)
    assert picture.shape[1] == height
    full = enlarged_size(short, long, released=True)
    assert full[0] // 8 * 8 == height
    assert full[1] // 8 * 8 == picture.shape[2]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("size", [(8, 2000), (300, 7), (128, 128), (131, 140)])
def test_the_size_of_the_condition_picture_is_known_before_it(size, released):
    lr = torch.zeros(3, *size)
    assert conditioning_picture(lr, 8, released=released).shape[1:] == conditioning_size(*size, 8, released=released)


@given(*[st.integers(1, 9)] * 2, *[st.integers(0, 20)] * 2)
def test_a_picture_is_continued_by_its_mirror_image(height, width, below, beside):
    picture = torch.rand(3, height, width)
    larger = np.pad(picture.numpy(), ((0, 0), (0, below), (0, beside)), mode="symmetric")
    np.testing.assert_array_equal(extended(picture, height + below, width + beside), larger)


def test_the_condition_picture_is_continued_by_its_mirror_image():
    picture = conditioning_picture(torch.rand(3, 131, 140), 64)
    assert picture.shape == (3, 576, 576)
    assert torch.equal(picture[:, 524:], picture[:, 472:524].flip(1))
    assert torch.equal(picture[:, :, 560:], picture[:, :, 544:560].flip(2))
