"""Losses, their weights, and what judges pictures."""

import shutil
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from addsr.data.draws import Draws
from addsr.diffusion.schedule import scaled_linear_alphas_cumprod
from addsr.discriminators.augment import augment
from addsr.discriminators.dino import DinoDiscriminator
from addsr.discriminators.patch import PatchDiscriminator
from addsr.discriminators.squeeze import SqueezeDiscriminator
from addsr.errors import ModelError
from addsr.image.detail import fine_detail
from addsr.image.smoothing import smoothed
from addsr.losses.adversarial import adaptive_weight, clamped, hinge_discriminator_loss, hinge_generator_loss
from addsr.losses.detail import excess_and_missing_detail
from addsr.losses.distillation import teacher_weight, timestep_adapting_weight
from addsr.losses.grid import excess_of_steps, grid_distance
from addsr.losses.lpips import SqueezeLPIPS
from addsr.losses.reconstruction import balanced, l1_at_contrasts, l1_of_the_known
from addsr.losses.scene_statistics import scene_statistics_distance
from addsr.losses.spectrum import mean_over_frequencies, power_shares, spectral_distance
from addsr.losses.weave import excess_of_weave, weave


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


@pytest.mark.parametrize("name", ["fire3.expand1x1.bias", "lin4.weight"])
def test_lpips_says_what_its_file_lacks(lpips_weights, name):
    tensors = load_file(lpips_weights)
    tensors.pop(name)
    save_file(tensors, lpips_weights)
    with pytest.raises(ModelError, match=f"not LPIPS on SqueezeNet \\({name} is missing\\)"):
        SqueezeLPIPS(lpips_weights)


RELEASED_FIRES = dict(zip((3, 4, 6, 7, 9, 10, 11, 12), range(1, 9), strict=True))  # in torchvision's SqueezeNet 1.1


def released_lpips(ours, folder):
    """The files of torchvision and LPIPS that have the same weights."""
    folder.mkdir()
    backbone = {f"features.0.{part}": ours[f"conv0.{part}"] for part in ("weight", "bias")}
    for layer, fire in RELEASED_FIRES.items():
        names = [name for name in ours if name.startswith(f"fire{fire}.")]
        backbone |= {name.replace(f"fire{fire}", f"features.{layer}"): ours[name] for name in names}
    torch.save({**backbone, "classifier.1.bias": torch.zeros(1000)}, folder / "squeezenet1_1-b8a52dc0.pth")
    heads = {f"lin{i}.model.1.weight": torch.nn.Parameter(ours[f"lin{i}.weight"]) for i in range(7)}
    torch.save(heads, folder / "squeeze.pth")


def test_lpips_reads_the_released_files(lpips_weights, tmp_path):
    released_lpips(load_file(lpips_weights), tmp_path / "released")
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    theirs, ours = SqueezeLPIPS(tmp_path / "released"), SqueezeLPIPS(lpips_weights)
    torch.testing.assert_close(theirs(a, b), ours(a, b), rtol=0, atol=0)
    assert not any(value.requires_grad for value in theirs.buffers())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "squeeze.pth").unlink(), r"not LPIPS on SqueezeNet \(lin0.weight is missing\)"),
        (
            lambda folder: shutil.copy(folder / "squeeze.pth", folder / "alex.pth"),
            "twice .alex.pth and squeeze.pth.; keep only",
        ),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "not LPIPS on SqueezeNet"),
    ],
)
def test_lpips_says_what_its_folder_lacks_or_has_twice(change, message, lpips_weights, tmp_path):
    released_lpips(load_file(lpips_weights), tmp_path / "released")
    change(tmp_path / "released")
    with pytest.raises(ModelError, match=message):
        SqueezeLPIPS(tmp_path / "released")


def test_balancing_favours_the_easy_pictures():
    losses = torch.tensor([0.02, 0.1, 0.5], requires_grad=True)
    balanced(losses, 0.02).sum().backward()
    easy, typical, hopeless = losses.grad
    assert easy > 2 * typical > 4 * hopeless
    assert typical == pytest.approx(1)
    assert torch.equal(balanced(losses, 0), losses)


