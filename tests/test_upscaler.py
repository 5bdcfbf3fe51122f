"""Any picture in, the right picture out: sizes, tiles, grey, alpha, memory."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from addsr import upscaler as module
from addsr.errors import AddSRError, InputImageError, ModelError
from addsr.evaluation.plan import Planner
from addsr.image.read import read_pil
from addsr.image.transparency import fill_clear
from addsr.loading import find_model
from addsr.options import RestoreOptions


def photo(height=20, width=28, channels=3):
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return array[..., 0] if channels == 1 else array


@given(st.integers(1, 20), st.integers(1, 20), st.floats(1, 6))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_size_is_exact(tiny_upscaler, height, width, scale):
    result = tiny_upscaler(photo(height, width), scale=scale)
    assert result.size == (max(1, round(width * scale)), max(1, round(height * scale)))


@pytest.mark.parametrize(("height", "width"), [(13, 21), (3, 1)])
def test_beyond_its_borders_a_picture_is_mirrored(tiny_upscaler, height, width):
    """Repeated border pixels turn noise into streaks, which cost the bundled model 0.004 of LPIPS at an odd size."""
    array, multiple = photo(height, width), tiny_upscaler.restorer.size_multiple // 4
    larger = np.pad(array, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="symmetric")
    assert larger.shape[:2] != array.shape[:2]
    result = np.asarray(tiny_upscaler(array, color_fix="none"))
    assert np.array_equal(result, np.asarray(tiny_upscaler(larger, color_fix="none"))[: 4 * height, : 4 * width])


def test_one_pixel(tiny_upscaler):
    assert tiny_upscaler(photo(1, 1)).size == (4, 4)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_the_mode_is_kept(tiny_upscaler, channels, mode):
    assert tiny_upscaler(photo(channels=channels)).mode == mode


def test_gray_in_three_channels_stays_gray(tiny_upscaler):
    result = np.asarray(tiny_upscaler(np.repeat(photo(channels=1)[..., None], 3, 2)))
    assert result.shape == (80, 112, 3)
    assert (result == result[..., :1]).all()


def test_opaque_alpha_is_kept(tiny_upscaler):
    array = np.dstack([photo(), np.full((20, 28), 255, np.uint8)])
    result = tiny_upscaler(array)
    assert result.mode == "RGBA"
    assert (np.asarray(result)[..., 3] == 255).all()


def test_what_is_clear_does_not_bleed_into_the_edges():
    pixels, alpha = torch.full((3, 40, 40), 0.8), torch.ones(1, 40, 40)
    pixels[:, :, :20], alpha[:, :, :20] = 0, 0
    torch.testing.assert_close(fill_clear(pixels, alpha), torch.full((3, 40, 40), 0.8))


def test_the_callers_picture_is_left_alone(tiny_upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(8, 16)).save(tmp_path / "turned.jpg", exif=exif)
    image = Image.open(tmp_path / "turned.jpg")
    assert [tiny_upscaler(image).size for _ in range(2)] == [(32, 64), (32, 64)]


def test_opaque_and_clear_stay_so(tiny_upscaler):
    array = photo(24, 24, 4)
    array[:, :12, 3], array[:, 12:, 3] = 0, 255
    alpha = np.asarray(tiny_upscaler(array))[..., 3]
    assert (alpha[:, :32] == 0).all()
    assert (alpha[:, -32:] == 255).all()


@pytest.mark.parametrize("options", [{}, {"steps": 4}, {"color_fix": "wavelet"}, {"color_fix": "adain"}])
def test_tiles_give_the_picture_of_one_pass(tiny_upscaler, options):
    """As far as the tiles' overlap goes, with random weights; the bundled model is held to more."""
    array = photo(110, 150)
    whole, tiles = (np.asarray(tiny_upscaler(array, tile=tile, **options)).astype(int) for tile in (1024, 256))
    assert abs(whole - tiles).mean() < 0.1
    assert abs(whole - tiles).max() <= 12


def test_the_seed_decides(tiny_upscaler):
    a, b, c = (np.asarray(tiny_upscaler(photo(), steps=4, seed=s)) for s in (5, 5, 6))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_path_image_and_array_are_the_same(tiny_upscaler, tmp_path):
    image = Image.fromarray(photo())
    image.save(tmp_path / "a.png")
    results = [np.asarray(tiny_upscaler(p)) for p in (tmp_path / "a.png", str(tmp_path / "a.png"), image, photo())]
    assert all(np.array_equal(results[0], result) for result in results[1:])


def test_progress_counts_tiles(tiny_upscaler):
    seen = []
    tiny_upscaler(photo(60, 90), tile=128, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]
    assert len(seen) > 4


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scale": 0.5}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": float("inf")}, "scale"),
        ({"steps": 5}, "steps"),
        ({"psr_weight": 2}, "psr_weight"),
        ({"tile": 16}, "tile"),
        ({"color_fix": "lab"}, "color_fix"),
    ],
)
def test_options_out_of_range_are_named(tiny_upscaler, options, name):
    with pytest.raises(AddSRError, match=name):
        tiny_upscaler(photo(), **options)


