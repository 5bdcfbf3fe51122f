"""Letters and lines on training photos."""

import numpy as np
import pytest
import torch
from PIL import Image

from addsr.data.lettering import LEAST_CONTRAST, LetteringSettings, faces, lettered
from addsr.data.pairs import Pairs, PairSettings
from addsr.data.photos import Photos
from addsr.errors import DataError

GREY = torch.full((3, 96, 128), 0.5)


def drawn(seed, hr=GREY, **settings):
    return lettered(hr, LetteringSettings(**settings), [None], np.random.default_rng(seed))


def test_letters_are_a_function_of_the_generator_and_leave_the_photo_as_it_was():
    hr = GREY.clone()
    results = [drawn(seed, hr) for seed in range(6)]
    assert torch.equal(hr, GREY)
    for seed, result in enumerate(results):
        assert result.shape == hr.shape
        assert result.dtype == hr.dtype
        assert result.min() >= 0
        assert result.max() <= 1
        assert torch.equal(result, drawn(seed, hr))
    assert not any(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_letters_are_seen_on_what_is_below_them(grey):
    hr = torch.full((3, 96, 128), grey)
    large = {"size": (40.0, 40.0), "rows": (5, 5), "columns": (14, 14), "softness": (0.0, 0.0)}  # never wholly outside
    for seed in range(20):
        result = drawn(seed, hr, blocks=(1, 1), lines_probability=0.0, sign_probability=0.0, **large)
        assert (result - hr).mean(0).abs().max() >= 0.7 * LEAST_CONTRAST - 1e-6


def test_nothing_is_drawn_where_nothing_is_asked_for():
    assert torch.equal(drawn(0, blocks=(0, 0), lines_probability=0.0), GREY)
    lines = drawn(0, blocks=(0, 0), lines_probability=1.0, lines=(5, 5))
    assert not torch.equal(lines, GREY)


def test_small_and_large_letters_fit_any_picture():
    for size in ((4.0, 4.0), (300.0, 300.0)):
        result = drawn(3, torch.rand(3, 32, 40), size=size, columns=(1, 1), rows=(1, 1))
        assert result.shape == (3, 32, 40)
        assert result.isfinite().all()


def test_fonts_that_are_none_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.ttf: cannot be used as a font"):
        faces([str(tmp_path / "nowhere.ttf")])
    with pytest.raises(DataError, match=r"no fonts \(\.ttf, \.otf\) in this folder"):
        faces([str(tmp_path)])
    (tmp_path / "photo.ttf").write_bytes(b"not a font")
    with pytest.raises(DataError, match=r"photo\.ttf: cannot be used as a font"):
        faces([str(tmp_path)])
    assert faces([]) == [None]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (2.0, 9.0)}, "size is"),
        ({"slope": 91.0}, "slope is"),
        ({"lines_probability": 2.0}, "lines_probability is"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LetteringSettings(**settings)


def test_pairs_have_letters_as_often_as_asked_for(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "a.png")
    photos = Photos([tmp_path], 64, 100)

    def pairs(letters):
        return Pairs(photos, PairSettings(crop=64, letters=letters), 7, 100)

    without, half, always = (pairs(letters) for letters in (0.0, 0.5, 1.0))
    same = [torch.equal(without[i]["hr"], half[i]["hr"]) for i in range(12)]
    assert any(same)
    assert not all(same)
    assert sum(torch.equal(without[i]["hr"], always[i]["hr"]) for i in range(12)) < 4  # a block may lie outside
    late, early = always[5], pairs(1.0)[5]
    assert torch.equal(late["hr"], early["hr"])
    assert torch.equal(late["lr"], early["lr"])
    with pytest.raises(DataError, match=r"pairs\.letters is 1\.5"):
        PairSettings(letters=1.5)