def test_what_is_read_counts_where_hr_has_contrast_and_nowhere_else():
    hr = torch.full((2, 3, 64, 64), 0.2)
    hr[0, :, 30:32, 10:50] = 0.9  # a line; the second has one that is hardly seen
    hr[1, :, 30:32, 10:50] = 0.4
    off = torch.zeros(64, 64)
    off[31, 20:40] = 0.1  # on the line
    away = off.roll(-20, 0)
    assert l1_at_contrasts(hr + off, hr).tolist() == pytest.approx([off.mean().item(), 0])
    assert l1_at_contrasts(hr + away, hr).abs().max() == 0
    pictures = (hr + off).requires_grad_()
    l1_at_contrasts(pictures, hr).sum().backward()
    assert pictures.grad[0].count_nonzero() == 3 * 20
    assert pictures.grad[1].count_nonzero() == 0


def test_detail_that_lr_cannot_show_is_not_known():
    hr = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    finest = 0.2 * (torch.arange(64) % 2 - 0.5).expand(64, 64)  # periods of 2 pixels; LR shows none below 8
    coarse = 0.2 * (torch.arange(64) // 16 % 2 - 0.5).expand(64, 64)  # of 32
    unseen, seen = (l1_of_the_known(hr + off, hr).mean() for off in (finest, coarse))
    assert unseen < 0.02 * coarse.abs().mean()  # at the borders
    assert seen.item() == pytest.approx(coarse.abs().mean().item(), rel=0.1)
    pictures = (hr + coarse).requires_grad_()
    l1_of_the_known(pictures, hr).sum().backward()
    assert pictures.grad.count_nonzero() > 0.9 * hr.numel()


def test_late_timesteps_distil_more():
    """The paper's mapping; the released code gives 999 the largest."""
    assert timestep_adapting_weight(torch.tensor([999, 749, 499, 249])).tolist() == pytest.approx(
        [0.5, 1.05, 2.205, 4.63]
    )


def test_the_teacher_counts_little_where_all_is_noise():
    timestep, abar = torch.tensor([10, 990]), scaled_linear_alphas_cumprod()
    weight = teacher_weight(timestep, abar, "sqrt_alphas_cumprod")
    torch.testing.assert_close(weight, abar[timestep].sqrt())
    assert teacher_weight(timestep, abar, "uniform").tolist() == [1, 1]
    with pytest.raises(ValueError, match="unknown teacher weight"):
        teacher_weight(timestep, abar, "other")


def test_augmentation_shifts_and_cuts():
    pictures = torch.ones(6, 3, 40, 40, requires_grad=True)
    draws = Draws(0, 0, range(6))
    cut = augment(pictures, draws)
    assert cut.shape == pictures.shape
    assert set(cut.unique().tolist()) == {0, 1}
    zeros = (cut[:, 0] == 0).sum((1, 2))
    assert zeros.min() > 0
    assert zeros.max() <= 8 * 8 + 40 * 40 - 35 * 35
    assert len(zeros.unique()) > 1
    cut.sum().backward()
    assert pictures.grad.sum() == cut.sum()


def tiny_vit():
    from transformers import ViTConfig, ViTModel

    size = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTModel(ViTConfig(image_size=32, patch_size=8, **size)).eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["patch", "squeeze", "dino", "conditioned dino"])
def test_discriminators_learn_to_tell_two_kinds_apart(kind, lpips_weights):
    torch.manual_seed(0)
    made = {
        "patch": PatchDiscriminator,
        "squeeze": lambda: SqueezeDiscriminator(SqueezeLPIPS(lpips_weights)),
        "dino": lambda: DinoDiscriminator(tiny_vit()),
        "conditioned dino": lambda: DinoDiscriminator(tiny_vit(), tiny_vit()),
    }
    discriminator = made[kind]()
    parameters = list(discriminator.parameters())
    assert parameters
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4), scale_factor=12)
    rough = torch.rand(2, 3, 48, 48)
    optimizer = torch.optim.Adam(parameters, lr=5e-3, betas=(0.0, 0.99))
    losses = []
    for step in range(25):
        draws = Draws(0, step, range(2))
        loss = hinge_discriminator_loss(discriminator(smooth, rough, draws), discriminator(rough, rough, draws))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert discriminator(smooth, rough, Draws(0, 0, range(2))).shape[0] == 2


def test_fine_detail_is_what_a_binomial_filter_takes_away():
    squares = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).expand(1, 3, 16, 16)
    torch.testing.assert_close(fine_detail(0.5 + 0.1 * squares), 0.1 * squares)
    assert fine_detail(torch.full((1, 3, 16, 16), 0.5)).abs().max() < 1e-6


