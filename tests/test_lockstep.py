"""Tiles of an autoencoder in step: the cuts by hand, the passages against diffusers' own, shared norms, whole pictures."""

from copy import deepcopy
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn

import addsr
from addsr.diffusion.lockstep import InStep, Lockstep, coded_in_step, plan_parts, run_in_step
from addsr.diffusion.released import RELEASED_AUTOENCODER
from addsr.diffusion.tiled import Tiling
from addsr.models.autoencoder_passage import decoding, encoding, posterior_of
from tests.published import write_published


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    config: Any = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    }
    network = AutoencoderKL(**config)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):  # whose weights are 1 and 0 at first
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval().requires_grad_(False)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def parts(*arguments):
    cut = plan_parts(arguments[0], Lockstep(*arguments[1:]))
    return [(part.read.start, part.read.stop, part.keep.start, part.keep.stop) for part in cut]


def test_cuts_by_hand():
    """300 latents: (300 - 22) / 224 -> two tiles of 139, rounded up to 160."""
    assert parts(300, 224, 11) == [(0, 182, 0, 171), (160, 300, 171, 300)]
    assert parts(246, 224, 11) == [(0, 246, 0, 246)]
    assert parts(100, 224, 11) == [(0, 100, 0, 100)]  # the short side of a long picture
    assert parts(2048, 1024, 32) == [(0, 1056, 0, 1024), (992, 2048, 1024, 2048)]  # two of 992
    assert parts(60, 10, 3)[0] == (0, 16, 0, 13)  # 60 - 6 in six of nine, rounded up to 10 by twos


@pytest.mark.parametrize("length", range(247, 1600, 37))
def test_cuts_cover_a_side_once(length):
    cut = plan_parts(length, Lockstep(224, 11))
    assert [place for part in cut for place in range(part.keep.start, part.keep.stop)] == list(range(length))
    assert all(part.read.start <= part.keep.start < part.keep.stop <= part.read.stop for part in cut)
    assert len(cut) == Lockstep(224, 11).count((length, 9))


def test_one_tile_is_the_network_itself(vae):
    latents, pictures = noise(2, 4, 6, 9), noise(2, 3, 14, 10)
    torch.testing.assert_close(run_in_step([decoding(vae, latents)])[0], vae.decode(latents).sample)
    ours, theirs = posterior_of(run_in_step([encoding(vae, pictures)])[0]), vae.encode(pictures).latent_dist
    torch.testing.assert_close(ours.mode(), theirs.mode())
    torch.testing.assert_close(ours.std, theirs.std)


def in_common(network):
    """The network with norms that take mean and variance of each sample and average them over the batch."""

    class Common(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            norm, shape = self.norm, x.shape
            grouped = x.reshape(shape[0], norm.num_groups, -1)
            mean, variance = grouped.mean(2).mean(0), grouped.var(2, correction=0).mean(0)
            x = ((grouped - mean[:, None]) / (variance[:, None] + norm.eps).sqrt()).reshape(shape)
            per_channel = (-1,) + (1,) * (len(shape) - 2)
            return x * norm.weight.reshape(per_channel) + norm.bias.reshape(per_channel)

    network = deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, Common(child))
    return network


def test_tiles_share_statistics_and_are_cut(vae):
    """Two tiles of the same size, against diffusers' forward of them as one batch under common norms."""
    latents, lockstep = noise(1, 4, 10, 22), Lockstep(8, 3)
    tiles = torch.cat([latents[..., :14], latents[..., 8:]])
    one, other = in_common(vae).decode(tiles).sample
    wanted = torch.cat([one[..., : 2 * 11], other[..., 2 * 3 :]], -1)[None]
    seen = []
    ours = coded_in_step(
        lambda rows, columns: decoding(vae, latents[..., rows, columns]), (10, 22), lockstep, 2, lambda: seen.append(1)
    )
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    assert len(seen) == 2

    pictures, lockstep = noise(1, 3, 10, 44), Lockstep(16, 6)
    one, other = in_common(vae).encode(torch.cat([pictures[..., :28], pictures[..., 16:]])).latent_dist.mode()
    wanted = torch.cat([one[..., :11], other[..., 3:]], -1)[None]
    moments = coded_in_step(
        lambda rows, columns: encoding(vae, pictures[..., rows, columns]), (10, 44), lockstep, Fraction(1, 2)
    )
    torch.testing.assert_close(posterior_of(moments).mode(), wanted, rtol=1e-4, atol=1e-5)