def test_results_that_are_too_large_are_refused(tiny_upscaler, monkeypatch):
    monkeypatch.setattr(module, "MAX_OUTPUT_PIXELS", 1000)
    with pytest.raises(InputImageError, match="megapixels"):
        tiny_upscaler(photo())


def test_less_memory_means_smaller_tiles(tiny_upscaler, monkeypatch):
    run, tried = tiny_upscaler.runner._run_tiles, []

    def short_of_memory(one, tile):
        tried.append(tile)
        if tile > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(one, tile)

    monkeypatch.setattr(tiny_upscaler.runner, "_run_tiles", short_of_memory)
    assert tiny_upscaler(photo()).size == (112, 80)
    assert tried == [1024, 512, 256]


@pytest.mark.parametrize("words", ["can't allocate memory", "not enough memory: you tried to allocate 8 bytes."])
def test_never_enough_memory_is_one_clear_error(tiny_upscaler, monkeypatch, words):
    def full(*args):
        raise RuntimeError(f"DefaultCPUAllocator: {words}")

    monkeypatch.setattr(tiny_upscaler.runner, "_run_tiles", full)
    with pytest.raises(AddSRError, match="out of memory"):
        tiny_upscaler(photo())


def test_an_overflow_of_half_precision_is_computed_again(tiny_upscaler):
    expected = np.asarray(tiny_upscaler(photo()))
    tiny_upscaler.restorer.to(torch.float16)
    decode, seen = tiny_upscaler.restorer.decode_latents, []

    def overflow(latents):
        seen.append(latents.dtype)
        return decode(latents) * (torch.inf if latents.dtype == torch.float16 else 1)

    tiny_upscaler.restorer.decode_latents = overflow
    assert abs(np.asarray(tiny_upscaler(photo())).astype(int) - expected).max() <= 1
    assert seen == [torch.float16, torch.float32]
    assert tiny_upscaler.restorer.placement.dtype == torch.float16


def test_an_overflow_without_memory_for_float32_leaves_the_model_as_it_was(tiny_upscaler, monkeypatch):
    restorer = tiny_upscaler.restorer
    restorer.to(torch.float16)
    decode, cast = restorer.decode_latents, restorer.to

    def broken_off(dtype):
        if dtype == torch.float32:
            restorer.vae.to(dtype)
            raise torch.OutOfMemoryError("CUDA out of memory")
        cast(dtype)

    monkeypatch.setattr(restorer, "to", broken_off)
    monkeypatch.setattr(restorer, "decode_latents", lambda latents: decode(latents) * torch.inf)
    with pytest.raises(AddSRError, match="does not hold the weights in float32"):
        tiny_upscaler(photo())
    monkeypatch.setattr(restorer, "decode_latents", decode)
    assert tiny_upscaler(photo()).size == (112, 80)


def test_threads_that_share_a_model_take_turns(tiny_upscaler, monkeypatch):
    run, inside, most = tiny_upscaler.runner._run_tiles, [], []

    def counted(*args):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        try:
            return run(*args)
        finally:
            inside.pop()

    monkeypatch.setattr(tiny_upscaler.runner, "_run_tiles", counted)
    expected = np.asarray(tiny_upscaler(photo()))
    with ThreadPoolExecutor(3) as pool:
        pictures = list(pool.map(lambda _: np.asarray(tiny_upscaler(photo())), range(3)))
    assert max(most) == 1
    assert all(np.array_equal(picture, expected) for picture in pictures)


def test_damaged_weights_are_reported_not_painted(tiny_upscaler):
    with torch.no_grad():
        tiny_upscaler.restorer.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(AddSRError, match="not finite"):
        tiny_upscaler(photo())


@pytest.mark.parametrize("size", [(1000, 16), (16, 1000), (31, 31)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("scale", [4, 5.3])
def test_a_plan_counts_the_tiles_that_are_run(tiny_upscaler, size, mode, scale):
    image = Image.new(mode, size, (9, 20, 30, 128)[: len(mode)])
    seen = []
    options = RestoreOptions(scale=scale, tile=256)
    tiny_upscaler(image, scale=scale, tile=256, progress=lambda done, total: seen.append((done, total)))
    tiles = Planner(tiny_upscaler)(read_pil(image), options).tiles
    assert seen == [(done + 1, tiles) for done in range(tiles)]


def test_a_path_is_a_folder_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="compact"):
        find_model(Path("compact"))
    assert find_model("compact").is_dir()


@pytest.mark.parametrize("photo", [None, ["a.png"], b"\x89PNG", torch.zeros(3, 8, 8)])
def test_what_is_no_photo_is_said(photo, tiny_upscaler):
    with pytest.raises(InputImageError, match="a photo is a path, a PIL image or an array, not a"):
        tiny_upscaler(photo)


@pytest.mark.parametrize("seed", [1.5, None, "1", True])
def test_a_seed_is_a_whole_number(seed, tiny_upscaler):
    with pytest.raises(AddSRError, match="it must be a whole number"):
        tiny_upscaler(Image.new("RGB", (8, 8)), seed=seed)