def test_the_patch_discriminator_looks_at_lr_and_detail_but_not_at_colours():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8).eval()
    picture = 0.8 * torch.rand(1, 3, 32, 32)

    def score(pictures: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        return discriminator(pictures, lr, Draws(0, 0, range(1)))

    known = score(picture, picture)
    assert known.shape == (1, 16)
    assert torch.equal(score(picture, picture), known)
    assert (score(picture, 0.9 * picture) - known).abs().max() > 1e-3
    assert (score(0.9 * picture, picture) - known).abs().max() > 1e-3
    torch.testing.assert_close(score(picture + 0.1, picture), known, atol=1e-5, rtol=0)


def test_detail_counts_by_its_strength_alone():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((2, 3, 64, 64), 0.5)
    waves = torch.stack([torch.sin(torch.arange(64.0) * torch.pi / half) for half in (2, 4, 8)]).sum(0)
    coarse = 0.3 * waves.expand(2, 3, 64, 64)  # known, so nearly all detail is asked for
    noise, other = 0.1 * torch.randn(2, 2, 1, 64, 64, generator=generator)
    grainy, missing = excess_and_missing_detail(flat + noise, flat)
    assert grainy.shape == missing.shape == (2,)
    assert (grainy > 0.1).all()
    assert (missing == 0).all()
    excess, lacking = excess_and_missing_detail(flat + coarse, flat + coarse + noise)
    assert (lacking > 5 * excess).all()
    assert (lacking > 0.05).all()
    for part in excess_and_missing_detail(flat + coarse, flat + coarse):
        assert (part < 0.01).all()
    for part in excess_and_missing_detail(flat + coarse + other, flat + coarse + noise):
        assert (part < 0.15 * grainy).all()  # which detail it is, is not its business
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, 64)
    assert (excess_and_missing_detail(ramp, flat)[0] < 0.02).all()


def test_detail_is_taken_in_float32_under_autocast():
    pictures, targets = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        automatic = excess_and_missing_detail(pictures, targets)
    for ours, theirs in zip(automatic, excess_and_missing_detail(pictures, targets), strict=True):
        assert torch.equal(ours, theirs)


def test_less_detail_is_asked_for_where_the_coarser_detail_is_wrong():
    generator = torch.Generator().manual_seed(0)
    hr, other = torch.rand(2, 1, 3, 64, 64, generator=generator)
    smooth, other = ((x - fine_detail(x)) for x in (hr, other))  # without the finest octave
    right, wrong = (excess_and_missing_detail(x, hr)[1] for x in (smooth, other))
    assert wrong < 0.5 * right
    both, doubts = torch.cat([other, other]), torch.tensor([1 / 3, 0.0])
    as_before, undoubted = excess_and_missing_detail(both, torch.cat([hr, hr]), doubts)[1]
    assert torch.allclose(as_before, wrong)
    assert undoubted > 1.2 * wrong
    hr.requires_grad_()
    pictures = smooth.clone().requires_grad_()
    excess_and_missing_detail(pictures, hr)[1].sum().backward()
    assert hr.grad is None
    assert pictures.grad is not None


def test_detail_of_one_direction_does_not_make_up_for_another():
    stripes = 0.1 * torch.sin(torch.arange(64.0) * 2).expand(1, 3, 64, 64)
    across, down = 0.5 + stripes, 0.5 + stripes.transpose(2, 3)
    assert excess_and_missing_detail(across, down)[0] > 10 * excess_and_missing_detail(across, across)[0]


def test_scene_statistics_tell_what_kind_of_detail_it_is_and_not_where():
    generator = torch.Generator().manual_seed(0)
    noise, other = 0.1 * torch.randn(2, 2, 1, 128, 128, generator=generator)
    hr = 0.5 + noise.expand(2, 3, 128, 128)
    assert scene_statistics_distance(hr, hr).abs().max() == 0
    elsewhere = scene_statistics_distance(0.5 + other.expand(2, 3, 128, 128), hr)
    assert elsewhere.shape == (2,)
    assert (elsewhere < 0.02).all()
    weaker = scene_statistics_distance(0.5 + 0.6 * (hr - 0.5), hr)
    blurred = hr - fine_detail(hr)
    canvas = 0.5 + 0.1 * torch.sin(torch.arange(128.0) * torch.pi / 2).expand(2, 3, 128, 128)
    for unlike in (blurred, canvas, torch.full_like(hr, 0.5)):
        distance = scene_statistics_distance(unlike, hr)
        assert (distance > 5 * elsewhere).all()
        assert (distance > 4 * weaker).all()  # strength is another loss's