def test_larger_tiles_weigh_more():
    """A norm of one group over two tiles of 1 and 3 pixels, by hand: mean (0 + 3 · 2) / 4, variance (0 + 3 · 6) / 4."""
    norm = nn.GroupNorm(1, 1, eps=0)

    def passage(values):
        row = torch.tensor(values)[None, None, None]
        return (yield norm, row)(row)

    first, second = run_in_step([passage([0.0]), passage([2.0, 5.0, -1.0])])
    torch.testing.assert_close(first.flatten(), (torch.tensor([0.0]) - 1.5) / 4.5**0.5)
    torch.testing.assert_close(second.flatten(), (torch.tensor([2.0, 5.0, -1.0]) - 1.5) / 4.5**0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_good_as_the_networks_own(vae, dtype):
    """Of a nearly flat picture, where rounded shifts and factors would tint."""
    half, latents = deepcopy(vae).to(dtype), 3 + 0.1 * noise(2, 4, 12, 9)
    exact = vae.decode(latents).sample
    ours, theirs = run_in_step([decoding(half, latents.to(dtype))])[0], half.decode(latents.to(dtype)).sample
    assert ours.dtype == dtype
    tints = [(picture.float() - exact).mean((2, 3)).abs().max() for picture in (ours, theirs)]
    assert tints[0] < 1.5 * tints[1] + 1e-3


@pytest.mark.parametrize(("name", "codings"), [("addsr", 2 * 12 + 1), ("seesr", 12 + 6)])
def test_the_released_way_through_a_whole_restoration(tmp_path, monkeypatch, name, codings):
    """Of 64×96 latents in tiles of 24 (three rows, four columns): AddSR decodes at each step and its encoder is not cut;
    SeeSR's is: 512×768 pixels in two rows and three columns.
    """
    up = addsr.load(write_published(tmp_path, name), device="cpu", precision="fp32")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    options = {"steps": 2, "compat": "released", "scale": 4, "color_fix": "none"}
    whole = np.asarray(up(photo, **options)).astype(int)
    tiles = InStep(Lockstep(24, 2), Lockstep(256, 16) if name == "seesr" else None)
    monkeypatch.setitem(RELEASED_AUTOENCODER, up.restorer.sampler.name, tiles)
    seen, brought = [], []
    up.restorer.vae._hf_hook = SimpleNamespace(pre_forward=brought.append)  # diffusers' offloading
    cut = np.asarray(up(photo, **options, progress=lambda done, total: seen.append((done, total)))).astype(int)
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1] == len(seen) == 2 + codings
    assert len(brought) == (3 if name == "addsr" else 2)  # before each coding
    assert cut.shape == whole.shape
    assert 0 < np.abs(cut - whole).mean() < 10


def test_released_sizes():
    """As OFFICIAL.md has them: whole up to 246 latents; SeeSR's encoder up to 1088 pixels, AddSR's always."""
    assert RELEASED_AUTOENCODER["addsr"].encoder is None
    encoder, decoder = RELEASED_AUTOENCODER["ancestral"].encoder, RELEASED_AUTOENCODER["addsr"].decoder
    assert encoder is not None
    assert [decoder.cuts((64, side)) for side in (246, 247)] == [False, True]
    assert [encoder.cuts((64, side)) for side in (1088, 1089)] == [False, True]


def test_the_plan_has_all_tiles_in_memory(tmp_path):
    """SeeSR's tiles of the latents are 768 pixels in both ways; of 2400², decoded in step, more is in memory."""
    from addsr.evaluation.plan import Planner
    from addsr.image.picture import from_array
    from addsr.options import RestoreOptions

    up = addsr.load(write_published(tmp_path, "seesr"), device="cpu", precision="fp32")
    picture = from_array(np.zeros((600, 600, 3), dtype=np.uint8))
    tiled, released = (Planner(up)(picture, RestoreOptions(compat=compat)) for compat in ("paper", "released"))
    assert (tiled.tile, released.tile) == (768, 768)
    more = (released.peak - released.weights) / (tiled.peak - tiled.weights)
    assert 2 < more < (2400 / 768) ** 2  # buffers are alike


def test_the_released_window_brings_the_released_autoencoder(tmp_path):
    """Which takes small pictures whole, and draws its posterior as of the whole."""
    restorer = addsr.load(write_published(tmp_path, "seesr"), device="cpu", precision="fp32").restorer
    latents, picture = noise(1, 4, 24, 40), noise(1, 3, 192, 320).clamp(-1, 1) / 2 + 0.5
    whole = restorer.decode_latents(latents), restorer.encode_latents(picture, None)
    for window, in_step, alike in (("gaussian", None, True), ("gaussian", False, False), ("feather", None, False)):
        tiling = Tiling(12, 4, window, in_step)
        tiled = restorer.decode_latents(latents, tiling), restorer.encode_latents(picture, None, tiling)
        assert [torch.allclose(a, b, atol=1e-5) for a, b in zip(tiled, whole, strict=True)] == [alike] * 2


def test_short_memory_first_gives_up_going_in_step(tmp_path, monkeypatch):
    from addsr.options import RestoreOptions
    from addsr.runner import Runner

    up = addsr.load(write_published(tmp_path), device="cpu", precision="fp32")
    seen, run = [], Runner._run_whole

    def short_of_memory(self, one, tiling):
        seen.append(tiling)
        if tiling.in_step is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, one, tiling)

    monkeypatch.setattr(Runner, "_run_whole", short_of_memory)
    up(Image.new("RGB", (20, 16)), steps=1, compat="released")
    assert [tiling.in_step for tiling in seen] == [None, False]
    assert seen[0].window == seen[1].window == "gaussian"
    assert seen[0] == up.runner.tiling(768, RestoreOptions(compat="released"))
