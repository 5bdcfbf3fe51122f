"""Degradation, data, losses and the loop, on the smallest scale."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from addsr.data.degradation import CASES, DegradationSettings, filter2d, fixed_case, two_order
from addsr.data.kernels import gaussian_kernel, sinc_kernel
from addsr.data.pairs import Pairs, PairSettings
from addsr.data.photos import Photos
from addsr.errors import DataError
from addsr.losses.adversarial import adaptive_weight, hinge_discriminator_loss, hinge_generator_loss
from addsr.losses.lpips import SqueezeLPIPS
from addsr.training.config import load_preset, loop_settings, make_settings, make_unet, make_vae
from addsr.training.loop import Loop, LoopSettings
from addsr.training.pca import start_from_components, start_from_condition
from addsr.training.student import StudentSettings, StudentTask
from tests.tiny import tiny_unet, tiny_vae


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return Photos([tmp_path])


@pytest.fixture
def lpips_weights(tmp_path):
    """Random weights in the layout of SqueezeNet LPIPS."""
    generator = torch.Generator().manual_seed(0)

    def conv(o, i, k):
        return torch.randn(o, i, k, k, generator=generator) * (2 / (i * k * k)) ** 0.5

    state = {"conv0.weight": conv(64, 3, 3), "conv0.bias": torch.zeros(64)}
    channels = 64
    for n, (squeeze, expand) in enumerate(((16, 64),) * 2 + ((32, 128),) * 2 + ((48, 192),) * 2 + ((64, 256),) * 2, 1):
        for part, o, i, k in (
            ("squeeze", squeeze, channels, 1),
            ("expand1x1", expand, squeeze, 1),
            ("expand3x3", expand, squeeze, 3),
        ):
            state |= {f"fire{n}.{part}.weight": conv(o, i, k), f"fire{n}.{part}.bias": torch.zeros(o)}
        channels = 2 * expand
    for i, width in enumerate((64, 128, 256, 384, 384, 512, 512)):
        state[f"lin{i}.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    save_file(state, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


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


def test_pairs_depend_on_seed_and_count_alone(photos):
    settings = PairSettings(crop=64, holdout=2)
    a, b = (Pairs(photos, settings, 0, 10)[7] for _ in range(2))
    assert torch.equal(a["lr"], b["lr"])
    assert not torch.equal(a["lr"], Pairs(photos, settings, 1, 10)[7]["lr"])
    held = Pairs(photos, settings, 0, 10, held_out=True)
    assert not set(held.chosen) & set(Pairs(photos, settings, 0, 10).chosen)


def test_photos_come_from_tars_too(photos, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(tmp_path / "0.png", "inside/0.png")
    np.testing.assert_array_equal(Photos([tmp_path / "shard.tar"])[0], photos[0])
    with pytest.raises(DataError, match="no such"):
        Photos([tmp_path / "none"])


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])
    assert hinge_discriminator_loss(real, fake) == 0.5 + 1.0
    assert hinge_generator_loss(fake) == 0.5


def test_adaptive_weight_holds_the_share():
    picture = torch.rand(4, requires_grad=True)
    reconstruction, adversarial = (picture * 3).sum(), (picture * 7).sum()
    weight = adaptive_weight(reconstruction, adversarial, picture, 0.2)
    assert weight == pytest.approx(0.2 * 3 / 7)


def test_lpips_is_zero_only_for_equals(lpips_weights):
    lpips = SqueezeLPIPS(lpips_weights)
    a = torch.rand(2, 3, 64, 64)
    assert lpips(a, a).abs().max() == 0
    assert (lpips(a, a.flip(3)) > 0).all()


def test_the_student_trains(photos, lpips_weights, tmp_path):
    torch.manual_seed(0)
    vae = tiny_vae()
    decoder = vae.decoder.linear.weight.clone()
    task = StudentTask(tiny_unet(), vae, StudentSettings(refine=1, refine_from=0, adversarial_from=0.05), lpips_weights)
    pairs = Pairs(photos, PairSettings(crop=64, holdout=4), 0, 24)
    Loop(task, pairs, LoopSettings(images=24, batch=4, report=8, save=24), tmp_path / "run").run()
    rows = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [8, 16, 24]
    assert rows[-1]["generator/adversarial_weight"] > 0
    assert "generator/l1_later" in rows[-1]
    assert not torch.equal(vae.decoder.linear.weight, decoder)
    assert "conv_in.weight" in load_file(tmp_path / "run" / "unet_ema.safetensors")


def test_components_are_an_autoencoder_and_the_skip_gives_the_picture_back():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8), scale_factor=8, mode="bicubic").clamp(0, 1)
    vae, unet = tiny_vae(latent_channels=24), tiny_unet(in_channels=24, out_channels=24)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    start_from_components(vae, smooth)
    start_from_condition(unet, vae)
    with torch.no_grad():
        latents = vae.encode(smooth * 2 - 1).latent_dist.mode()
        through = vae.decode(latents).sample / 2 + 0.5
        skipped = unet(torch.randn_like(latents), 999, controlnet_cond=smooth)
    assert (through - smooth).abs().mean() < 0.02
    torch.testing.assert_close(latents.var((0, 2, 3)), torch.ones(24), atol=0.1, rtol=0)
    torch.testing.assert_close(skipped, latents, atol=1e-3, rtol=0)


def test_a_loss_that_is_not_finite_stops(photos, lpips_weights, tmp_path):
    vae = tiny_vae()
    with torch.no_grad():
        vae.decoder.linear.weight.fill_(float("inf"))
    pairs = Pairs(photos, PairSettings(crop=64, holdout=4), 0, 8)
    task = StudentTask(tiny_unet(), vae, StudentSettings(), lpips_weights)
    with pytest.raises(FloatingPointError, match="after 0 images"):
        Loop(task, pairs, LoopSettings(images=8, batch=4), tmp_path / "run").run()


@pytest.mark.parametrize("name", ["compact-student", "compact-student-2"])
def test_the_presets_build_the_compact_model(name):
    preset = load_preset(name)
    with torch.device("meta"):
        unet, vae = make_unet(preset), make_vae(preset)
    assert sum(p.numel() for network in (unet, vae) for p in network.parameters()) < 25e6
    make_settings(StudentSettings, preset["settings"])
    assert loop_settings(preset, minutes=1.0).batch == 8
    with pytest.raises(DataError, match="unknown setting colour"):
        make_settings(StudentSettings, {"colour": 1})
    with pytest.raises(DataError, match="compact-student"):
        load_preset("nonesuch")