def test_scene_statistics_are_taken_in_float32_and_reach_the_pictures_alone():
    pictures, targets = torch.rand(2, 1, 3, 96, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        automatic = scene_statistics_distance(pictures, targets)
    assert torch.equal(automatic, scene_statistics_distance(pictures, targets))
    flat, targets = torch.full_like(pictures, 0.5).requires_grad_(), targets.requires_grad_()
    scene_statistics_distance(flat, targets).sum().backward()
    assert targets.grad is None
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("reflect", [False, True])
def test_smoothing_is_a_weighted_mean_of_the_surroundings(reflect):
    values = torch.rand(2, 3, 9, 6, generator=torch.Generator().manual_seed(0))
    taps = torch.tensor([1.0, 2.0, 5.0, 2.0, 1.0])
    kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
    padded, ones = (
        F.pad(x, (2,) * 4, mode="reflect" if reflect else "constant") for x in (values, torch.ones_like(values))
    )
    expected = F.conv2d(padded, kernel, groups=3) / F.conv2d(ones, kernel, groups=3)
    torch.testing.assert_close(smoothed(values, tuple(taps.tolist()), reflect=reflect), expected)


def test_the_discriminator_is_shown_what_it_learns():
    pictures = torch.tensor([-0.5, 0.5, 1.5], requires_grad=True)
    shown = clamped(pictures)
    assert shown.tolist() == [0, 0.5, 1]
    shown.sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.tolist() == [1, 1, 1]


def assert_told(distance, spoiled, hr, other, chance, faint=1.1):
    """What is spoiled, of `other`, is far from HR; `other` is as far as chance has it, whatever its strength, but
    for a factor of `faint`.
    """
    assert distance(hr, hr).max() == 0
    ordinary = distance(other, hr)
    assert (ordinary < chance).all()
    for pictures in spoiled:
        assert (distance(pictures, hr) > 5 * ordinary).all()
    assert (distance(0.5 + 0.3 * (other - 0.5), hr) < faint * ordinary).all()


@pytest.fixture
def two():
    generator = torch.Generator().manual_seed(0)
    return [0.5 + 0.1 * torch.randn(2, 3, 128, 128, generator=generator) for _ in range(2)]


def test_a_grid_of_the_decoders_cells_is_told_from_other_detail(two):
    hr, other = two
    stronger = torch.ones(4, 4)
    stronger[1, 2] = 2  # at one place of each cell
    uneven = 0.5 + (other - 0.5) * stronger.repeat(32, 32)
    brighter = other + 0.1 * (stronger.repeat(32, 32) - 1)
    assert_told(partial(grid_distance, cell=4), (uneven, brighter), hr, other, chance=0.005)


def test_periods_and_directions_that_hr_has_not_are_told_from_other_detail(two):
    hr, other = two
    detail = other - 0.5
    strokes = 0.5 + sum(detail.roll(shift, 3) for shift in range(4)) / 2  # along rows
    canvas = 0.5 + detail[:, :, :8, :8].repeat(1, 1, 16, 16)
    checks = other + 0.1 * (-1.0) ** (torch.arange(128) + torch.arange(128)[:, None])
    coloured = other + (checks - other) * torch.tensor([0.114, 0.0, -0.299])[:, None, None] / 0.1  # not in luminance
    soft = 0.5 + smoothed(detail, (1.0,) * 3, reflect=True)
    spoiled = (strokes, strokes.mT, canvas, checks, coloured, soft)
    assert_told(spectral_distance, spoiled, hr, other, chance=0.06, faint=1.2)


def test_more_steps_than_hr_has_count_in_each_colour_and_fewer_do_not(two):
    hr, other = two
    assert excess_of_steps(hr, hr, 4).max() == 0
    assert excess_of_steps(0.5 + 0.8 * (other - 0.5), hr, 4).max() == 0
    stripes = 0.1 * torch.tensor([0.0, 0, 0, 1]).repeat(32)
    grey = torch.tensor([0.114, 0.0, -0.299])[:, None, None]  # luminance has nothing of it
    for spoiled in (other + stripes, other + stripes * grey / 0.2):
        assert (excess_of_steps(spoiled, hr, 4) > 0.01).all()


def test_strokes_of_both_axes_are_told_where_they_cross_and_hr_has_none(two):
    hr, other = two
    detail = other - 0.5
    rows, columns = (0.5 + sum(detail.roll(shift, axis) for shift in range(4)) / 2 for axis in (3, 2))
    crossed = rows + columns - 0.5
    beside = torch.cat([rows[..., :64], columns[..., 64:]], 3)  # as many of each
    slanted, leaning = (
        0.5 + sum(detail.roll((shift, sign * shift), (2, 3)) for shift in range(4)) / 2 for sign in (1, -1)
    )
    coloured = 0.5 + (crossed - 0.5).mean(1, keepdim=True) * torch.tensor([0.38, 0.0, -1.0])[:, None, None]
    large = crossed[..., :32, :32].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert excess_of_weave(crossed, crossed).max() == 0
    chance = excess_of_weave(other, hr)
    assert (chance < 0.06).all()
    for fine in (beside, slanted):  # the first has some windows with both
        assert (excess_of_weave(fine, hr) < 1.2 * chance).all()
    for woven in (crossed, slanted + leaning - 0.5, coloured, large, 0.5 + 0.3 * (crossed - 0.5)):
        assert (excess_of_weave(woven, hr) > 1.6 * chance).all()
    elsewhere = torch.cat([crossed[..., 64:], hr[..., :64]], 3), torch.cat([hr[..., :64], crossed[..., 64:]], 3)
    assert (excess_of_weave(*elsewhere) > 1.4 * chance).all()
    torch.testing.assert_close(excess_of_weave(crossed.mT, hr.mT), excess_of_weave(crossed, hr))

    def excess(pictures, targets, way):  # along the axes alone, or the diagonals
        ways = [(a - b).relu()[..., way, :] for a, b in zip(weave(pictures), weave(targets), strict=True)]
        return torch.stack([one.flatten(1).mean(1) for one in ways]).mean(0)

    total = excess(crossed, hr, 0) + excess(crossed, hr, 1)
    torch.testing.assert_close(total, excess_of_weave(crossed, hr))
    chance = excess(other, hr, 0)
    assert (chance < 0.03).all()
    for fine in (beside, slanted):
        assert (excess(fine, hr, 0) < 2 * chance).all()
    for woven in (crossed, coloured, large, 0.5 + 0.3 * (crossed - 0.5)):
        assert (excess(woven, hr, 0) > 2.5 * chance).all()
    assert (excess(*elsewhere, 0) > 2 * chance).all()
    assert (excess(slanted + leaning - 0.5, hr, 1) > 2.5 * excess(other, hr, 1)).all()


DISTANCES = (
    partial(grid_distance, cell=4),
    partial(excess_of_steps, cell=4),
    spectral_distance,
    excess_of_weave,
    l1_at_contrasts,
    l1_of_the_known,
)


def test_distances_are_measured_in_float32_and_flat_pictures_have_gradients():
    pictures, targets = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        automatic = [distance(pictures, targets) for distance in DISTANCES]
    for measured, distance in zip(automatic, DISTANCES, strict=True):
        assert torch.equal(measured, distance(pictures, targets))
    for contrast in (0, 1e-4):
        flat = (0.5 + contrast * pictures[:1]).requires_grad_()
        torch.stack([distance(flat, targets[:1]) for distance in DISTANCES]).sum().backward()
        assert flat.grad is not None
        assert flat.grad.isfinite().all()


def test_no_direction_weighs_more_than_another_in_the_spectrum(two):
    hr, other = two
    torch.testing.assert_close(spectral_distance(other.mT, hr.mT), spectral_distance(other, hr))
    torch.testing.assert_close(mean_over_frequencies(power_shares(hr)).mean(), torch.tensor(0.95), atol=0.02, rtol=0)


def test_lpips_is_computed_in_float32_under_autocast(lpips_weights):
    distance, generator = SqueezeLPIPS(lpips_weights), torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        halved = distance(a, b)
    assert torch.equal(halved, distance(a, b))
